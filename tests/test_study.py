"""A study that is killed wherever it stands is whole in the end; what orphans of it cost."""

import subprocess
import sys

import psutil
import pytest
from command import forked
from smoke_study import finish, is_whole, records, stop_at

from atom_repro.records.system_load import _own_cpu_seconds
from atom_repro.study.processes import child_subreaper


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_that_was_killed_at_five_stages_is_whole(tmp_path):
    for line in (
        "videos:",  # while it makes the data set
        "loss ",  # in the middle of training
        "eval.caption quant=none",
        "eval.retrieval quant=int8",
        "device_bench.latency quant=none",
    ):
        stop_at(tmp_path, line, exported=True)
    assert "tables in" in finish(tmp_path, exported=True)
    assert is_whole(records(tmp_path), exported=True)


def orphan_s():
    """Processor time of a process whose parent ended before it."""
    work = "sum(i * i for i in range(10_000_000))"
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])"
    before = _own_cpu_seconds()
    with child_subreaper():
        subprocess.run([sys.executable, "-c", start], check=True)
        for orphan in psutil.Process().children():
            orphan.wait()
    return _own_cpu_seconds() - before


def test_work_of_adopted_orphans_is_our_own():
    assert forked(orphan_s) > 0.2
