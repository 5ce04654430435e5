"""What a command measures or uses: a model's modules in one precision, on a device, and data."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from atom_repro import config
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.random_weights import LABEL, write_random_weights
from atom_repro.datatypes import AtomError
from atom_repro.device.compute import ComputeDevice
from atom_repro.device.machine import this_machine
from atom_repro.models.generation import GenerationSettings
from atom_repro.models.text_embedder import EMBEDDED
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant.recipe import Quantiser
from atom_repro.records.stage import Stage
from atom_repro.runtime.residency import Loader, module_loaders
from atom_repro.runtime.runtime import Arm, Runtime


@dataclass(frozen=True)
class Setup:
    """The parts that a configuration names, built. Nothing is read or made before it is asked for;
    `dataset.prepare` makes the data, `make_modules` the modules."""

    model: VideoLanguageModel
    dataset: Any
    quantiser: Quantiser
    device: ComputeDevice
    checkpoint: Checkpoint
    generation: GenerationSettings
    embedder: str
    seed: int
    random_weights: bool

    @classmethod
    def of(cls, cfg: Any) -> "Setup":
        """
        Raises:
            AtomError: a part refuses its settings, or there is no such device.
        """
        model: VideoLanguageModel = config.build(cfg.model)
        dataset: Any = config.build(cfg.dataset)
        checkpoint = Checkpoint.of(cfg, model, dataset)
        return cls(
            model=model,
            dataset=dataset,
            quantiser=config.build(cfg.quant),
            device=config.build(cfg.device),
            checkpoint=checkpoint,
            generation=GenerationSettings(**config.plain(cfg)["generation"]),
            embedder=cfg.get("embedder", EMBEDDED),
            seed=cfg.seed,
            random_weights=cfg.scale.random_weights and not cfg.checkpoint.folder,
        )

    def make_modules(self, *, judged: bool) -> Mapping[str, Any]:
        """Make the modules of the wanted precision, and where the scale says so random weights for
        them, if they are not there; the quantiser's report.

        Args:
            judged: whether texts will be scored, which those of random weights never are.

        Raises:
            AtomError: no weights to make them of, or random ones that would be judged.
        """
        missing = self.random_weights and not self.checkpoint.complete
        if missing and not judged:
            write_random_weights(self.checkpoint, self.model, seed=self.seed)
        elif judged and (missing or self.weights == LABEL):
            raise AtomError(
                f"the weights in {self.checkpoint.folder} are random (as scale=systems makes them),"
                " and their texts have no quality to measure; choose another scale, or a "
                "checkpoint.folder"
            )
        return self.checkpoint.prepare(self.quantiser, self.model)

    @property
    def weights(self) -> str:
        """The label of the modules' weights.

        Raises:
            AtomError: there are none.
        """
        return self.checkpoint.weights()

    @property
    def inputs(self) -> dict[str, str]:
        """What a record of it depends on, beside configuration and code."""
        return {
            "dataset": self.dataset.fingerprint,
            "weights": self.weights,
            "device": self.device.name,
        }

    def stage(self, name: str, entry: str, settings: Mapping[str, Any], protocol: str) -> Stage:
        """The stage of a command that runs these modules on this machine; see `Stage.of`."""
        return Stage.of(
            name,
            entry,
            settings,
            this_machine(),
            inputs=self.inputs,
            weights=self.weights,
            protocol=protocol,
            device=self.device.name,
        )

    @cached_property
    def loaders(self) -> dict[str, Loader]:
        """How its modules are read, onto its device."""
        return module_loaders(
            self.checkpoint, self.quantiser.name, self.model, self.device, embedder=self.embedder
        )

    def session(self, arm: Arm) -> Runtime:
        """A session of its modules under an arm; use as a context manager."""
        return Runtime(
            arm,
            self.loaders,
            self.device,
            prompt=self.model.prompt,
            settings=self.generation,
        )
