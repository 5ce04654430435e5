"""Plan of a command (dry_run=true): what it would do, how long it takes, what it writes.

Nothing is run and nothing is written. Times come from the records of processors like this one,
scaled by the amount of work.
"""

import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from atom_repro.config.schemas import records_of, work_of
from atom_repro.datatypes import Machine
from atom_repro.records.component import component_name
from atom_repro.records.provenance import config_hash
from atom_repro.records.record import Record, load_records
from atom_repro.study.overrides import StageCommand

# Runs that differ in one of these take another time for the same amount of work.
_SAME = ("model", "dataset", "protocol", "engine", "quant", "visual_stages", "device", "host",
         "pipeline", "captioner", "sweep")  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """What the records say about a run.

    Attributes:
        seconds: None where no processor like this one has a record.
        record_bytes: of the records that it will write.
        basis: the records that both come from, or why there are none.
        on_record: the folder of a run with this very configuration; None if there is none.
    """

    seconds: float | None
    record_bytes: int | None
    basis: str
    on_record: Path | None


def estimate(
    command: str,
    settings: Mapping[str, Any],
    machine: Machine,
    protocols: Collection[str] | None = None,
) -> Estimate:
    """Estimate a run from the records of the same command, model, data and device.

    Args:
        command: the name of its primary configuration.
        settings: its effective configuration.
        protocols: of a command that has a record for each protocol, those that will run.
    """
    folders = (Path(settings["paths"]["results"]) / "records").glob("*")
    by_epochs = bool(_value(settings, "train.epochs"))
    comparable = [
        record
        for record in load_records(folders)
        if record.ok
        and record.stage in records_of(command)
        and all(
            _name(record.data["config"], key) == _name(settings, key)
            for key in _SAME
            if key in settings and key in record.data["config"]
        )
        and bool(record.config("train.epochs")) == by_epochs
        and (protocols is None or record.data["protocol"] in protocols)
    ]
    here = [r for r in comparable if r.computer.fingerprint == machine.fingerprint]
    like = here or [r for r in comparable if _alike(r.computer, machine)]
    if not like:
        basis = f"no record of it on {machine.processor}"
        if comparable:
            other = comparable[-1]
            basis += f"; on {other.machine.processor} it took {duration(_seconds(other))}"
        return Estimate(None, None, basis, None)
    sha256 = _config_hash(command, settings)
    same = [r for r in here if _config_hash(command, r.data["config"]) == sha256]
    scale = settings.get("scale", {}).get("name")
    of_scale = [r for r in like if r.data["scale"] == scale]
    run = _newest_run(same or of_scale or like)
    ratio = work(command, settings) / work(command, run[-1].data["config"])
    basis = f"{run[-1].stage}/{run[-1].run_id}" + (f" and {len(run) - 1} more" * (len(run) > 1))
    if not math.isclose(ratio, 1.0):
        basis += f", times {ratio:.3g} for the amount of work"
    return Estimate(
        seconds=sum(map(_seconds, run)) * ratio,
        record_bytes=round(sum(map(_record_bytes, run)) * ratio),
        basis=basis,
        on_record=same[-1].folder if same and _is_reused(command, settings) else None,
    )


def _config_hash(command: str, config: Mapping[str, Any]) -> str:
    """Hash of a configuration; of a training step without the clips, which its trials vary."""
    if command == "training_step":
        train = {key: value for key, value in config["train"].items() if key != "batch_size"}
        config = {**config, "train": train}
    return config_hash(config)


def _is_reused(command: str, settings: Mapping[str, Any]) -> bool:
    """Whether a record of the same configuration ends the command at once."""
    return command != "training_step" and not settings.get("force")


def work(command: str, settings: Mapping[str, Any]) -> float:
    """Amount of work of a run: the product of the settings that `work_of` names."""
    return math.prod(_count(settings, key) for key in _work_keys(command, settings))


