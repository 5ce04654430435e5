"""Records: one folder a run, written once, never changed (schema 1).

`results/records/<machine>/<stage>/<run id>/record.json`, with `samples.jsonl` beside it where a
run has samples. A failed or interrupted run leaves a record too, with its status. A run builds
its folder under a name that readers skip and renames it when complete, so a kill leaves either a
whole record or none.

What older records lack, and the keys that they would have today, stand in `migration.json` in the
machine's folder, as records themselves are never changed.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atom_repro.datatypes import AtomError, Machine
from atom_repro.records import load, provenance
from atom_repro.records.component import component

SCHEMA = 1
# What was measured under each version of a quantity whose meaning has changed. Two versions of one
# quantity never share a table.
MEANINGS: Mapping[str, Mapping[int, str]] = {
    "load": {
        1: "a load ends with a first forward",
        2: "a load ends when the module can be called",
    }
}
DEFINITIONS = {quantity: max(versions) for quantity, versions in MEANINGS.items()}
MIGRATION = "migration.json"
_BUILDING = ".building-"


@dataclass(frozen=True)
class Record:
    """A finished run, as read back. `data` is the whole of `record.json`."""

    folder: Path
    data: Mapping[str, Any]

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
        """What `stage_key` gives for this run."""
        return str(self.data["key"])

    @property
    def machine(self) -> Machine:
        return Machine.from_dict(self.data["machine"])

    @property
    def clean(self) -> bool:
        """Whether committed code ran, from start to end. Older records know the end alone."""
        end = self.data.get("git_at_end", {"clean": True, "same_code": True})
        return bool(self.data["git"]["clean"] and end["clean"] and end["same_code"])

    @property
    def busy(self) -> bool | None:
        """Whether other work took part of the processor (`load.busy`); None: not recorded."""
        return load.busy(self.data.get("load"))

    def definition(self, quantity: str) -> int | None:
        """The version of a quantity's meaning when the run was made; None: not recorded."""
        version = self.data.get("definitions", {}).get(quantity)
        return None if version is None else int(version)

    def component(self, dotted: str) -> str:
        """The name of what a node of the configuration builds; empty where there is none."""
        return component(str(self.config(f"{dotted}._target_") or ""))

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

    def samples(self) -> list[dict[str, Any]]:
        """The raw samples, checked against the hash in the record."""
        path = self.folder / "samples.jsonl"
        if self.data["samples"] is None:
            return []
        if provenance.file_hash(path) != self.data["samples"]["sha256"]:
            raise AtomError(
                f"{path} is not what its record describes; restore it or delete the run"
            )
        with path.open(encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]


@dataclass
class Run:
    """A run that is being recorded: add to `values` and `samples` while it lasts."""

    key: str
    weights: str
    values: dict[str, Any] = field(default_factory=dict)
    samples: list[Mapping[str, Any]] = field(default_factory=list)
    status: str = "ok"
    detail: str = ""


def stage_key(stage: str, entry: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """What must be the same for a run to be the same run: stage, configuration, inputs, code, and
    the versions of the packages that the code computes with."""
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
) -> Iterator[Run]:
    """Record what happens inside, whether it ends well or not.

    Args:
        weights: `random`, `trained:<sha>`, `released:<sha>`, `mixed:<sha>` (released ones beside
            new ones that nothing has trained) or `none`; a run that makes weights sets
            `run.weights` before it ends.
        device: what computed, as `ComputeDevice.name` has it.
    """
    run = Run(key, weights)
    git, load_at_start = provenance.git_state(), load.METER.read()
    started = datetime.now(UTC)
    try:
        yield run
    except BaseException as error:
        run.status, run.detail = status_of(error), f"{type(error).__name__}: {error}"
        raise
    finally:
        # The share of other processes at the end is that over the whole run.
        load_at_end = load.METER.read()
        load_of_run = {"start": load_at_start.to_dict(), "end": load_at_end.to_dict()}
        git_at_end = provenance.git_state_at_end(git)
        if load.busy(load_of_run):
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
            "load": load_of_run,
            "device": device,
            "weights": run.weights,
            "seed": config.get("seed"),
            "values": run.values,
        }
        _write(results / "records" / machine.fingerprint / stage, document, run, started)


