"""All tests and the record of their run, on two tests of a file."""

import pytest
from command import command

from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records

pytestmark = pytest.mark.slow
PASSES, FAILS = "def test_a():\n    pass\n", "def test_b():\n    assert False\n"


@pytest.mark.parametrize(("text", "status"), [(PASSES, "ok"), (PASSES + FAILS, "failed")])
def test_a_run_is_recorded_whether_it_passes_or_not(tmp_path, text, status):
    (tmp_path / "test_small.py").write_text(text)
    done = command(
        "eval.test_all", f"tests=[{tmp_path}/test_small.py]", "workers=1",
        f"paths.results={tmp_path}/results",
    )  # fmt: skip
    assert done.returncode == (0 if status == "ok" else 1), done.stderr
    (record,) = load_records([tmp_path / "results/records" / this_machine().fingerprint])
    assert record.data["status"] == status
    failed = int(status == "failed")
    assert (record.values["passed"], record.values["failed"]) == (1, failed)
    assert [s["outcome"] for s in record.samples()] == ["passed"] + ["failed"] * failed
