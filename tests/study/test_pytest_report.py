"""A run of pytest, read back from its own report."""

import subprocess
import sys

from atom_repro.study.pytest_report import read_report

TESTS = """
import pytest

def test_good():
    pass

def test_bad():
    assert 1 == 2, "the reason"

@pytest.mark.skip(reason="not here")
def test_left_out():
    pass

@pytest.fixture
def broken():
    raise OSError("no disk")

def test_without_its_fixture(broken):
    pass
"""


def test_outcomes_and_reasons(tmp_path):
    (tmp_path / "test_a.py").write_text(TESTS)
    report = tmp_path / "report.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"],
        cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    found = {t.test: (t.outcome, t.detail) for t in read_report(report)}
    assert found == {
        "test_a::test_good": ("passed", ""),
        "test_a::test_bad": ("failed", "AssertionError: the reason"),
        "test_a::test_left_out": ("skipped", "not here"),
        "test_a::test_without_its_fixture": ("failed", 'failed on setup with "OSError: no disk"'),
    }
    assert all(t.seconds >= 0 for t in read_report(report))
