"""Select the records that tables show, and name their models, data sets and devices."""

from collections.abc import Iterable
from typing import Any

from atom_repro.records.record import QUANTITY_DEFINITIONS, Record

FAMILIES = {"mplug2plus": "mPLUG2+", "mplug2": "mPLUG2", "smolvlm2": "SmolVLM2"}
TOY = "toy"
HOST_TINY = "host/tiny_mplug2plus"  # `device_and_model` of `make reproduce`
PROTOCOLS = {
    "msrvtt/caption-full": "MSR-VTT",
    "msvd/caption": "MSVD",
    "msrvtt/ret-1ka": "MSR-VTT",
    "msvd/ret-multi": "MSVD",
    "didemo/ret-paragraph": "DiDeMo",
}


def family(record: Record) -> str:
    """Model family of a record, as the paper spells it, with the stages between its modules."""
    module = record.component("model").removeprefix("models.")
    return FAMILIES.get(module, str(record.config("model.name"))) + _visual_stages_suffix(record)


def _visual_stages_suffix(record: Record) -> str:
    names = record.values.get("visual_stages", [])
    return f" with {', '.join(names)}" if names else ""


def dataset_name(record: Record) -> str:
    """Data set of a record, as the paper's columns name it.

    A protocol that may be the paper's has the paper's name; a reduced gallery or another protocol
    keeps its own name, so that it is never shown in the paper's column.
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
    """Newest reportable record of a stage by precision, for one model and data set.

    Newest by start, of whichever machine: a later record replaces an earlier one whole, so a table
    never mixes two runs within a row.
    """
    by_precision: dict[str, Record] = {}
    for record in records:
        if is_reportable(record, stage) and (family(record), dataset_name(record)) == (model, data):
            by_precision[precision_label(record)] = record
    return by_precision


def dataset_model_pairs(records: Iterable[Record], stage: str) -> list[tuple[str, str]]:
    """(data set, model) pairs of a stage's records: toy data first, mPLUG2+ first."""
    pairs = {(dataset_name(r), family(r)) for r in records if is_reportable(r, stage)}
    return sorted(pairs, key=lambda s: (s[0] != TOY, s[0], s[1] != "mPLUG2+", s[1]))


def precision_label(record: Record) -> str:
    """Precision of a record in row names: the recipe of its quantiser, where the record has it."""
    return str(record.values.get("recipe") or record.values["precision"])


def is_reportable(record: Record, stage: str) -> bool:
    """Whether a record is a successful run of `stage` that tables may show: no smoke run, and no
    captions read from a file, whose model is unknown."""
    measured = record.in_tables and not record.config("from_predictions")
    return record.stage == stage and record.ok and measured


def newest_by_protocol(records: Iterable[Record], stage: str) -> dict[str, Record]:
    """Newest successful record of a stage by protocol, without smoke runs."""
    by_protocol = {}
    for record in records:
        if record.stage == stage and record.ok and record.in_tables:
            by_protocol[str(record.data["protocol"])] = record
    return by_protocol


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


def quietness(record: Record) -> int:
    """Rank of a timing by system load: quiet above unknown, above busy."""
    return {False: 2, None: 1, True: 0}[record.busy]


def keep_quietest(kept: dict[Any, Record], key: Any, record: Record) -> None:
    """Store a timing under `key` unless a quieter one is stored: of equally quiet ones the last."""
    if key not in kept or quietness(record) >= quietness(kept[key]):
        kept[key] = record


def system_load_label(record: Record) -> str:
    """System load during a timing: whether other processes used the CPU."""
    if record.busy is None:
        return "not recorded"
    return "busy" if record.busy else "quiet"


def device_and_model(record: Record) -> str:
    """Device and model of a record, the prefix of row names in performance tables."""
    device = record.data["device"]
    model = f"{record.config('model.name')}{_visual_stages_suffix(record)}"
    return f"{'host' if device == 'cpu' else device}/{model}"


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
