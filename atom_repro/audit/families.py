"""Findings by family: the checks that one claim makes over rows and columns count once.

A family is judged by the gravest of its checks and shown by the one that is furthest off. Its
weight is what the claim carries times how far off that check is; only what rests on the paper and
on named sources has one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from atom_repro.audit.check import DISAGREE, FAILED, VERDICTS, Finding, Verdict
from atom_repro.audit.claims import CARRIES, TOPICS

WEIGHTIEST: Final = 10


@dataclass(frozen=True)
class Family:
    """All checks of one claim."""

    id: str
    checks: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        return min((f.verdict for f in self.checks), key=VERDICTS.index)

    @property
    def shown(self) -> Finding:
        """The first check with the family's verdict, of failed ones that which is furthest off."""
        alike = [f for f in self.checks if f.verdict == self.verdict]
        return max(alike, key=lambda f: f.off) if self.failed else alike[0]

    @property
    def alike(self) -> int:
        """How many checks have the family's verdict."""
        return sum(f.verdict == self.verdict for f in self.checks)

    @property
    def topic(self) -> str:
        return self.checks[0].topic

    @property
    def failed(self) -> bool:
        return self.verdict in FAILED

    @property
    def weight(self) -> float:
        if self.verdict not in DISAGREE:
            return 0.0
        return CARRIES[self.checks[0].carries] * self.shown.off


def group(findings: Iterable[Finding]) -> list[Family]:
    """Families in the order of their first finding."""
    checks: dict[str, list[Finding]] = {}
    for finding in findings:
        checks.setdefault(finding.family, []).append(finding)
    return [Family(name, tuple(found)) for name, found in checks.items()]


def weightiest(families: Iterable[Family]) -> list[Family]:
    """The families that weigh most, heaviest first."""
    weighed = [family for family in families if family.weight > 0]
    return sorted(weighed, key=lambda family: -family.weight)[:WEIGHTIEST]


def by_topic(families: Sequence[Family]) -> list[tuple[str, list[Family]]]:
    """Families of each subject that has any, in the subjects' order."""
    groups = [(topic, [f for f in families if f.topic == topic]) for topic in TOPICS]
    return [(topic, of_topic) for topic, of_topic in groups if of_topic]
