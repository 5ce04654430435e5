"""Select the records that tables show: by machine, definition, system load; notes on their use."""

from collections.abc import Iterable
from typing import Any

from atom_repro.records.record import QUANTITY_DEFINITIONS, Record
from atom_repro.report.identity import quietness, refusal, select

HOST_TINY = "host/tiny_mplug2plus"  # `device_and_model` of `make reproduce`


def is_reportable(record: Record, stage: str) -> bool:
    """Whether tables may show a record as one of `stage`; see `refusal`."""
    return record.stage == stage and refusal(record) is None


def newest_by_protocol(records: Iterable[Record], stage: str) -> dict[str, Record]:
    """The record of a stage that stands for each protocol."""
    return {identity.part: record for identity, record in select(records, stage).items()}


def by_machine(records: Iterable[Record]) -> list[list[Record]]:
    """Group records by machine, in order of first appearance."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.machine.fingerprint, []).append(record)
    return list(groups.values())


def of_newest_definition(records: Iterable[Record], stage: str) -> list[Record]:
    """Reportable records of a stage under the newest definition of load time among them."""
    reportable = [r for r in records if is_reportable(r, stage)]
    newest_version = max((r.definition("load") or 0 for r in reportable), default=0)
    return [r for r in reportable if (r.definition("load") or 0) == newest_version]


def keep_quietest(kept: dict[Any, Record], key: Any, record: Record) -> None:
    """Store a timing under `key` unless a quieter one is stored: of equally quiet ones the last."""
    if key not in kept or quietness(record) >= quietness(kept[key]):
        kept[key] = record


def system_load_label(record: Record) -> str:
    """System load during a timing: whether other processes used the CPU."""
    if record.busy is None:
        return "not recorded"
    return "busy" if record.busy else "quiet"


def validity_note(record: Record) -> str:
    """What a record's timings are valid for: at tiny scale only as a functional test, else for a
    model with the named weights."""
    if record.data["scale"] == "tiny":
        return "functional only"
    return f"{record.data['weights']} weights"


def busy_suffix(record: Record) -> str:
    """Suffix of a figure's title if its timings are busy."""
    return ", busy" if record.busy else ""


def module_load_definition(record: Record) -> str:
    """Definition of load time that a record used, as text."""
    version = record.definition("load")
    return (
        "" if version is None else f"{QUANTITY_DEFINITIONS['load'][version]} (definition {version})"
    )
