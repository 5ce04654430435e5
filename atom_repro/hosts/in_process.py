"""The host that runs a session in this process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from atom_repro.datatypes import Clip, Machine
from atom_repro.device.machine import this_machine
from atom_repro.device.memory import PeakSampler, is_measurable
from atom_repro.hosts.host import Pipeline, Trace
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup

Result = TypeVar("Result")
_SAMPLED_EVERY_S = 0.05  # a sample takes about 0.1 ms a process


@dataclass(frozen=True)
class InProcess:
    """Runs sessions here, on the device of the setup."""

    name: str = "in_process"

    @property
    def machine(self) -> Machine:
        return this_machine()

    def facts(self) -> Mapping[str, Any]:
        return {}

    def run(
        self, setup: Setup, pipeline: Pipeline[Result], clips: Sequence[Clip], arm: Arm
    ) -> Trace[Result]:
        setup.device.reset_peak_memory()
        sampler = PeakSampler(_SAMPLED_EVERY_S) if is_measurable() else None
        try:
            with setup.session(arm) as runtime:
                results = pipeline.run(runtime, clips)
        finally:
            peak = sampler.stop() if sampler else None
        return Trace(results, runtime.timeline.spans(), setup.device.peak_bytes(), peak)


def build() -> InProcess:
    """Build the host of `conf/host/in_process.yaml`."""
    return InProcess()
