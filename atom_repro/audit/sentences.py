"""The two sentences of a finding: what the paper says and where, and what its numbers give."""

from collections.abc import Iterable, Mapping

from atom_repro.audit.claims import Claim
from atom_repro.report.paper import Cell


def of(claim: Claim, problem: str, texts: Mapping[str, str]) -> tuple[str, str]:
    """Fill the claim's own sentences, or those that follow from its place, relation and numbers.

    `texts` has the numbers with their units; `problem` says why nothing could be compared.
    """
    checked = f"{place_name(claim.where)}: {claim.what}"
    if problem:
        return f"{checked}.", f"Nothing can be concluded: {problem}."
    if claim.says:
        return claim.says.format_map(texts), claim.gives.format_map(texts)
    relation = {"equals": "", "about": "about "}.get(claim.relation, f"{claim.relation} ")
    return (
        f"{checked}, {relation}{texts['printed']}.",
        f"The numbers behind it give {texts['computed']}.",
    )


def of_missing(claim: Claim, missing: Iterable[Cell]) -> tuple[str, str]:
    """What is checked, and which number the paper does not print."""
    reasons = " and ".join(cell.note.split(";", 1)[1].strip() for cell in missing)
    return (
        f"{place_name(claim.where)}: {claim.what}.",
        f"The paper does not print {reasons}.",
    )


def place_name(where: str) -> str:
    """Name a place at the start of a sentence: "Section 5.3, Table 3" or "Abstract"."""
    if where.startswith("abstract"):
        return where.capitalize()
    return f"{'Section' if where[0].isdigit() else 'Appendix'} {where}"