def status_of(error: BaseException | None) -> str:
    """The status of a run that ended so; `ok` without an error."""
    if error is None:
        return "ok"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if out_of_memory(error):
        return "oom"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "disk_full"
    return "failed"


def out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left; torch's allocators say so in the text alone."""
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    ):
        return True
    said = ("can't allocate memory", "out of memory", "bad_alloc", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in said)


def _write(parent: Path, document: dict[str, Any], run: Run, started: datetime) -> None:
    name = f"{started:%Y%m%dT%H%M%SZ}-{run.key[:8]}"
    building = parent / f"{_BUILDING}{name}-{os.getpid()}"
    building.mkdir(parents=True)
    document["samples"] = None
    if run.samples:
        path = building / "samples.jsonl"
        with path.open("x", encoding="utf-8") as stream:
            for sample in run.samples:
                stream.write(json.dumps(sample, ensure_ascii=False) + "\n")
        document["samples"] = {"sha256": provenance.file_hash(path), "lines": len(run.samples)}
    with (building / "record.json").open("x", encoding="utf-8") as stream:
        json.dump(document, stream, indent=1, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
    target, copy = parent / name, 1
    while target.exists():  # two runs of one key within a second
        copy += 1
        target = parent / f"{name}-{copy}"
    building.rename(target)
    for left in parent.glob(f"{_BUILDING}*"):
        if not Path(f"/proc/{left.name.rsplit('-', 1)[1]}").exists():
            shutil.rmtree(left)  # of a run that was killed while writing


def load_records(folders: Iterable[Path]) -> list[Record]:
    """All records below some machines' folders, oldest first, older ones completed by migration.

    Raises:
        AtomError: a record that is not schema 1, naming its file.
    """
    found = [record for folder in folders for record in _load_records(folder)]
    return sorted(found, key=lambda r: (r.data["started_utc"], r.run_id))


def _load_records(folder: Path) -> list[Record]:
    found = []
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
        found.append(Record(path.parent, data))
    return found


def _migration(path: Path) -> dict[str, Any]:
    """`keys`: today's key by the key in the record; `definitions`: versions by run."""
    if not path.is_file():
        return {"keys": {}, "definitions": {}}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def find(
    results: Path, machine: Machine, stage: str, key: str, *, statuses: Collection[str] = ("ok",)
) -> Record | None:
    """The newest record of exactly this run, if there is one; in a clean tree, of a run of
    committed code, as only such a record fills a committed table.

    Args:
        statuses: of the records that count; where running out of memory is an answer, `oom` too.
    """
    records = load_records([results / "records" / machine.fingerprint])
    return _newest(
        r for r in records if r.stage == stage and r.data["status"] in statuses and r.key == key
    )


def _newest(records: Iterable[Record]) -> Record | None:
    """The last of the records; in a clean tree, of those of committed code."""
    listed = list(records)
    if not all(r.clean for r in listed) and provenance.git_state()["clean"]:
        listed = [r for r in listed if r.clean]
    return listed[-1] if listed else None


def counterpart(
    results: Path,
    machine: Machine,
    stage: str,
    *,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    **replaced: Any,
) -> Record | None:
    """The newest good record of the same run but for some nodes of its configuration.

    For comparisons: `counterpart(…, quant={"_target_": "atom_repro.quant.none.build"})` is the
    fp32 run of the same weights, clips and settings.
    """
    wanted = provenance.config_hash({**config, **replaced})
    records = load_records([results / "records" / machine.fingerprint])
    return _newest(
        r
        for r in records
        if r.stage == stage
        and r.ok
        and r.data["inputs"] == dict(inputs)
        and provenance.config_hash(r.data["config"]) == wanted
    )
