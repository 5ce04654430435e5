"""Write tables and figures: to committed folders on reference machines, else to local ones."""

from collections.abc import Sequence
from pathlib import Path

from atom_repro.datatypes import Machine
from atom_repro.records.atomic import atomic_write
from atom_repro.records.record import Record, load_records
from atom_repro.records.reference import reference_machines
from atom_repro.report import catalogue
from atom_repro.report.paper import Cell


def destinations(results: Path, machine: Machine) -> list[tuple[Path, list[Record]]]:
    """Folders to write tables to from this machine, and the records that fill each.

    Committed tables hold the clean records of all reference machines, and only those machines
    write them. A machine that is none, or has records of uncommitted code, has tables of its own.
    """
    own = records_made_on(results, machine)
    references = reference_machines(results)
    targets = []
    if machine.fingerprint in references:
        records = load_records([results / "records" / name for name in references])
        targets.append((results, committed(records)))
    if machine.fingerprint not in references or not all(
        r.clean and r.machine.fingerprint in references for r in own
    ):
        targets.append((results / "local" / machine.fingerprint, own))
    return targets


def records_made_on(results: Path, machine: Machine) -> list[Record]:
    """The records that commands on a machine made: its own, and those of devices over adb."""
    own = results / "records" / machine.fingerprint
    others = load_records(path for path in sorted(own.parent.glob("*")) if path != own)
    devices = {r.folder.parents[1] for r in others if r.computer.fingerprint == machine.fingerprint}
    made = load_records([own, *sorted(devices)])
    return [r for r in made if r.computer.fingerprint == machine.fingerprint]


def committed(records: Sequence[Record]) -> list[Record]:
    """The records of committed code, whose weights committed code has trained."""
    return [r for r in records if r.clean and (r.training is None or r.training.clean)]


def records_to_show(results: Path, machine: Machine) -> tuple[list[Record], str]:
    """Records for a reader on this machine, and whose they are: its own if it has any, else the
    committed ones."""
    own = records_made_on(results, machine)
    if own:
        return own, f"this machine, {machine}"
    references = reference_machines(results)
    records = load_records([results / "records" / name for name in references])
    return committed(records), "the reference machines"


def write(folder: Path, records: Sequence[Record], paper: Sequence[Cell]) -> None:
    """Write every table and figure that the records give below `folder`."""
    for name, text in catalogue.render_all(records, paper).items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
