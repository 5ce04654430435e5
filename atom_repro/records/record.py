"""Run records: one folder per run, written once, never changed (schema 1).

`results/records/<machine>/<stage>/<run id>/record.json`, with `samples.jsonl` beside it where a
run has samples. A failed or interrupted run leaves a record too, with its status. A run writes
its folder under a name that readers skip and renames it when complete, so a kill leaves either a
complete record or none.

Fields that older records lack, and their current keys, are in `migration.json` in the machine's
folder, as records themselves are never changed.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from atom_repro.datatypes import AtomError, Machine
from atom_repro.records import provenance, system_load
from atom_repro.records.component import component_name

SCHEMA = 1
# Definition of each version of a quantity whose definition has changed. Two versions of one
# quantity never share a table.
QUANTITY_DEFINITIONS: Mapping[str, Mapping[int, str]] = {
    "load": {
        1: "a load ends with a first forward",
        2: "a load ends when the module can be called",
    },
    # How the defaults train on generated data.
    "training": {
        1: "AdamW from random weights",
        2: "words of single frames first, and Muon",
    },
}
DEFINITIONS = {quantity: max(versions) for quantity, versions in QUANTITY_DEFINITIONS.items()}
# Ends the name of a host whose processor is emulated, whose times no table shows.
EMULATED = "emulated"
MIGRATION = "migration.json"
_BUILDING = ".building-"


@dataclass(frozen=True)
class Record:
    """A run read from disk.

    Attributes:
        data: the content of `record.json`.
        preview: to be shown whatever its scale.
        training: the record of the training that made its weights, where that was loaded too.
    """

    folder: Path
    data: Mapping[str, Any]
    preview: bool = False
    training: "Record | None" = None

    @property
    def in_tables(self) -> bool:
        """Whether tables may show it: no smoke run, unless it is previewed."""
        return self.preview or bool(self.data["scale"] != "smoke")

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def stage(self) -> str:
        return str(self.data["stage"])

    @property
    def ok(self) -> bool:
        return bool(self.data["status"] == "ok")

    @property
    def key(self) -> str:
        """The `stage_key` of this run."""
        return str(self.data["key"])

    @property
    def machine(self) -> Machine:
        return Machine.from_dict(self.data["machine"])

    @property
    def computer(self) -> Machine:
        """The machine that ran the command: where that of the times is a device, another."""
        return Machine.from_dict(self.data.get("computer", self.data["machine"]))

    @property
    def clean(self) -> bool:
        """Whether committed code ran, from start to end. Older records know the end alone."""
        end = self.data.get("git_at_end", {"clean": True, "same_code": True})
        return bool(self.data["git"]["clean"] and end["clean"] and end["same_code"])

    @property
    def busy(self) -> bool | None:
        """Whether the machine was busy with other work (`system_load.busy`); None: not recorded."""
        return system_load.busy(self.data.get("load"))

    def definition(self, quantity: str) -> int | None:
        """The version of a quantity's definition in this run; None: not recorded."""
        version = self.data.get("definitions", {}).get(quantity)
        return None if version is None else int(version)

    def component(self, dotted: str) -> str:
        """The component name of a configuration node; empty where there is none."""
        return component_name(str(self.config(f"{dotted}._target_") or ""))

    @property
    def values(self) -> Mapping[str, Any]:
        values: Mapping[str, Any] = self.data["values"]
        return values

    def config(self, dotted: str) -> Any:
        """A value of the effective configuration, None if the run had no such key."""
        node: Any = self.data["config"]
        for key in dotted.split("."):
            if not isinstance(node, Mapping) or key not in node:
                return None
            node = node[key]
        return node

    @property
    def overrides(self) -> dict[str, str]:
        """Values of the keys and groups that its command line, or that of its training, set."""
        chosen = dict(self.training.overrides) if self.training else {}
        for argument in self.data.get("argv", ())[1:]:
            key, equals, text = argument.lstrip("+~").partition("=")
            if equals and not key.startswith("-"):
                value = self.config(key)
                chosen[key] = text if value is None or isinstance(value, Mapping) else str(value)
        return chosen

    def samples(self) -> list[dict[str, Any]]:
        """The raw samples, checked against the hash in the record."""
        path = self.folder / "samples.jsonl"
        if self.data["samples"] is None:
            return []
        if provenance.file_hash(path) != self.data["samples"]["sha256"]:
            raise AtomError(
                f"{path} is not what its record describes (sha256 differs); "
                "restore it or delete the run"
            )
        with path.open(encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]


