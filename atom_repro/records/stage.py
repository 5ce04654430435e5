"""A stage of a study: reuse its record or run it, and record the run whether it succeeds or not.

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
from atom_repro.records.record import Record, Run, counterpart, find_record, recording, stage_key


@dataclass(frozen=True)
class Stage:
    """One run of a command, described by everything that determines its result.

    Attributes:
        config: the effective configuration; `paths.results` is the folder of records, and with
            `force` the stage is run even if a record exists.
        inputs: hashes and names of its inputs, by kind of input.
        weights: the label of the weights, see `recording`.
        protocol: the named evaluation, with its data.
        device: the `ComputeDevice.name`.
        key: hash that identifies the run (`stage_key`).
        computer: that runs the command, where it is not the machine of its times.
    """

    name: str
    config: Mapping[str, Any]
    machine: Machine
    inputs: Mapping[str, str]
    weights: str
    protocol: str
    device: str
    key: str
    computer: Machine | None = None

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
        computer: Machine | None = None,
    ) -> "Stage":
        """Create a stage and compute its key.

        Args:
            entry: the file of the command, whose code is part of the key.
        """
        key = stage_key(name, Path(entry), config, inputs)
        return cls(name, config, machine, inputs, weights, protocol, device, key, computer)

    @property
    def results(self) -> Path:
        return Path(self.config["paths"]["results"])

    def existing_record(self, *, statuses: Collection[str] = ("ok",)) -> Record | None:
        """The existing record with this key, None where the stage has to be run.

        Args:
            statuses: accepted statuses; with `oom` where out of memory is a valid result.
        """
        if self.config.get("force"):
            return None
        return find_record(self.results, self.machine, self.name, self.key, statuses=statuses)

    def unchanged(self, title: str) -> bool:
        """Whether a record with this key exists; if so, its folder is printed with the title."""
        record = self.existing_record()
        if record:
            sys.stdout.write(f"{title}: unchanged, {record.folder}\n")
        return record is not None

    def recording(self) -> AbstractContextManager[Run]:
        """Record the run inside this context, whether it succeeds or fails."""
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
            computer=self.computer,
        )

    def counterpart(self, **replaced: Any) -> Record | None:
        """The newest `ok` record of the same run with some configuration nodes replaced."""
        return counterpart(
            self.results,
            self.machine,
            self.name,
            config=self.config,
            inputs=self.inputs,
            **replaced,
        )