def _work_keys(command: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    if _value(settings, "train.epochs") and command == "finetune":
        return ("train.epochs", "dataset.train")  # the steps follow from them
    return work_of(command)


def planned_only(
    command: str,
    settings: Mapping[str, Any],
    machine: Machine,
    *,
    writes: Callable[[], Mapping[str, int]] = dict,
    lacks: str = "",
    protocols: Collection[str] | None = None,
) -> bool:
    """Whether the command is a dry run; if so, what it would do is printed.

    Args:
        writes: returns the bytes of files that it writes, by what they are.
        lacks: what has to be there first, if it is not.
        protocols: see `estimate`.
    """
    if not settings["dry_run"]:
        return False
    expected = estimate(command, settings, machine, protocols)
    choices = [f"{key}={name}" for key in ("scale", *_SAME) if (name := _name(settings, key))]
    amounts = [
        f"{key.rpartition('.')[2]} {_count(settings, key):g}"
        for key in _work_keys(command, settings)
    ]
    new_files = [f"{what} {_size(size)}" for what, size in writes().items() if size]
    if expected.record_bytes is not None:
        new_files.append(f"records of about {_size(expected.record_bytes)}")
    if expected.seconds is None:
        time = f"not known: {expected.basis}"
    else:
        time = f"about {duration(expected.seconds)}, by {expected.basis}"
    lines = {
        "would run": " ".join(choices) or command,
        "work": " x ".join(amounts),
        "lacks": lacks,
        "time": time,
        "writes": ", ".join(new_files) or "a record, of a size that is not known",
        "on record": f"{expected.on_record}; kept while data, weights and code are unchanged"
        if expected.on_record
        else "",
    }
    text = "".join(f"  {name:<11} {line}\n" for name, line in lines.items() if line)
    sys.stdout.write(f"{command}, dry run: nothing is run or written\n{text}")
    return True


def total_time(stages: Sequence[StageCommand], machine: Machine) -> tuple[float, int, int]:
    """Seconds that the stages of a study take from the beginning; how many of them no record tells,
    and how many there are."""
    estimates = [estimate(stage.primary, stage.settings, machine) for stage in _measuring(stages)]
    known = [each.seconds for each in estimates if each.seconds is not None]
    return sum(known), len(estimates) - len(known), len(estimates)


def _measuring(stages: Sequence[StageCommand]) -> list[StageCommand]:
    """The stages that write records."""
    return [stage for stage in stages if records_of(stage.primary)]


def print_plan_of_stages(stages: Sequence[StageCommand], machine: Machine) -> None:
    """Print the stages of a study or the points of a sweep with their times, and the sum."""
    total, unknown = 0.0, 0
    measured = _measuring(stages)
    for stage in measured:
        expected = estimate(stage.primary, stage.settings, machine)
        if expected.on_record:
            time = "on record"
        elif expected.seconds is None:
            time, unknown = "not known", unknown + 1
        else:
            time, total = duration(expected.seconds), total + expected.seconds
        sys.stdout.write(f"  {time:>10}  {stage}\n")
    time = f"about {duration(total)}"
    if unknown:
        time += (
            f", without {unknown} of {len(measured)} that no record on {machine.processor} tells"
        )
    sys.stdout.write(f"dry run: nothing is run or written; {time}\n")


def _alike(one: Machine, other: Machine) -> bool:
    return (one.processor, one.instructions, one.cores) == (
        other.processor, other.instructions, other.cores,
    )  # fmt: skip


def _newest_run(records: Iterable[Record]) -> list[Record]:
    """The newest record, with those of the other protocols and batch sizes where a run has several:
    the newest of each with the same configuration otherwise."""
    newest: dict[tuple[Any, ...], Record] = {}
    for record in records:
        batch_size = record.config("train.batch_size") if record.stage == "training_step" else None
        several = record.stage.startswith("oracle_")
        newest[record.stage, record.data["protocol"] if several else None, batch_size] = record
    return list(newest.values())


def _name(settings: Mapping[str, Any], key: str) -> str:
    """A configuration group's choice: its name, or that of its component."""
    node = settings.get(key)
    if not isinstance(node, Mapping):
        return str(node or "")
    return str(node.get("name") or component_name(node.get("_target_", "")).rpartition(".")[2])


def _value(settings: Mapping[str, Any], key: str) -> Any:
    node: Any = settings
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _count(settings: Mapping[str, Any], key: str) -> float:
    node = _value(settings, key)
    if isinstance(node, list | tuple | Mapping):
        return max(node, default=1) if key.endswith("counts") else len(node) or 1
    return float(node or 1)


def _seconds(record: Record) -> float:
    started, ended = (
        datetime.fromisoformat(record.data[key]) for key in ("started_utc", "ended_utc")
    )
    return (ended - started).total_seconds()


def _record_bytes(record: Record) -> int:
    return sum(path.stat().st_size for path in record.folder.iterdir())


def duration(seconds: float) -> str:
    """A time as text, in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