@dataclass
class Run:
    """A run in progress: add to its `values` and `samples` before it ends."""

    key: str
    weights: str
    values: dict[str, Any] = field(default_factory=dict)
    samples: list[Mapping[str, Any]] = field(default_factory=list)
    status: str = "ok"
    detail: str = ""
    folder: Path | None = None  # of the record, once it is written


def stage_key(stage: str, entry: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Hash that identifies a run: stage, configuration, inputs, code, and versions of the numeric
    packages that the code imports."""
    source = provenance.source(entry, config)
    parts = {
        "stage": stage,
        "config": provenance.config_hash(config),
        "inputs": dict(inputs),
        "source": source.sha256,
        "versions": source.packages,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def recording(
    results: Path,
    machine: Machine,
    *,
    stage: str,
    key: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    weights: str,
    protocol: str = "",
    device: str = "cpu",
    computer: Machine | None = None,
) -> Iterator[Run]:
    """Record the run inside this context, whether it succeeds or fails.

    Args:
        weights: `random`, `trained:<sha>`, `released:<sha>`, `mixed:<sha>` (released ones and
            randomly initialised ones) or `none`; a run that trains weights sets `run.weights`
            before it ends.
        device: the `ComputeDevice.name`.
        computer: that runs the command, where it is not the machine; its load is no load of that.
    """
    run = Run(key, weights)
    elsewhere = computer is not None and computer.fingerprint != machine.fingerprint
    git, load_at_start = provenance.git_state(), system_load.METER.read()
    started = datetime.now(UTC)
    try:
        yield run
    except BaseException as error:
        run.status, run.detail = status_of(error), f"{type(error).__name__}: {error}"
        raise
    finally:
        # The shares at the end are those over the whole run.
        load_at_end = system_load.METER.read()
        run_load = {"start": load_at_start.to_dict(), "end": load_at_end.to_dict()}
        git_at_end = provenance.git_state_at_end(git)
        if system_load.busy(run_load) and not elsewhere:
            sys.stderr.write(
                f"note: during {stage} other processes took {load_at_end.others_share or 0:.0%} of "
                f"the processor and the hypervisor {load_at_end.steal_share or 0:.0%}; its times "
                "are marked busy\n"
            )
        document = {
            "schema": SCHEMA,
            "stage": stage,
            "scale": config["scale"]["name"],
            "protocol": protocol,
            "status": run.status,
            "detail": run.detail,
            "started_utc": started.isoformat(timespec="seconds"),
            "ended_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "git": git,
            "git_at_end": git_at_end,
            "config": {k: v for k, v in config.items() if k != "paths"},
            "config_sha256": provenance.config_hash(config),
            "key": key,
            "inputs": dict(inputs),
            "versions": provenance.versions(),
            "definitions": DEFINITIONS,
            "machine": machine.to_dict(),
            **({"computer": computer.to_dict()} if computer and elsewhere else {}),
            "load": None if elsewhere else run_load,
            "device": device,
            "weights": run.weights,
            "seed": config.get("seed"),
            "values": run.values,
        }
        _write(results / "records" / machine.fingerprint / stage, document, run, started)


def status_of(error: BaseException | None) -> str:
    """The status of a run that ended with `error`; `ok` for None."""
    if error is None:
        return "ok"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if out_of_memory(error):
        return "oom"
    if isinstance(error, AtomError) and error.outcome != AtomError.outcome:
        return error.outcome
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "disk_full"
    return "failed"


def out_of_memory(error: BaseException) -> bool:
    """Whether the error means out of memory; torch's allocators report it in the message only."""
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    ):
        return True
    messages = ("can't allocate memory", "out of memory", "bad_alloc", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in messages)


