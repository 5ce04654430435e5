"""The host that runs a session with the C++ runner on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from atom_repro.datatypes import Clip, Machine
from atom_repro.device.machine import this_machine
from atom_repro.hosts.host import Pipeline, Trace
from atom_repro.hosts.on_runner import session_trace
from atom_repro.hosts.runner import build_runner, run_job
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

    @property
    def machine(self) -> Machine:
        return this_machine()

    def facts(self) -> Mapping[str, Any]:
        return {}

    def run(
        self, setup: Setup, pipeline: Pipeline[Result], clips: Sequence[Clip], arm: Arm
    ) -> Trace[Result]:
        program, job = build_runner(self.folder), self.folder / "job"

        def work() -> None:
            run_job(program, job)

        return session_trace(setup, pipeline, clips, arm, job, work)


def build(*, folder: str) -> LocalRunner:
    """Build the host of `conf/host/runner.yaml`."""
    return LocalRunner(Path(folder))
