"""Which records stand in a table, and how they are named there: pure functions of records."""

from collections.abc import Iterable
from typing import Any

from atom_repro.records.record import MEANINGS, Record

FAMILIES = {"mplug2plus": "mPLUG2+", "mplug2": "mPLUG2", "smolvlm2": "SmolVLM2"}
TOY = "toy"
HOST_TINY = "host/tiny_mplug2plus"  # `ran_on` of what `make reproduce` measures
PROTOCOLS = {
    "msrvtt/caption-full": "MSR-VTT",
    "msvd/caption": "MSVD",
    "msrvtt/ret-1ka": "MSR-VTT",
    "msvd/ret-multi": "MSVD",
    "didemo/ret-paragraph": "DiDeMo",
}


def family(record: Record) -> str:
    """The name in the paper's words of the model that a record is about."""
    module = record.component("model").removeprefix("models.")
    return FAMILIES.get(module, str(record.config("model.name")))


def data_of(record: Record) -> str:
    """The data that a record is about, as the paper's columns name it.

    A protocol that the paper may mean has the paper's name; a reduced gallery, or another
    protocol, keeps its own and never stands in the paper's column.
    """
    protocol = str(record.data.get("protocol") or TOY)
    label = str(record.values.get("label") or "")
    if protocol.startswith(TOY):
        return TOY
    return f"{protocol} ({label})" if label else PROTOCOLS.get(protocol, protocol)


def newest(
    records: Iterable[Record],
    stage: str,
    *,
    model: str = "mPLUG2+",
    data: str = TOY,
) -> dict[str, Record]:
    """The newest good record of a stage for each precision; smoke runs left out, and captions
    that came from a file, whose model is not known.

    Newest by start, of whichever machine: a later record replaces an earlier one whole, so a table
    never mixes two runs within a row.
    """
    found: dict[str, Record] = {}
    for record in records:
        if shown(record, stage) and (family(record), data_of(record)) == (model, data):
            found[str(record.values["precision"])] = record
    return found


def subjects(records: Iterable[Record], stage: str) -> list[tuple[str, str]]:
    """(data, model) of a stage's records: the toy data first, mPLUG2+ first."""
    met = {(data_of(r), family(r)) for r in records if shown(r, stage)}
    return sorted(met, key=lambda s: (s[0] != TOY, s[0], s[1] != "mPLUG2+", s[1]))


def shown(record: Record, stage: str) -> bool:
    """Whether a record of that stage may stand in a table."""
    known = record.data["scale"] != "smoke" and not record.config("from_predictions")
    return record.stage == stage and record.ok and known


def newest_by_protocol(records: Iterable[Record], stage: str) -> dict[str, Record]:
    """The newest good record of a stage for each protocol."""
    found = {}
    for record in records:
        if record.stage == stage and record.ok and record.data["scale"] != "smoke":
            found[str(record.data["protocol"])] = record
    return found


def by_machine(records: Iterable[Record]) -> list[list[Record]]:
    """Records of each machine, in the order in which the machines first appear."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.machine.fingerprint, []).append(record)
    return list(found.values())


def of_newest_definition(records: Iterable[Record], stage: str) -> list[Record]:
    """The records of a stage that may stand in a table of load times: those under the newest
    definition of a load that any of them was measured under."""
    mine = [r for r in records if shown(r, stage)]
    newest_version = max((r.definition("load") or 0 for r in mine), default=0)
    return [r for r in mine if (r.definition("load") or 0) == newest_version]


def quietness(record: Record) -> int:
    """Orders timings: quiet ones above those of unknown load, above busy ones."""
    return {False: 2, None: 1, True: 0}[record.busy]


def keep_quietest(found: dict[Any, Record], key: Any, record: Record) -> None:
    """Keep a timing under `key` unless a quieter one is there: of equally quiet ones the last."""
    if key not in found or quietness(record) >= quietness(found[key]):
        found[key] = record


def load_label(record: Record) -> str:
    """Of a timing: whether other work took part of the processor."""
    if record.busy is None:
        return "not recorded"
    return "busy" if record.busy else "quiet"


def ran_on(record: Record) -> str:
    """The device and the model of a record, which rows of speed and memory begin with."""
    device = record.data["device"]
    return f"{'host' if device == 'cpu' else device}/{record.config('model.name')}"


def functional(record: Record) -> str:
    """What a time of this record stands for: at tiny scale that measuring works, and else a model
    of these weights."""
    if record.data["scale"] == "tiny":
        return "functional only"
    return f"{record.data['weights']} weights"


def busy_suffix(record: Record) -> str:
    """Ends a figure's title where its times are busy."""
    return ", busy" if record.busy else ""


def load_definition(record: Record) -> str:
    """Which meaning of a load's seconds a record has, in words."""
    version = record.definition("load")
    return "" if version is None else f"{MEANINGS['load'][version]} (definition {version})"
