"""Energy that a device uses, from its own counters: power rails, or those of its battery.

Rails count what flows through them (Pixel 6 and later; ODPM). A battery tells current and voltage,
which are sampled and added up; while it is charged they say what the charger leaves, so then there
is no figure. What the device uses while it does nothing is measured before and subtracted. Where
nothing can be read, the reason stands in the figure's place.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from atom_repro.adb.connection import Connection

RAILS, BATTERY = "power rails", "battery current and voltage"
NOTHING = "the device lets adb read neither power rails nor the battery's current"
# CH3(T=123456)[S2M_VDD_CPUCL2], 4711: microwatt-seconds since the device was started.
_RAIL = re.compile(r"^CH\d+\(T=\d+\)\[([^\]]+)\], (\d+)$", re.M)
_SUPPLY = "/sys/class/power_supply/battery"
# In one command, as each costs the device a little work.
_READ = (
    f"for f in status current_now voltage_now; do cat {_SUPPLY}/$f 2> /dev/null || echo; done; "
    "cat /sys/bus/iio/devices/iio:device*/energy_value 2> /dev/null"
)
# A device that is awake takes more than 20 mA, so numbers below are of milliamperes, and less than
# 10 A in any unit.
_LEAST_MICROAMPERES, _MOST_AMPERES = 20_000, 10.0
_LEAST_VOLTS, _MOST_VOLTS = 2.5, 12.0


@dataclass(frozen=True)
class Reading:
    """Counters at one moment.

    Attributes:
        at_s: on this computer's clock.
        rails: microwatt-seconds by rail; empty where they cannot be read.
        status: of the battery, as the kernel has it (`Discharging`, …).
        current, voltage: of the battery, in the kernel's numbers; None where they cannot be read.
    """

    at_s: float
    rails: Mapping[str, int]
    status: str
    current: int | None
    voltage: int | None


def read_counters(connection: Connection) -> Reading:
    """Read all counters of a device once."""
    text = connection.shell(_READ).text
    rails = {m[1]: int(m[2]) for m in _RAIL.finditer(text)}
    status, current, voltage = (line.strip() for line in [*text.split("\n"), "", "", ""][:3])
    return Reading(time.monotonic(), rails, status, _whole(current), _whole(voltage))


@dataclass(frozen=True)
class Energy:
    """Energy between two moments.

    Attributes:
        joules: None where `reason` says why there is no figure.
        source: of the counters.
        by_rail: joules of each rail, where rails are the source.
    """

    seconds: float
    joules: float | None
    source: str = ""
    reason: str = ""
    by_rail: Mapping[str, float] | None = None

    @property
    def watts(self) -> float | None:
        return None if self.joules is None or self.seconds <= 0 else self.joules / self.seconds

    def above(self, idle: "Energy") -> dict[str, Any]:
        """The energy with what the device would have used anyway subtracted, as values of a
        record."""
        watts, reason = idle.watts, self.reason
        if self.joules is not None and (watts is None or idle.source != self.source):
            reason = f"no baseline of the device at rest ({idle.reason or 'from another source'})"
        known = self.joules is not None and watts is not None and not reason
        return {
            "source": self.source,
            "seconds": round(self.seconds, 3),
            "gross_joules": self.joules,
            "idle_watts": watts,
            "joules": self.joules - watts * self.seconds if known else None,  # type: ignore[operator]
            "reason": reason,
            "joules_by_rail": dict(self.by_rail or {}),
        }


def energy_between(readings: Sequence[Reading]) -> Energy:
    """Energy from the first reading to the last: of the rails if there are any, else of the
    battery."""
    if len(readings) < 2:
        return Energy(0.0, None, reason="fewer than two readings")
    seconds = readings[-1].at_s - readings[0].at_s
    if readings[0].rails:
        return _of_rails(readings, seconds)
    if readings[0].current is not None and readings[0].voltage is not None:
        return _of_battery(readings, seconds)
    return Energy(seconds, None, reason=NOTHING)


def _of_rails(readings: Sequence[Reading], seconds: float) -> Energy:
    first, last = readings[0].rails, readings[-1].rails
    if first.keys() != last.keys() or any(last[name] < first[name] for name in first):
        return Energy(seconds, None, RAILS, "the counters of the rails began anew meanwhile")
    by_rail = {name: (last[name] - first[name]) / 1e6 for name in first}
    if not any(by_rail.values()):
        return Energy(seconds, None, RAILS, "the counters of the rails did not move")
    return Energy(seconds, sum(by_rail.values()), RAILS, by_rail=by_rail)


def _of_battery(readings: Sequence[Reading], seconds: float) -> Energy:
    currents = [r.current for r in readings if r.current is not None]
    volts = [r.voltage / 1e6 for r in readings if r.voltage is not None]
    reason = ""
    if len(currents) < len(readings) or len(volts) < len(readings):
        reason = "the battery's counters could not be read all the time"
    elif any(r.status and r.status != "Discharging" for r in readings):
        reason = (
            f"the battery was {readings[0].status.lower()} on the cable, and its figures are what "
            "the charger leaves; see device_bench/FIRST_HOUR.md"
        )
    elif min(currents) < 0 < max(currents):  # phones differ in what is negative
        reason = "the battery's current changed its sign: it was charged for a while"
    elif not all(_LEAST_VOLTS < v < _MOST_VOLTS for v in volts):
        reason = f"the battery's voltage, {volts[0]:g} V, is none of a battery"
    per_ampere = 1e6 if max(map(abs, currents), default=0) >= _LEAST_MICROAMPERES else 1e3
    amperes = [abs(current) / per_ampere for current in currents]
    if not reason and not 0 < max(amperes) < _MOST_AMPERES:
        reason = f"the battery's current, {currents[0]}, is none in microamperes or milliamperes"
    if reason:
        return Energy(seconds, None, BATTERY, reason)
    watts = [a * v for a, v in zip(amperes, volts, strict=True)]
    times = [r.at_s for r in readings]
    joules = sum(
        (end - start) * (one + other) / 2
        for (start, end), (one, other) in zip(pairwise(times), pairwise(watts), strict=True)
    )
    return Energy(seconds, joules, BATTERY)


def _whole(text: str) -> int | None:
    return int(text) if text.lstrip("-").isdigit() else None
