"""Training loop state: network, optimiser and schedule, distributed over processes."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from accelerate import Accelerator

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.config.schemas import TrainConfig
from atom_repro.datatypes import AtomError
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.data import TrainingData
from atom_repro.training.network import training_network, training_optimiser
from atom_repro.training.optimisation import (
    images_first,
    make_schedule,
    set_learning_rates,
)
from atom_repro.training.processes import mean_over_processes, on_device
from atom_repro.training.sharding import FullNetwork, process_mesh, shard
from atom_repro.training.step_memory import MeasuredPeak, require_step_memory, step_memory

# Nats a token. Guessing among 128,000 tokens costs 12.
_DIVERGED = 100.0


class Trainer:
    """A network in training on `data`; `step` runs one step of all processes.

    Args:
        accelerator: of this process.
        start: checkpoint with the initial weights, None for random ones.

    Raises:
        AtomError: a step needs more memory than is available; raised before any is allocated.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: VideoLanguageModel,
        data: TrainingData,
        settings: TrainConfig,
        *,
        start: Checkpoint | None,
    ) -> None:
        self._accelerator, self._data, self._settings = accelerator, data, settings
        self._precision = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
        self.epoch_steps = max(1, data.epoch // settings.accumulate)
        of_captions = settings.epochs * self.epoch_steps if settings.epochs else settings.max_steps
        self.steps = data.steps.image_steps + of_captions
        self._validation_every = settings.validation_every or self.epoch_steps

        make_network = partial(training_network, model, data, settings)
        self.memory_estimate = step_memory(
            make_network,
            data.longest_step(),
            precision=self._precision,
            processes=accelerator.num_processes,
            shard=settings.shard,
            device=accelerator.device.type,
        )
        require_step_memory(self.memory_estimate, accelerator.device)
        accelerator.wait_for_everyone()  # all have checked the memory before one allocates it
        self.measured_peak = MeasuredPeak(accelerator.device)
        network = make_network(start)
        if settings.shard:
            shard(network, process_mesh(accelerator.device, accelerator.num_processes))
        optimiser = training_optimiser(network, settings)
        schedule = make_schedule(
            settings.schedule,
            warmup=settings.warmup_steps,
            floor=settings.floor_learning_rate,
            epoch=data.epoch,
            accumulate=settings.accumulate,
            steps=of_captions,
            quirk=settings.epoch0_quirk,
        )
        self._schedule = images_first(
            schedule,
            image_steps=data.steps.image_steps,
            ratio=settings.image_learning_rate / settings.learning_rate,
        )
        # In "evaluation mode" accelerate does not wrap the network in DDP.
        self._network = accelerator.prepare_model(network, evaluation_mode=settings.shard)
        self._optimiser = accelerator.prepare_optimizer(optimiser)
        self.network: CaptioningModel = accelerator.unwrap_model(self._network)
        self._full_network = FullNetwork(
            self.network, make_network if accelerator.is_main_process else None
        )

    @property
    def optimiser(self) -> Any:
        """The torch optimiser, without accelerate's wrapper."""
        return self._optimiser.optimizer

    def step(self, step: int) -> dict[str, float]:
        """Train on the micro-batches of a step; return the mean losses over all processes, and the
        seconds of the step (`step_s`).

        Raises:
            AtomError: the training diverges.
        """
        start_s, losses = time.perf_counter(), dict[str, float]()
        accelerator, settings = self._accelerator, self._settings
        self._network.train()
        set_learning_rates(self._optimiser, self._schedule, step)
        for batch in self._data.steps(step):
            with accelerator.accumulate(self._network):
                loss, batch_losses = self._network(on_device(batch, accelerator.device))
                accelerator.backward(loss)
                if accelerator.sync_gradients and settings.clip_norm:
                    accelerator.clip_grad_norm_(self._network.parameters(), settings.clip_norm)
                self._optimiser.step()
                self._optimiser.zero_grad()
            for name, value in batch_losses.items():
                losses[name] = losses.get(name, 0.0) + value.item() / settings.accumulate
        self.measured_peak.step_done()
        means = mean_over_processes(accelerator, losses)
        _require_converging(step, means)
        return {**means, "step_s": time.perf_counter() - start_s}

    def validates(self, step: int) -> bool:
        """Whether a validation follows the first `step` steps: at the end, and every so many steps
        once there were some of captions."""
        due = step > self._data.steps.image_steps and step % self._validation_every == 0
        return due or step == self.steps

    def full_network(self) -> CaptioningModel | None:
        """The network with all its current parameters; with sharding None in all processes but the
        main one. A collective call."""
        return self._full_network.gathered()

    def values(self) -> dict[str, Any]:
        """Values of the record beside the loss curve: memory, precision, parameter counts, clips
        that were seen only in part."""
        self.measured_peak.stop()
        parameters = list(self.network.parameters())
        return {
            "epoch_steps": self.epoch_steps,
            "precision": self._precision,
            "processes": self._accelerator.num_processes,
            "step_memory_estimated_bytes": self.memory_estimate.peak
            + self.memory_estimate.whole,  # of this process
            "step_memory_bound_bytes": self.memory_estimate.bound + self.memory_estimate.whole,
            "step_memory_measured_bytes": self.measured_peak.bytes,
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "parameters": sum(p.numel() for p in parameters),
            "sharded": self._settings.shard,
            "partial_clips": dict(self._data.faults),
        }


def _require_converging(step: int, losses: Mapping[str, float]) -> None:
    """Check the losses of a step.

    Raises:
        AtomError: one is not finite, or far above that of guessing, which no later step mends.
    """
    for name, loss in losses.items():
        if not loss <= _DIVERGED:  # nor is a number that is none
            raise AtomError(
                f"step {step + 1}: the {name.replace('_', ' ')} is {loss:.3g}, the training "
                "diverges; lower train.learning_rate, or set train.clip_norm or more "
                "train.warmup_steps. The best modules before it are kept"
            )
