"""Setup of a command, built from its configuration: model, data set, precision and device."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch

from atom_repro import config
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.checkpoints.module_files import TRAINED
from atom_repro.checkpoints.random_weights import RANDOM_WEIGHTS_LABEL, write_random_weights
from atom_repro.datatypes import AtomError, CaptionWork, Machine
from atom_repro.device.compute import ComputeDevice
from atom_repro.device.machine import this_machine
from atom_repro.engines.engine import Engine
from atom_repro.engines.roofline import caption_work
from atom_repro.models.generation import GenerationSettings
from atom_repro.models.text_embedder import BUNDLED
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant.recipe import Quantiser, stored_bytes
from atom_repro.records.provenance import config_hash
from atom_repro.records.stage import Stage
from atom_repro.runtime.residency import ModuleLoader, module_loaders
from atom_repro.runtime.runtime import Arm, Runtime
from atom_repro.runtime.thread_split import StageTimes, kept_times, measure_stages
from atom_repro.runtime.visual_stages.visual_stage import VisualStage
from atom_repro.study.plan import planned_only

# Configuration nodes of what makes a text, with all their parameters.
_COMPONENTS = ("model", "engine", "quant", "visual_stages")


@dataclass(frozen=True)
class Setup:
    """The objects that a configuration names. Building them reads and writes nothing:
    `dataset.prepare` creates the data, `prepare_modules` the modules.

    `components` are the configuration nodes of model, engine, quantiser and visual stages.
    """

    model: VideoLanguageModel
    dataset: Any
    engine: Engine
    quantiser: Quantiser
    visual_stages: tuple[VisualStage, ...]
    device: ComputeDevice
    checkpoint: Checkpoint
    generation: GenerationSettings
    embedder: str
    seed: int
    random_weights: bool
    components: Mapping[str, Any]

    @classmethod
    def of(cls, cfg: Any) -> "Setup":
        """Build all objects of a configuration.

        Raises:
            AtomError: invalid settings, or the device does not exist.
        """
        settings = config.to_dict(cfg)
        model: VideoLanguageModel = config.build(cfg.model)
        dataset: Any = config.build(cfg.dataset)
        checkpoint = Checkpoint.of(cfg, model, dataset)
        return cls(
            model=model,
            dataset=dataset,
            engine=config.build(cfg.engine),
            quantiser=config.build(cfg.quant),
            visual_stages=config.build(cfg.visual_stages),
            device=config.build(cfg.device),
            checkpoint=checkpoint,
            generation=GenerationSettings(**settings["generation"]),
            embedder=cfg.get("embedder", BUNDLED),
            seed=cfg.seed,
            random_weights=cfg.scale.random_weights and not cfg.checkpoint.folder,
            components={name: settings[name] for name in _COMPONENTS},
        )

    def prepare_modules(self, *, for_quality: bool) -> Mapping[str, Any]:
        """Create the modules of this precision if they are missing, with random weights where the
        scale has them, and what the engine makes of them; return the quantiser's report.

        Args:
            for_quality: whether texts will be scored, for which random weights are refused.

        Raises:
            AtomError: no weights, or random or damaged ones whose texts would be scored.
        """
        missing = self.random_weights and not self.checkpoint.complete
        if missing and not for_quality:
            write_random_weights(self.checkpoint, self.model, seed=self.seed)
        elif for_quality and (missing or self.weights == RANDOM_WEIGHTS_LABEL):
            raise AtomError(
                f"no trained weights in {self.checkpoint.folder}: texts of random ones "
                "(scale=systems) cannot be scored; choose another scale, or a checkpoint.folder"
            )
        if for_quality:
            self.checkpoint.require_finite()
        report = self.checkpoint.prepare(self.quantiser, self.model)
        self.engine.prepare(self.checkpoint, self.quantiser, self.model, self.embedder)
        return report

    def missing_bytes(self) -> dict[str, int]:
        """About how many bytes `prepare_modules` will write, by precision."""
        with torch.device("meta"):
            networks = self.model.make_encoder(), self.model.make_decoder()
        return {
            f"{quantiser.recipe} modules": sum(stored_bytes(quantiser, n) for n in networks)
            for quantiser in (TRAINED, self.quantiser)
            if not self.checkpoint.has_modules(quantiser)
            and (self.random_weights or not quantiser.is_identity)
        }

    @property
    def weights(self) -> str:
        """Label of the modules' weights.

        Raises:
            AtomError: the modules are missing.
        """
        return self.checkpoint.weights()

    @property
    def model_name(self) -> str:
        """Name of the model, with the stages between its modules and with another engine, as far as
        they decide a text."""
        name = " with ".join([self.model.name, *(stage.name for stage in self.visual_stages)])
        if self.visual_stages or self.engine.name != "eager":
            name += f" on {self.engine.name} {config_hash(self.components)[:12]}"
        return name

    @property
    def labels(self) -> dict[str, Any]:
        """What a record says of how the modules are stored and run."""
        quantiser = self.quantiser
        labels: dict[str, Any] = {
            "precision": quantiser.name,
            "recipe": quantiser.recipe,
            "engine": self.engine.name,
        }
        if self.visual_stages:
            labels["visual_stages"] = [stage.name for stage in self.visual_stages]
        return labels

    @property
    def inputs(self) -> dict[str, str]:
        """Inputs of a record beside configuration and code: data, weights, device."""
        return {
            "dataset": self.dataset.fingerprint,
            "weights": self.weights,
            "device": self.device.name,
        }

    def stage(
        self,
        name: str,
        entry: str,
        settings: Mapping[str, Any],
        protocol: str,
        *,
        inputs: Mapping[str, str] | None = None,
        weights: str = "",
        machine: Machine | None = None,
    ) -> Stage:
        """Stage of a command that runs these modules; see `Stage.of`.

        Args:
            inputs, weights: where they are not those of the modules.
            machine: that runs them, where it is not this one.
        """
        return Stage.of(
            name,
            entry,
            settings,
            machine or this_machine(),
            inputs=inputs or self.inputs,
            weights=weights or self.weights,
            protocol=protocol,
            device=self.device.name,
            computer=this_machine(),
        )

    def planned_only(
        self, command: str, settings: Mapping[str, Any], *, for_quality: bool = False
    ) -> bool:
        """Whether a command that runs these modules on this machine is a dry run; see
        `study.plan.planned_only`.

        Args:
            for_quality: as in `prepare_modules`.
        """
        lacks = ""
        is_random = self.checkpoint.complete and self.weights == RANDOM_WEIGHTS_LABEL
        if for_quality and (self.random_weights or is_random):
            lacks = "trained weights: texts of random ones cannot be scored"
        elif not (self.random_weights or self.checkpoint.complete):
            lacks = f"trained modules in {self.checkpoint.folder}; run train.finetune first"
        return planned_only(
            command, settings, this_machine(), writes=self.missing_bytes, lacks=lacks
        )

    @cached_property
    def loaders(self) -> dict[str, ModuleLoader]:
        """Loaders of the modules, onto the device."""
        loaders = module_loaders(
            self.engine,
            self.checkpoint,
            self.quantiser,
            self.model,
            self.device,
            embedder=self.embedder,
        )
        for stage in self.visual_stages:
            own = stage.loaders(self.device)
            if taken := sorted(loaders.keys() & own.keys()):
                raise AtomError(
                    f"visual_stages: {stage.name} brings a module named {taken[0]}, a name that is "
                    "taken; choose another"
                )
            loaders |= own
        return loaders

    def caption_work(self) -> CaptionWork:
        """The least work of one clip's caption; see `roofline`."""
        tokenizer = Tokenizer.load(self.checkpoint.decoder(), self.model.specials)
        return caption_work(
            self.model, tokenizer, self.generation, self.quantiser, self.visual_stages
        )

    def stage_times(self, arm: Arm) -> StageTimes:
        """Seconds of encoder and decoder by their threads, on this machine; measured once, and then
        kept beside the modules."""
        machine = this_machine()
        identity = {
            "machine": machine.fingerprint,
            "device": self.device.name,
            "components": self.components,
            "generation": asdict(self.generation),
            "decode_batch": arm.decode_batch,
        }
        path = self.checkpoint.folder / "threads" / f"{config_hash(identity)[:16]}.json"

        def measure() -> StageTimes:
            return measure_stages(
                self.loaders,
                self.model,
                self.generation,
                cores=machine.cores,
                any_number=self.engine.any_threads,
                decode_batch=arm.decode_batch,
                changed=self._after_stages,
            )

        return kept_times(path, measure)

    def _after_stages(self, visual: VisualTokens) -> VisualTokens:
        for stage in self.visual_stages:
            visual = stage.example(visual)
        return visual

    def thread_values(self, arms: Iterable[Arm]) -> dict[str, Any]:
        """What a record says of how threads were chosen; empty if no arm has them calibrated."""
        for arm in arms:
            if arm.calibrates:
                return {"thread_split": self.stage_times(arm).to_dict()}
        return {}

    def session(self, arm: Arm) -> Runtime:
        """A session of these modules under an arm, whose threads are calibrated if it asks for
        that; use as a context manager."""
        if arm.calibrates:
            arm = replace(arm, split=self.stage_times(arm).best())
        return Runtime(
            arm,
            self.loaders,
            self.device,
            model=self.model,
            settings=self.generation,
            visual_stages=self.visual_stages,
        )
