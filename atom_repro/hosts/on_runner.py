"""Hosts that run sessions with the C++ runner: on this machine, or on a device over adb.

Each writes a job, has it run, and reads what it left. What measures and records knows the protocol
of hosts only, so a session of the runner is measured like one of the Python runtime.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from atom_repro.adb.connection import Connection
from atom_repro.adb.probe import device_facts
from atom_repro.adb.standin import StandIn
from atom_repro.datatypes import AtomError, Clip
from atom_repro.hosts.bundle import write_bundle
from atom_repro.hosts.device_runs import run_on_device
from atom_repro.hosts.host import Pipeline, Trace
from atom_repro.hosts.runner import (
    RESULTS,
    RunnerTrace,
    RunsOnRunner,
    build_runner,
    read_results,
    run_job,
    write_job,
)
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup

Result = TypeVar("Result")


@dataclass(frozen=True)
class LocalRunner:
    """Runs sessions with the runner on this machine.

    Attributes:
        folder: of builds and jobs.
    """

    folder: Path
    name: str = "runner"

    def run(
        self, setup: Setup, pipeline: Pipeline[Result], clips: Sequence[Clip], arm: Arm
    ) -> Trace[Result]:
        program, job = build_runner(self.folder), self.folder / "job"

        def work() -> None:
            run_job(program, job)

        return _traced(setup, pipeline, clips, arm, job, work)


@dataclass(frozen=True)
class StandInDevice:
    """Runs sessions on a stand-in device: a real adb client, and the speed of this machine.

    Attributes:
        folder: of builds and jobs, and of the device's files.
    """

    folder: Path
    name: str = "standin"

    def run(
        self, setup: Setup, pipeline: Pipeline[Result], clips: Sequence[Clip], arm: Arm
    ) -> Trace[Result]:
        bundle, job = _bundle(self.folder), self.folder / "job"

        def work() -> None:
            with _standin(self.folder / "device") as connection:
                run_on_device(connection, bundle, job, every_s=0.1)

        return _traced(setup, pipeline, clips, arm, job, work)


@contextmanager
def _standin(folder: Path) -> Iterator[Connection]:
    with StandIn(folder) as device:
        connection = Connection.open(device.address)
        try:
            if not device_facts(connection).standin:
                raise AtomError(f"{device.address} is another device than the stand-in of this run")
            yield connection
        finally:
            connection.close()


def _traced(
    setup: Setup,
    pipeline: Pipeline[Result],
    clips: Sequence[Clip],
    arm: Arm,
    job: Path,
    work: Callable[[], None],
) -> Trace[Result]:
    """The trace of one session, which `work` runs by a job in a folder."""
    if not isinstance(pipeline, RunsOnRunner):
        raise AtomError("the runner answers prompts: pipeline=retrieval or pipeline=assembly")
    nonce = write_job(job, setup, clips, [arm], pipeline=pipeline.for_runner())
    work()
    (trace,) = read_results(job / RESULTS, nonce, 1)
    return _as_trace(pipeline, trace)


def _as_trace(pipeline: RunsOnRunner, trace: RunnerTrace) -> "Trace[Result]":
    results = cast(Sequence[Result], pipeline.from_runner(trace.answers))
    return Trace(results, trace.spans, None, trace.memory_peak)


def _bundle(folder: Path) -> Path:
    """The bundle of the runner for this machine's processor, made unless it is there."""
    program = build_runner(folder)
    bundle = program.parent / "bundle"
    if not bundle.is_dir():
        found = importlib.util.find_spec("executorch")
        assert found is not None and found.submodule_search_locations
        package = Path(next(iter(found.submodule_search_locations)))
        write_bundle(program, bundle, [package / "lib"], compiler="g++")
    return bundle


def build_local(*, folder: str) -> LocalRunner:
    """Build the host of `conf/host/runner.yaml`."""
    return LocalRunner(Path(folder))


def build_standin(*, folder: str) -> StandInDevice:
    """Build the host of `conf/host/standin.yaml`."""
    return StandInDevice(Path(folder))
