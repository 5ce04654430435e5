"""The host that runs sessions on a device over adb: a phone, or a stand-in for one.

A device is chosen by its serial or its model. Before each session it is held until it is cool and
charged, and during it watched; what was seen, the parts of its memory and its energy go with the
trace. A record is of the device's model and processor, and a stand-in says that it is one.
"""

import atexit
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from atom_repro.adb.connection import Connection, device_states
from atom_repro.adb.energy import Energy, Reading, energy_between, read_counters
from atom_repro.adb.faults import Busy, DeviceError, Disconnected, Unauthorised, WrongDevice
from atom_repro.adb.guard import Guard, Watch
from atom_repro.adb.probe import DeviceFacts, device_facts, device_machine
from atom_repro.datatypes import AtomError, Clip, Machine
from atom_repro.device.architecture import Architecture
from atom_repro.device.machine import this_machine
from atom_repro.engines.embedder_export import export_embedder
from atom_repro.hosts.bundle import runner_bundle
from atom_repro.hosts.device_runs import run_on_device
from atom_repro.hosts.host import Pipeline, Trace
from atom_repro.hosts.on_runner import session_trace
from atom_repro.records.lock import hold
from atom_repro.records.record import EMULATED
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup

Result = TypeVar("Result")
STANDIN, PHONE = "standin", "phone"


@dataclass(frozen=True)
class Control:
    """How runs on a device are controlled.

    Attributes:
        affinity: hexadecimal mask of the cores that the runner may use; empty for all.
        timeout_s: most of one session.
        idle_s: how long the device is measured at rest, for its energy; 0 measures no energy.
        look_s: between two looks at a running session, and two readings of energy.
    """

    affinity: str
    timeout_s: float
    idle_s: float
    look_s: float


@dataclass(frozen=True)
class Phone:
    """Runs sessions on a device.

    Attributes:
        folder: of builds, and of the device's job.
        connected: connects to the device that was chosen.
    """

    folder: Path
    connected: Callable[[], AbstractContextManager[Connection]]
    guard: Guard
    control: Control

    @property
    def name(self) -> str:
        if not self._known or not self._known[0].standin:
            return PHONE
        architecture = Architecture.of(self._known[0].abi)
        return STANDIN if architecture.is_native else f"{STANDIN} {architecture} {EMULATED}"

    @property
    def machine(self) -> Machine:
        """A stand-in computes with this machine."""
        known = self._known
        return known[1] if known and not known[0].standin else this_machine()

    def facts(self) -> Mapping[str, Any]:
        known = self._known
        if known is None:
            return {}
        return {
            "device": known[0].to_dict() | {"title": known[0].title},
            "guard": asdict(self.guard),
            "control": asdict(self.control),
            "throttled": self._state["throttled"],
        }

    def run(
        self, setup: Setup, pipeline: Pipeline[Result], clips: Sequence[Clip], arm: Arm
    ) -> Trace[Result]:
        if self._known is None:
            raise self._state["error"]
        shared = self.folder.parent  # by devices that are measured at once
        with hold(shared / "runner.lock", shared, wait=True):
            bundle = runner_bundle(shared, Architecture.of(self._known[0].abi))
            export_embedder(setup.checkpoint.folder / "embedder", setup.embedder)
        measured: dict[str, Any] = {}

        def work() -> None:
            with self.connected() as connection:
                self._only_run_on(connection.serial)
                idle = self._idle(connection)
                waited = self.guard.wait(connection, _say)
                watch, readings = Watch(connection, self.guard.every_s), list[Reading]()

                def look() -> None:
                    watch()
                    if self.control.idle_s:
                        readings.append(read_counters(connection))

                watch.look()
                run_on_device(
                    connection, bundle, self.folder, affinity=self.control.affinity,
                    timeout_s=self.control.timeout_s, every_s=self.control.look_s, watch=look,
                    sent=self._state["sent"],
                )  # fmt: skip
                watch.look()
                self._state["throttled"] |= watch.to_dict()["throttled"]
                measured.update(
                    {"held_s": round(waited, 3), "watch": watch.to_dict()},
                    energy=(energy_between(readings) if self.control.idle_s else idle).above(idle),
                )

        trace = session_trace(setup, pipeline, clips, arm, self.folder, work)
        return Trace(
            trace.results, trace.spans, None, trace.memory_peak, {**trace.measured, **measured}
        )

    @cached_property
    def _known(self) -> tuple[DeviceFacts, Machine] | None:
        """What the device is; None if it cannot be reached, which a session says then."""
        try:
            with self.connected() as connection:
                facts = device_facts(connection)
                return facts, device_machine(connection, facts)
        except DeviceError as error:
            self._state["error"] = error
            return None

    def _idle(self, connection: Connection) -> Energy:
        """The device at rest, measured once."""
        if not self.control.idle_s:
            return Energy(0.0, None, reason="not measured (host.control.idle_s=0)")
        if "at_rest" not in self._state:
            readings = [read_counters(connection)]
            deadline = time.monotonic() + self.control.idle_s
            while time.monotonic() < deadline:
                time.sleep(self.control.look_s)
                readings.append(read_counters(connection))
            self._state["at_rest"] = energy_between(readings)
        at_rest: Energy = self._state["at_rest"]
        return at_rest

    def _only_run_on(self, serial: str) -> None:
        """Refuse a device that another command measures, until this one ends.

        Raises:
            Busy: one does.
        """
        if "lock" in self._state:
            return
        name = "".join(c if c.isalnum() else "-" for c in serial)
        path = Path(tempfile.gettempdir()) / f"atom-repro-{os.getuid()}-{name}.lock"
        try:
            lock = hold(path, f"the device {serial}", "choose another by host.serial")
        except AtomError as error:
            raise Busy(str(error)) from error
        atexit.register(lock.close)
        self._state["lock"] = lock

    @cached_property
    def _state(self) -> dict[str, Any]:
        return {"throttled": False, "sent": {}}


