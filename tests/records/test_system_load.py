"""How busy a machine was, from counters that are known."""

import subprocess
import sys

import pytest

from atom_repro.records import system_load
from atom_repro.records.system_load import LoadMeter, busy


@pytest.fixture
def at(monkeypatch, tmp_path):
    """Lets the kernel count so many seconds on each of this process's two cores, 1 and 8; core 2
    is not ours."""
    monkeypatch.setattr(system_load, "STAT", tmp_path / "stat")
    monkeypatch.setattr(system_load.os, "sched_getaffinity", lambda _: {1, 8}, raising=False)
    monkeypatch.setattr(system_load.os, "sysconf", lambda _: 100)

    def count(*, user, idle, own, steal=0.0):
        ours = f"{user * 100:.0f} 0 0 {idle * 100:.0f} 0 0 0 {steal * 100:.0f} 0 0"
        system_load.STAT.write_text(
            f"cpu 9 9 9\ncpu1 {ours}\ncpu2 7777 0 0 0 0 0 0 0 0 0\ncpu8 {ours}\n"
        )
        monkeypatch.setattr(system_load, "_own_cpu_seconds", lambda: own)

    return count


def test_what_others_and_the_hypervisor_took(at):
    at(user=100, idle=500, own=50)
    meter = LoadMeter()
    at(user=106, idle=503, steal=1, own=59)  # 20 s in all, 12 worked, 9 by us
    seen = meter.read()
    assert seen.seconds == 10
    assert seen.others_share == pytest.approx(3 / 20)
    assert seen.steal_share == pytest.approx(2 / 20)
    at(user=106.05, idle=503.01, steal=1, own=59.1)
    assert meter.read().others_share is None  # too short to count


@pytest.mark.parametrize(
    ("others", "steal", "is_busy"),
    [(0.04, 0.009, False), (0.06, 0.0, True), (0.0, 0.02, True), (0.05, None, False),
     (None, None, None)],
)  # fmt: skip
def test_when_a_timing_is_busy(others, steal, is_busy):
    assert busy({"end": {"others_share": others, "steal_share": steal}}) is is_busy
    assert busy(None) is None


def test_where_nothing_may_be_counted_nothing_is_said(monkeypatch, tmp_path):
    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr(system_load, "_cpu_times", forbidden)
    monkeypatch.setattr(system_load.os, "getloadavg", forbidden)
    monkeypatch.setattr(system_load, "PRESSURE", tmp_path / "none")
    assert LoadMeter().read() == system_load.SystemLoad(None, None, 0.0, None, None)


def test_work_of_children_is_our_own():
    before = system_load._own_cpu_seconds()
    subprocess.run([sys.executable, "-c", "sum(i * i for i in range(3_000_000))"], check=True)
    assert system_load._own_cpu_seconds() - before > 0.04
