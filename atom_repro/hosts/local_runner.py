"""The host that runs a session with the C++ runner on this machine."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from atom_repro.datatypes import AtomError, Clip, Machine
from atom_repro.device.machine import this_machine
from atom_repro.hosts.host import Pipeline, Trace
from atom_repro.hosts.on_runner import session_trace
from atom_repro.hosts.runner import PER_MODEL, build_runner, run_job
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup

Result = TypeVar("Result")
PACKED = "packed"  # the folder of packed weights, beside that of the job


@dataclass(frozen=True)
class LocalRunner:
    """Runs sessions with the runner on this machine.

    Attributes:
        folder: of builds and jobs.
        packed_weights: whether packed weights are kept in files and mapped, so that a load after
            the first packs nothing.
        workspaces: see `write_job`.
    """

    folder: Path
    packed_weights: bool = False
    workspaces: str = PER_MODEL
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
        if self.packed_weights:
            self._require_space(sum(loader.bytes for loader in setup.loaders.values()))

        def work() -> None:
            run_job(program, job)

        packed = f"../{PACKED}" if self.packed_weights else ""
        return session_trace(
            setup, pipeline, clips, arm, job, work, packed=packed, workspaces=self.workspaces
        )

    def _require_space(self, needed: int) -> None:
        """Raise AtomError where packed weights do not fit: what is mapped cannot fail to be written
        without ending the process."""
        kept = sum(path.stat().st_size for path in (self.folder / PACKED).rglob("*.packed"))
        free = shutil.disk_usage(self.folder).free
        if free + kept < needed:
            raise AtomError(
                f"{self.folder} has {free / 1e9:.1f} GB free and packed weights take "
                f"{needed / 1e9:.1f}; free some, or leave host.packed_weights"
            )


def build(*, folder: str, packed_weights: bool, workspaces: str) -> LocalRunner:
    """Build the host of `conf/host/runner.yaml`."""
    return LocalRunner(Path(folder), packed_weights, workspaces)
