"""Recompute every number and claim of the paper from its own cells (make audit).

Reads `results/paper`, which belongs to the repository; writes `audit.csv`, `audit.md` and
`audit.html` under the results' `audit`. The same data give the same bytes.

    python -m eval.audit
"""

from pathlib import Path
from typing import Any

from atom_repro.config import entry

PAPER = Path(__file__).resolve().parents[1] / "results/paper"


@entry("audit")
def main(cfg: Any) -> None:
    from atom_repro.audit.check import audit, count_by_verdict
    from atom_repro.audit.claims import load_claims
    from atom_repro.audit.families import group
    from atom_repro.audit.page import pages
    from atom_repro.audit.unsaid import load_unsaid
    from atom_repro.records.atomic import atomic_write
    from atom_repro.report.paper import load_cells

    cells = load_cells(PAPER)
    findings = audit(cells, load_claims(PAPER / "claims.toml"))
    unsaid = load_unsaid(PAPER / "unsaid.toml")
    folder = Path(cfg.paths.results) / "audit"
    for name, text in pages(findings, unsaid).items():
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    families = group(findings)
    print(f"audit: {len(families)} checks, {len(findings)} rows, {len(cells)} cells: {folder}")
    for verdict, number in count_by_verdict(family.verdict for family in families).items():
        print(f"  {number:4d} {verdict}")


if __name__ == "__main__":
    main()
