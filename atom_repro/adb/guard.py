"""Guard of a measurement on a device: it waits for a cool and charged device, and watches it.

A warm or empty device gives times of its cooling and its charger. So a run is held, not failed,
until the device is ready or a deadline has passed; and a device that slows itself down during a run
is no error either: the run is measured, and its record says so.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atom_repro.adb.connection import Connection
from atom_repro.adb.faults import NotReady
from atom_repro.adb.probe import THERMAL_STATUS, DeviceState, device_state


@dataclass(frozen=True)
class Guard:
    """When a device may start to work.

    Attributes:
        celsius: most of its battery, where it tells.
        battery_percent: least charge, where it tells.
        deadline_s: how long a run is held for them.
        every_s: between two looks while it waits, and while a job runs.
    """

    celsius: float
    battery_percent: int
    deadline_s: float
    every_s: float

    def unready(self, state: DeviceState) -> str:
        """Why a device in a state may not start; empty if it may."""
        reasons = []
        if state.thermal_status:
            reasons.append(f"its thermal status is {THERMAL_STATUS[state.thermal_status]}")
        if state.battery_celsius is not None and state.battery_celsius > self.celsius:
            reasons.append(
                f"its battery has {state.battery_celsius:.1f} °C, more than {self.celsius:g}"
            )
        if state.battery_percent is not None and state.battery_percent < self.battery_percent:
            reasons.append(
                f"its battery is at {state.battery_percent} %, below {self.battery_percent}"
            )
        return "; ".join(reasons)

    def wait(self, connection: Connection, say: Callable[[str], None] = lambda _: None) -> float:
        """Hold until the device is ready; returns for how many seconds.

        Args:
            say: told why it waits, once for each reason.

        Raises:
            NotReady: it was not within the deadline.
        """
        began, said = time.monotonic(), ""
        while reason := self.unready(device_state(connection)):
            waited = time.monotonic() - began
            if waited >= self.deadline_s:
                raise NotReady(
                    f"{connection.serial} was not ready within {self.deadline_s:.0f} s: {reason}; "
                    "let it cool and charge, or change host.guard"
                )
            if reason != said:
                say(f"{connection.serial}: {reason}; waiting")
                said = reason
            time.sleep(min(self.every_s, self.deadline_s - waited))
        return time.monotonic() - began


@dataclass
class Watch:
    """The states of a device while a job runs. Called at each look at the job, it asks the device
    every so many seconds, as each question costs the device a little work."""

    connection: Connection
    every_s: float
    states: list[tuple[float, DeviceState]] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def __call__(self) -> None:
        if not self.states or self._now() - self.states[-1][0] >= self.every_s:
            self.look()

    def look(self) -> None:
        """Ask the device now."""
        self.states.append((self._now(), device_state(self.connection)))

    def _now(self) -> float:
        return time.monotonic() - self._began

    def to_dict(self) -> dict[str, Any]:
        """What was seen, as values of a record: all zones at the first and the last look, and of
        the looks between them the hottest."""
        return {
            "throttled": any(state.throttles for _, state in self.states),
            "states": [_line(at_s, state) for at_s, state in self.states],
            "zones_celsius": [dict(state.zones_celsius) for _, state in _ends(self.states)],
            "governors": list(self.states[0][1].governors) if self.states else [],
        }


def _line(at_s: float, state: DeviceState) -> Mapping[str, Any]:
    zones = state.zones_celsius
    hottest = max(zones, key=lambda name: zones[name], default="")
    return {
        "at_s": round(at_s, 3),
        "thermal_status": state.thermal_status,
        "battery_celsius": state.battery_celsius,
        "battery_percent": state.battery_percent,
        "charging": state.charging,
        "hottest_zone": hottest,
        "hottest_celsius": zones.get(hottest),
        "available_bytes": state.available_bytes,
    }


def _ends(states: Sequence[tuple[float, DeviceState]]) -> Sequence[tuple[float, DeviceState]]:
    return [*states[:1], *states[1:][-1:]]
