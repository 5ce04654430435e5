"""Write tables and figures from records; measures nothing (make tables).

On a reference machine, the records of all reference machines that are of committed code go to
`results/tables` and `results/figures`. Anywhere else, and for records of uncommitted code, a
machine's own go to `results/local/<machine>`: no other machine touches a committed file.

    python -m eval.report
"""

from pathlib import Path
from typing import Any

from atom_repro.config import entry


@entry("report")
def main(cfg: Any) -> None:
    from atom_repro.device.machine import this_machine
    from atom_repro.report.paper import load_cells
    from atom_repro.report.write import destinations, write

    paper = list(load_cells(Path(cfg.paper)))
    for folder, records in destinations(Path(cfg.paths.results), this_machine()):
        write(folder, records, paper)
        print(f"report: {len(records)} records, tables in {folder / 'tables'}")


if __name__ == "__main__":
    main()
