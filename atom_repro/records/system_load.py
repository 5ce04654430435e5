"""CPU load of the machine during a run: shares of other processes and of the hypervisor.

A time that was measured while other processes ran, or while the hypervisor gave the cores to other
guests (steal), is unreliable. Shares are of the processor time of the cores that
this process may use, as the kernel counts it.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

STAT, PRESSURE = Path("/proc/stat"), Path("/proc/pressure/cpu")
# Above these a timing is marked busy.
MAX_OTHERS_SHARE, MAX_STEAL_SHARE = 0.05, 0.01
# The kernel counts in hundredths of a second: shares of shorter intervals are noise.
_MIN_INTERVAL_S = 0.2


@dataclass(frozen=True)
class SystemLoad:
    """Load at one moment, and shares since the previous reading.

    `load_average` is that of the last minute, `cpu_pressure_percent` the share of the last 10 s in
    which a runnable process waited for a core. `others_share` and `steal_share` are of the
    `seconds` since the previous reading. None where the system does not report it, or where too
    little time passed.
    """

    load_average: float | None
    cpu_pressure_percent: float | None
    seconds: float
    others_share: float | None
    steal_share: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class LoadMeter:
    """Measures the load since its construction, `start` or the previous `read`."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._before = _Counters.now()

    def read(self) -> SystemLoad:
        before, now = self._before, _Counters.now()
        self._before = now
        others = steal = None
        seconds = 0.0
        if before and now:
            seconds = (now.all_s - before.all_s) / max(1, now.cores)
        if before and now and seconds >= _MIN_INTERVAL_S:
            total = now.all_s - before.all_s
            working = now.busy_s - before.busy_s
            own = min(working, now.own_s - before.own_s)
            others, steal = (working - own) / total, (now.steal_s - before.steal_s) / total
        return SystemLoad(
            load_average=_load_average(),
            cpu_pressure_percent=_pressure(),
            seconds=round(seconds, 3),
            others_share=None if others is None else round(max(0.0, others), 4),
            steal_share=None if steal is None else round(max(0.0, steal), 4),
        )


def busy(load: Mapping[str, Any] | None) -> bool | None:
    """Whether the load was too high for a reliable timing, from the `load` of a record; None where
    it was not recorded."""
    end = (load or {}).get("end") or {}
    others, steal = end.get("others_share"), end.get("steal_share")
    if others is None and steal is None:
        return None
    return (others or 0.0) > MAX_OTHERS_SHARE or (steal or 0.0) > MAX_STEAL_SHARE


@dataclass(frozen=True)
class _Counters:
    """CPU seconds since boot, over the cores that this process may use."""

    cores: int
    all_s: float
    busy_s: float
    steal_s: float
    own_s: float

    @classmethod
    def now(cls) -> "_Counters | None":
        """The current counters; None where the system does not provide them."""
        try:
            times, own = _cpu_times(), _own_cpu_seconds()
        except (OSError, ValueError, KeyError, psutil.Error):
            return None
        # `user` includes guest time.
        fields = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
        total = sum(t.get(f, 0.0) for t in times for f in fields)
        idle = sum(t.get(f, 0.0) for t in times for f in ("idle", "iowait"))
        steal = sum(t.get("steal", 0.0) for t in times)
        return cls(len(times), total, total - idle - steal, steal, own)


def _cpu_times() -> list[dict[str, float]]:
    """CPU seconds by kind for each core that this process may use; on Linux by core number, as
    numbers may have gaps."""
    if not STAT.is_file():
        return [t._asdict() for t in psutil.cpu_times(percpu=True)]
    kinds = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    ticks = os.sysconf("SC_CLK_TCK")
    cores = {}
    for line in STAT.read_text(encoding="utf-8").splitlines():
        name, *counts = line.split()
        if name.startswith("cpu") and name != "cpu":
            cores[int(name[3:])] = {k: int(c) / ticks for k, c in zip(kinds, counts, strict=False)}
    return [cores[core] for core in os.sched_getaffinity(0)]


def _own_cpu_seconds() -> float:
    """CPU seconds of this process and its descendants; with torchrun, of all ranks."""
    root = psutil.Process()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        root = root.parent() or root
    spent = 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # the process has ended
            times = process.cpu_times()
            spent += times.user + times.system
            spent += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return spent


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _pressure() -> float | None:
    """CPU pressure: `avg10` of the `some` line of Linux pressure stall information (PSI)."""
    try:
        text = PRESSURE.read_text(encoding="utf-8")
        fields = dict(field.split("=") for field in text.splitlines()[0].split()[1:])
        return float(fields["avg10"])
    except (OSError, LookupError, ValueError):  # a kernel without PSI, or another format
        return None


# Started by every command, so that a record's first load is that before the run.
METER = LoadMeter()
