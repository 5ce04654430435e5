"""Benchmark of a training step on synthetic clips: seconds, peak memory and operations.

The cost of a step does not depend on the content of frames or captions, so nothing is read; shapes
are those of a real caption step.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from atom_repro.config.schemas import TrainConfig
from atom_repro.datatypes import AtomError
from atom_repro.device.compute import ComputeDevice
from atom_repro.device.memory import trim_heap
from atom_repro.engines.roofline import count_flops
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.network import training_optimiser
from atom_repro.training.processes import on_device
from atom_repro.training.step_memory import MeasuredPeak


@dataclass(frozen=True)
class SyntheticCaptions:
    """Synthetic captions of `length` tokens, end of sequence included, by a stand-in tokenizer."""

    model: VideoLanguageModel
    tokenizer: Tokenizer
    length: int
    seed: int

    @classmethod
    def of(cls, model: VideoLanguageModel, *, length: int, seed: int) -> "SyntheticCaptions":
        stand_in = Tokenizer.word_level(model.decoder.vocabulary, model.specials)
        return cls(model, stand_in, length, seed)

    @property
    def rarity(self) -> Sequence[float]:
        return [1.0] * self.model.decoder.vocabulary

    def micro_batch(self, *, clips: int, captions_per_clip: int) -> dict[str, Any]:
        """Make a micro-batch in the format of `TrainingSteps`."""
        rng, encoder_config = np.random.default_rng(self.seed), self.model.encoder
        size = (
            clips,
            encoder_config.frames,
            3,
            encoder_config.image_size,
            encoder_config.image_size,
        )
        words = rng.integers(100, self.model.decoder.vocabulary, self.length - 1)
        caption = self.model.training_ids(self.tokenizer, " ".join(f"w{word}" for word in words))
        return {
            "frames": rng.integers(0, 256, size, dtype=np.uint8),
            "captions": np.tile(np.asarray(caption, np.int64), (clips, captions_per_clip, 1)),
            "caption_weight": 1.0,
        }


@dataclass(frozen=True)
class StepMeasurement:
    """Measured cost: `seconds` of each step, the first a warm-up; `operations` of a step in matrix
    products (multiplications and additions); `peak_bytes`, None where it cannot be measured."""

    seconds: tuple[float, ...]
    operations: int
    peak_bytes: int | None

    def values(self, tokens: int, limits: Mapping[str, float], precision: str) -> dict[str, Any]:
        """Values of the record: step time, throughput, share of the limit, memory.

        Args:
            tokens: of a step, visual and text.
            limits: rates of the device, as `device.limits.measure_rates` gives them.
        """
        step_s = median(self.seconds[1:])
        rate = self.operations / step_s
        return {
            "step_s": step_s,
            "tokens_per_s": tokens / step_s,
            "operations_per_step": self.operations,
            "operations_per_s": rate,
            "limits": dict(limits),
            "share_of_limit": rate / limits[f"{precision}_operations_per_s"],
            "step_memory_measured_bytes": self.peak_bytes,
        }

    def samples(self) -> list[dict[str, Any]]:
        """Samples of the record, one for each step."""
        return [{"step": n, "seconds": s, "warmup": n == 0} for n, s in enumerate(self.seconds)]


def measure_step(
    make_network: Callable[[], CaptioningModel],
    settings: TrainConfig,
    batch: dict[str, Any],
    device: ComputeDevice,
    *,
    precision: str,
    steps: int,
) -> StepMeasurement:
    """Measure `steps` training steps of a new network on one repeated micro-batch.

    Raises:
        AtomError: fewer than two steps.
        RuntimeError, MemoryError: out of memory, as `out_of_memory` recognises it.
    """
    if steps < 2:
        raise AtomError(f"steps={steps}: the first step warms up, so there must be at least 2")
    trim_heap()  # memory of an earlier measurement
    measured = MeasuredPeak(device.torch, steps)
    with device.torch:
        network = make_network()
    network.train()
    optimiser = training_optimiser(network, settings)
    tensors = on_device(batch, device.torch)
    seconds, counter = [], count_flops()
    measured.start()
    try:
        for step in range(steps):
            start_s = time.perf_counter()
            with counter if step == 0 else nullcontext():
                _step(network, optimiser, tensors, precision, settings.clip_norm)
            device.synchronize()
            seconds.append(time.perf_counter() - start_s)
            measured.step_done()
    finally:
        measured.stop()
    return StepMeasurement(tuple(seconds), counter.get_total_flops(), measured.bytes)


def _step(
    network: CaptioningModel,
    optimiser: Any,
    batch: dict[str, Any],
    precision: str,
    clip_norm: float,
) -> None:
    device = next(network.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        loss, _ = network(batch)
    loss.backward()
    if clip_norm:
        nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    optimiser.step()
    optimiser.zero_grad()


def next_batch_size(largest_fitting: int, smallest_failing: int | None, maximum: int) -> int | None:
    """Next batch size of the search for the largest that fits (0 for none yet): twice the largest
    that fits, then between it and the smallest that fails until they are an eighth apart; None at
    the end."""
    if smallest_failing is None:
        return None if largest_fitting >= maximum else min(max(1, 2 * largest_fitting), maximum)
    if smallest_failing - largest_fitting <= max(1, largest_fitting // 8):
        return None
    return (largest_fitting + smallest_failing) // 2
