"""Tables and figures from records: nothing is measured here.

On a reference machine, records of committed code go to `results/tables` and `results/figures`.
Anywhere else, and for records of uncommitted code, they go to `results/local/<machine>`.

    python -m eval.report
"""

from pathlib import Path
from typing import Any

from atom_repro.config import entry


@entry("report")
def main(cfg: Any) -> None:
    from atom_repro.device.machine import this_machine
    from atom_repro.records.record import load_records
    from atom_repro.report import catalogue
    from atom_repro.report.paper import load_cells

    results, machine = Path(cfg.paths.results), this_machine()
    records = load_records(results / "records" / machine.fingerprint)
    paper = list(load_cells(Path(cfg.paper)))
    listed = results / "reference_machines.txt"
    reference = listed.is_file() and machine.fingerprint in listed.read_text().split()
    clean = [r for r in records if r.data["git"]["clean"]]
    destinations = [(results, clean)] if reference else []
    if not reference or len(clean) < len(records):
        destinations.append((results / "local" / machine.fingerprint, records))

    said = f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB, {machine.os_release}"
    for folder, shown in destinations:
        texts = catalogue.texts(shown, paper, said)
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        print(f"report: {len(shown)} records, tables in {folder / 'tables'}")


if __name__ == "__main__":
    main()
