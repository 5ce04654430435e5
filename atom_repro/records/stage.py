"""A stage of a study: found among the records or run, and then recorded, whatever comes of it.

stage = Stage.of("caption", __file__, settings, this_machine(), inputs=…, weights=…)
if stage.unchanged("caption int8"):
    return
with stage.recording() as run:
    run.values["cider"] = …
"""

import sys
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atom_repro.datatypes import Machine
from atom_repro.records.record import Record, Run, counterpart, find, recording, stage_key


@dataclass(frozen=True)
class Stage:
    """One run of a command, by all that decides its result.

    Attributes:
        config: the effective configuration; its `paths.results` is where records lie, and with
            `force` it is run although a record is there.
        inputs: hashes and names of what it reads, by what they are.
        weights: the label of the weights, see `recording`.
        protocol: the named evaluation, with its data.
        device: what computes, as `ComputeDevice.name` has it.
        key: equal for two runs that must give the same (`stage_key`).
    """

    name: str
    config: Mapping[str, Any]
    machine: Machine
    inputs: Mapping[str, str]
    weights: str
    protocol: str
    device: str
    key: str

    @classmethod
    def of(
        cls,
        name: str,
        entry: str,
        config: Mapping[str, Any],
        machine: Machine,
        *,
        inputs: Mapping[str, str],
        weights: str,
        protocol: str = "",
        device: str = "cpu",
    ) -> "Stage":
        """
        Args:
            entry: the file of the command, whose code is part of the key.
        """
        key = stage_key(name, Path(entry), config, inputs)
        return cls(name, config, machine, inputs, weights, protocol, device, key)

    @property
    def results(self) -> Path:
        return Path(self.config["paths"]["results"])

    def recorded(self, *, statuses: Collection[str] = ("ok",)) -> Record | None:
        """The record of this very run, None where it has to be run.

        Args:
            statuses: of the records that count; where running out of memory is an answer, `oom`.
        """
        if self.config.get("force"):
            return None
        return find(self.results, self.machine, self.name, self.key, statuses=statuses)

    def unchanged(self, title: str) -> bool:
        """Whether a record of this very run is there, which is printed with the title."""
        done = self.recorded()
        if done:
            sys.stdout.write(f"{title}: unchanged, {done.folder}\n")
        return done is not None

    def recording(self) -> AbstractContextManager[Run]:
        """Record what happens inside, whether it ends well or not."""
        return recording(
            self.results,
            self.machine,
            stage=self.name,
            key=self.key,
            config=self.config,
            inputs=self.inputs,
            weights=self.weights,
            protocol=self.protocol,
            device=self.device,
        )

    def counterpart(self, **replaced: Any) -> Record | None:
        """The newest good record of the same run but for some nodes of its configuration."""
        return counterpart(
            self.results,
            self.machine,
            self.name,
            config=self.config,
            inputs=self.inputs,
            **replaced,
        )
