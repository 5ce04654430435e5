"""The host that runs a session on a stand-in device, through a real adb client."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from atom_repro.adb.connection import Connection
from atom_repro.adb.probe import device_facts
from atom_repro.adb.standin import StandIn
from atom_repro.datatypes import AtomError, Clip
from atom_repro.device.architecture import Architecture
from atom_repro.hosts.bundle import runner_bundle
from atom_repro.hosts.device_runs import run_on_device
from atom_repro.hosts.host import Pipeline, Trace
from atom_repro.hosts.on_runner import session_trace
from atom_repro.records.record import EMULATED
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup

Result = TypeVar("Result")


@dataclass(frozen=True)
class StandInDevice:
    """Runs sessions on a stand-in device: the interfaces of a phone, the speed of this machine, or
    of an emulator where its architecture is another.

    Attributes:
        folder: of builds and jobs, and of the device's files.
    """

    folder: Path
    architecture: Architecture

    @property
    def name(self) -> str:
        emulated = "" if self.architecture.is_native else f" {self.architecture} {EMULATED}"
        return f"standin{emulated}"

    def run(
        self, setup: Setup, pipeline: Pipeline[Result], clips: Sequence[Clip], arm: Arm
    ) -> Trace[Result]:
        bundle, job = runner_bundle(self.folder, self.architecture), self.folder / "job"

        def work() -> None:
            with self._connected() as connection:
                run_on_device(connection, bundle, job, every_s=0.1)

        return session_trace(setup, pipeline, clips, arm, job, work)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A stand-in device of its own, and adb's connection to it."""
        with StandIn(self.folder / "device", architecture=self.architecture) as device:
            connection = Connection.open(device.address)
            try:
                if not device_facts(connection).standin:
                    raise AtomError(
                        f"{device.address} is another device than the stand-in of this run"
                    )
                yield connection
            finally:
                connection.close()


def build(*, folder: str, architecture: str | None) -> StandInDevice:
    """Build the host of `conf/host/standin.yaml`."""
    named = Architecture.of(architecture) if architecture else Architecture.of_this_machine()
    return StandInDevice(Path(folder), named)