def _write(parent: Path, document: dict[str, Any], run: Run, started: datetime) -> None:
    name = f"{started:%Y%m%dT%H%M%SZ}-{run.key[:8]}"
    temporary = parent / f"{_BUILDING}{name}-{os.getpid()}"
    temporary.mkdir(parents=True)
    document["samples"] = None
    if run.samples:
        path = temporary / "samples.jsonl"
        with path.open("x", encoding="utf-8") as stream:
            for sample in run.samples:
                stream.write(json.dumps(sample, ensure_ascii=False) + "\n")
        document["samples"] = {"sha256": provenance.file_hash(path), "lines": len(run.samples)}
    with (temporary / "record.json").open("x", encoding="utf-8") as stream:
        json.dump(document, stream, indent=1, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
    target, copy = parent / name, 1
    while target.exists():  # two runs of one key within a second
        copy += 1
        target = parent / f"{name}-{copy}"
    temporary.rename(target)
    run.folder = target
    for stale in parent.glob(f"{_BUILDING}*"):
        if not psutil.pid_exists(int(stale.name.rsplit("-", 1)[1])):
            shutil.rmtree(stale)  # of a run that was killed while writing


def read_record(folder: Path) -> Record:
    """Read the record of one run, as this version writes it."""
    data = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return Record(folder, data)


def load_records(folders: Iterable[Path]) -> list[Record]:
    """Load all records of some machines' folders, oldest first, with migrations applied, and each
    with the record of its training.

    Raises:
        AtomError: a record that is not JSON or not schema 1; names its file.
    """
    loaded = [record for folder in folders for record in _load_records(folder)]
    records = sorted(loaded, key=lambda r: (r.data["started_utc"], r.run_id))
    trainings = {r.data["weights"]: r for r in records if r.stage == "finetune" and r.ok}
    return [
        r if r.stage == "finetune" else replace(r, training=trainings.get(r.data.get("weights")))
        for r in records
    ]


def _load_records(folder: Path) -> list[Record]:
    records = []
    migration = _migration(folder / MIGRATION)
    for path in sorted(folder.glob("*/*/record.json")):
        if path.parent.name.startswith(_BUILDING):
            continue
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise AtomError(
                f"{path} is not JSON ({error}); restore it or delete the run"
            ) from error
        if data.get("schema") != SCHEMA:
            raise AtomError(f"{path} has schema {data.get('schema')}, this version reads {SCHEMA}")
        if path.parent.name in migration["definitions"]:
            data["definitions"] = migration["definitions"][path.parent.name]
        data["key"] = migration["keys"].get(data["key"], data["key"])
        records.append(Record(path.parent, data))
    return records


def _migration(path: Path) -> dict[str, Any]:
    """`keys`: current key by recorded key; `definitions`: versions by run id."""
    if not path.is_file():
        return {"keys": {}, "definitions": {}}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def find_record(
    results: Path, machine: Machine, stage: str, key: str, *, statuses: Collection[str] = ("ok",)
) -> Record | None:
    """The newest record with this key, None if there is none; in a clean git tree only of a run
    of committed code, as only those enter committed tables.

    Args:
        statuses: accepted statuses; with `oom` where out of memory is a valid result.
    """
    records = load_records([results / "records" / machine.fingerprint])
    return _newest(
        r for r in records if r.stage == stage and r.data["status"] in statuses and r.key == key
    )


def _newest(records: Iterable[Record]) -> Record | None:
    """The last record; in a clean git tree, the last of committed code."""
    candidates = list(records)
    if not all(r.clean for r in candidates) and provenance.git_state()["clean"]:
        candidates = [r for r in candidates if r.clean]
    return candidates[-1] if candidates else None


def counterpart(
    results: Path,
    machine: Machine,
    stage: str,
    *,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    **replaced: Any,
) -> Record | None:
    """The newest `ok` record of the same run with some configuration nodes replaced.

    For comparisons: `counterpart(…, quant={"_target_": "atom_repro.quant.none.build"})` is the
    fp32 run of the same weights, clips and settings.
    """
    config_sha256 = provenance.config_hash({**config, **replaced})
    records = load_records([results / "records" / machine.fingerprint])
    return _newest(
        r
        for r in records
        if r.stage == stage
        and r.ok
        and r.data["inputs"] == dict(inputs)
        and provenance.config_hash(r.data["config"]) == config_sha256
    )
