"""How busy a machine was, from counters that are known."""

import subprocess
import sys
from collections import namedtuple

import pytest

from atom_repro.records import load
from atom_repro.records.load import LoadMeter, disturbed

Times = namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")


def at(monkeypatch, *, user, idle, steal=0.0, own):
    """Let the kernel count so many seconds on each of two cores, `own` of them this process's."""
    times = [Times(user, 0.0, 0.0, idle, 0.0, 0.0, 0.0, steal, 0.0, 0.0)] * 2
    monkeypatch.setattr(load.psutil, "cpu_times", lambda percpu: times)
    monkeypatch.setattr(load.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(load, "_own_s", lambda: own)


def test_what_others_and_the_hypervisor_took(monkeypatch):
    at(monkeypatch, user=100, idle=500, own=50)
    meter = LoadMeter()
    at(monkeypatch, user=106, idle=503, steal=1, own=59)  # 20 s in all, 12 worked, 9 by us
    seen = meter.look()
    assert seen.seconds == 10
    assert seen.others_share == pytest.approx(3 / 20)
    assert seen.steal_share == pytest.approx(2 / 20)
    at(monkeypatch, user=106.05, idle=503.01, steal=1, own=59.1)
    assert meter.look().others_share is None  # too short to count


@pytest.mark.parametrize(
    ("others", "steal", "busy"),
    [(0.04, 0.009, False), (0.06, 0.0, True), (0.0, 0.02, True), (0.05, None, False),
     (None, None, None)],
)  # fmt: skip
def test_when_a_timing_counts_as_disturbed(others, steal, busy):
    assert disturbed({"end": {"others_share": others, "steal_share": steal}}) is busy
    assert disturbed(None) is None


def test_work_of_children_is_our_own(monkeypatch):
    meter = LoadMeter()
    before = load._own_s()
    subprocess.run([sys.executable, "-c", "sum(i * i for i in range(3_000_000))"], check=True)
    assert load._own_s() - before > 0.04
    seen = meter.look()
    assert seen.others_share is None or seen.others_share < 1
    assert seen.load_average >= 0
