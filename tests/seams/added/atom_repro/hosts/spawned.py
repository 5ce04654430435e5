"""A host that runs each session in a new process."""

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from atom_repro.datatypes import Clip, Machine
from atom_repro.device.machine import this_machine
from atom_repro.hosts.host import Pipeline, Trace
from atom_repro.hosts.in_process import InProcess
from atom_repro.runtime.runtime import Arm
from atom_repro.runtime.setup import Setup


@dataclass(frozen=True)
class Spawned:
    name: str = "spawned"

    @property
    def machine(self) -> Machine:
        return this_machine()

    def facts(self) -> Mapping[str, Any]:
        return {}

    def run(
        self, setup: Setup, pipeline: Pipeline[Any], clips: Sequence[Clip], arm: Arm
    ) -> Trace[Any]:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(InProcess().run, setup, pipeline, clips, arm).result()


def build() -> Spawned:
    """Build the host of `conf/host/spawned.yaml`."""
    return Spawned()