def build(
    *,
    folder: str,
    models: Sequence[str],
    serial: str,
    guard: Mapping[str, Any],
    control: Mapping[str, Any],
) -> Phone:
    """Build the host of `conf/host/auto.yaml` or of a phone's file beside it.

    Args:
        folder: of builds and jobs.
        models: that the phone may be, as `ro.product.model` has it; any if it is empty.
        serial: of the device; empty where only one is connected, or one of these models.
    """

    @contextmanager
    def connected() -> Iterator[Connection]:
        yield Connection.open(choose_device(serial, models))

    # A folder for each device, as several may be measured at once.
    name = "".join(c if c.isalnum() else "-" for c in serial) or PHONE
    return Phone(Path(folder) / name, connected, Guard(**guard), Control(**control))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def choose_device(serial: str, models: Sequence[str]) -> str:
    """The serial of the device to measure.

    Args:
        serial: that is wanted; empty for the only one of these models.

    Raises:
        DeviceError: none, one that does not accept this computer, one of another model, or several.
    """
    states = device_states()
    if serial and not models:
        return serial
    if not states:
        raise Disconnected(
            "no device: plug in a phone with USB debugging on (device_bench/FIRST_HOUR.md), or "
            "choose host=standin"
        )
    ready = [one for one, state in states.items() if state == "device" and serial in ("", one)]
    if not ready:
        if "unauthorized" in states.values():
            raise Unauthorised(
                f"{next(s for s in states if states[s] == 'unauthorized')} does not accept this "
                "computer; unlock it and allow USB debugging in the dialogue that it shows"
            )
        listed = ", ".join(f"{one} ({state})" for one, state in states.items())
        raise Disconnected(f"no device is ready; adb sees {listed}. Check cable and screen")
    by_serial = {one: device_facts(Connection.open(one)).model for one in ready}
    fitting = [one for one, model in by_serial.items() if not models or model in models]
    listed = ", ".join(f"{one} ({model})" for one, model in by_serial.items())
    if not fitting:
        raise WrongDevice(
            f"adb sees {listed}, and this host is for {' or '.join(models)}; choose host=auto, or "
            "plug in another"
        )
    if len(fitting) > 1:
        raise WrongDevice(
            f"several devices, {listed}: choose one, such as host.serial={fitting[0]}"
        )
    return fitting[0]
