"""How busy the machine was beside a run: what other processes and the hypervisor took of its cores.

A time that was measured beside other work is a time of both. Shares are of the processor time of
the cores that this process may use, counted by the kernel from one look to the next.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

PRESSURE = Path("/proc/pressure/cpu")
# Beyond these a timing counts as disturbed.
MOST_OTHERS, MOST_STEAL = 0.05, 0.01
# The kernel counts in hundredths of a second: a share of less time is noise.
_LEAST_S = 0.2


@dataclass(frozen=True)
class Load:
    """One look at the machine.

    `load_average` is that of the last minute, `cpu_pressure_percent` the share of the last 10 s in
    which a runnable process waited for a core. `others_share` and `steal_share` are of the
    `seconds` since the look before. None where the system does not say, or too little time passed.
    """

    load_average: float
    cpu_pressure_percent: float | None
    seconds: float
    others_share: float | None
    steal_share: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class LoadMeter:
    """Counts from the moment it is made, and from each look on."""

    def __init__(self) -> None:
        self._before = _Counters.now()

    def look(self) -> Load:
        before, now = self._before, _Counters.now()
        self._before = now
        seconds = (now.all_s - before.all_s) / max(1, now.cores)
        others = steal = None
        if seconds >= _LEAST_S:
            whole = now.all_s - before.all_s
            working = now.busy_s - before.busy_s
            own = min(working, now.own_s - before.own_s)
            others, steal = (working - own) / whole, (now.steal_s - before.steal_s) / whole
        return Load(
            load_average=os.getloadavg()[0],
            cpu_pressure_percent=_pressure(),
            seconds=round(seconds, 3),
            others_share=None if others is None else round(max(0.0, others), 4),
            steal_share=None if steal is None else round(max(0.0, steal), 4),
        )


def disturbed(load: Mapping[str, Any] | None) -> bool | None:
    """Whether a timing was taken beside other work, by the `load` of its record; None where the
    record does not say."""
    during = (load or {}).get("end") or {}
    others, steal = during.get("others_share"), during.get("steal_share")
    if others is None and steal is None:
        return None
    return (others or 0.0) > MOST_OTHERS or (steal or 0.0) > MOST_STEAL


@dataclass(frozen=True)
class _Counters:
    """Seconds since the system began, over the cores that this process may use."""

    cores: int
    all_s: float
    busy_s: float
    steal_s: float
    own_s: float

    @classmethod
    def now(cls) -> "_Counters":
        times = psutil.cpu_times(percpu=True)
        if hasattr(os, "sched_getaffinity"):
            times = [times[core] for core in os.sched_getaffinity(0) if core < len(times)]
        idle = sum(t.idle + getattr(t, "iowait", 0.0) for t in times)
        steal = sum(getattr(t, "steal", 0.0) for t in times)
        # Time of guests is in `user` already.
        whole = sum(sum(t) - getattr(t, "guest", 0) - getattr(t, "guest_nice", 0) for t in times)
        return cls(len(times), whole, whole - idle - steal, steal, _own_s())


def _own_s() -> float:
    """Processor time of this process and of those it started; with torchrun, of all ranks."""
    me = psutil.Process()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        me = me.parent() or me
    spent = 0.0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it ended while we looked
            times = process.cpu_times()
            spent += times.user + times.system
            spent += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return spent


def _pressure() -> float | None:
    """`avg10` of the line `some` of pressure stall information (Linux 4.20)."""
    try:
        text = PRESSURE.read_text(encoding="utf-8")
    except OSError:  # no such file, or a kernel that was started without it
        return None
    fields = dict(field.split("=") for field in text.splitlines()[0].split()[1:])
    return float(fields["avg10"])


# Counts from the import on, so that the first look of a run is at the time before it; a process
# that was forked counts its own time.
METER = LoadMeter()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=METER.look)
