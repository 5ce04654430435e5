"""Outcome of each test of a pytest run, from its JUnit XML report."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree


@dataclass(frozen=True)
class TestOutcome:
    """One test. `outcome` is passed, failed (an error in a fixture too) or skipped; `detail` is the
    first line of the reason. `seconds` include fixtures."""

    test: str
    outcome: str
    seconds: float
    detail: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_report(path: Path) -> list[TestOutcome]:
    """Read the tests of a JUnit XML report, in its order."""
    return [_outcome(case) for case in ElementTree.parse(path).iter("testcase")]


def _outcome(case: ElementTree.Element) -> TestOutcome:
    name = f"{case.get('classname')}::{case.get('name')}"
    for tag, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        element = case.find(tag)
        if element is not None:
            lines = (element.get("message") or element.text or "").strip().splitlines()
            return TestOutcome(name, outcome, float(case.get("time", 0)), lines[0] if lines else "")
    return TestOutcome(name, "passed", float(case.get("time", 0)), "")
