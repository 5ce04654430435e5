"""Tables and figures from records: nothing is measured here (Tables 1-3).

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
    from atom_repro.report import oracle_tables, session_table, sweep_table, task_table
    from atom_repro.report.figures import learning_curve, timeline
    from atom_repro.report.files import to_csv, to_markdown
    from atom_repro.report.paper import load_cells
    from atom_repro.report.tables import build_all

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
        texts = {}
        built = build_all(shown, paper) | {"tasks": task_table.tasks(shown)}
        for name, rows in built.items():
            texts[f"tables/{name}.csv"] = to_csv(rows)
            texts[f"tables/{name}.md"] = to_markdown(name, rows, said)
        for name, rows in oracle_tables.build(shown, paper).items():
            texts[f"tables/{name}.csv"] = to_csv(rows)
            texts[f"tables/{name}.md"] = oracle_tables.to_markdown(name, rows, said)
        texts |= session_table.files(shown, said)
        texts |= sweep_table.files(shown, said)
        for name, figure in (
            ("timeline_fp32", timeline(shown, "fp32")),
            ("timeline_int8", timeline(shown, "int8")),
            ("learning_curve", learning_curve(shown)),
            ("oracle_gallery", oracle_tables.gallery_figure(shown, paper)),
        ):
            if figure is not None:
                texts[f"figures/{name}.svg"] = figure
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        print(f"report: {len(shown)} records, tables in {folder / 'tables'}")


if __name__ == "__main__":
    main()
