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
    from atom_repro.audit.page import to_csv, to_html, to_markdown
    from atom_repro.report.paper import load_cells

    cells = load_cells(PAPER)
    findings = audit(cells, load_claims(PAPER / "claims.toml"))
    folder = Path(cfg.paths.results) / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"csv": to_csv(findings), "md": to_markdown(findings), "html": to_html(findings)}
    for suffix, text in pages.items():
        partial = folder / f".audit.{suffix}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / f"audit.{suffix}")
    print(f"audit: {len(findings)} checks of {len(cells)} cells, pages in {folder}")
    for verdict, number in count_by_verdict(findings).items():
        print(f"  {number:4d} {verdict}")


if __name__ == "__main__":
    main()
