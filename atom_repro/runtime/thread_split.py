"""Threads of encoder and decoder side by side, chosen by a short calibration.

Each module is timed alone with every number of threads that its engine can use; from these times
the time of a clip is predicted for every split, and the least one is taken. Times are kept in a
file, so that a machine is calibrated once for a model, an engine and a precision.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from atom_repro.models.generation import GenerationSettings
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.records.atomic import atomic_write
from atom_repro.runtime.residency import ModuleLoader

CHOICES = ("fixed", "calibrate")
_NEAR = 1.1
_ENOUGH_S, _LONG_S = 0.5, 2.0  # of the calls with one number of threads, and of one call


@dataclass(frozen=True)
class ThreadSplit:
    """Threads of each module while both work."""

    encoder: int
    decoder: int


@dataclass(frozen=True)
class StageTimes:
    """Seconds of a clip in each module, alone, by its number of threads.

    Attributes:
        cores: that the process may use.
    """

    cores: int
    encode_s: Mapping[int, float]
    caption_s: Mapping[int, float]

    def predicted_s(self, split: ThreadSplit) -> float:
        """Seconds of a clip while another is in the other module.

        The slower module decides. More threads than cores take turns: both modules slow down in
        proportion, until the faster one is done. That both read from one memory is not predicted.
        """
        stages = self.encode_s[split.encoder], self.caption_s[split.decoder]
        turns = max(1.0, (split.encoder + split.decoder) / self.cores)
        return max(stages) + (turns - 1.0) * min(stages)

    def best(self) -> ThreadSplit:
        """The split with the fewest threads of those whose predicted time is near the least: what
        it costs threads to take turns is not predicted either."""
        splits = [ThreadSplit(*pair) for pair in product(self.encode_s, self.caption_s)]
        near_s = _NEAR * min(map(self.predicted_s, splits))
        near = [split for split in splits if self.predicted_s(split) <= near_s]
        return min(near, key=lambda s: (s.encoder + s.decoder, self.predicted_s(s)))

    def to_dict(self) -> dict[str, Any]:
        """The times, the prediction for each split, and the choice, as values of a record."""
        best = self.best()
        predicted = {
            f"{encoder}+{decoder}": self.predicted_s(ThreadSplit(encoder, decoder))
            for encoder, decoder in product(self.encode_s, self.caption_s)
        }
        return {
            "cores": self.cores,
            "encode_s": {str(threads): s for threads, s in self.encode_s.items()},
            "caption_s": {str(threads): s for threads, s in self.caption_s.items()},
            "predicted_s": predicted,
            "chosen": f"{best.encoder}+{best.decoder}",
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StageTimes":
        def by_threads(key: str) -> dict[int, float]:
            return {int(threads): float(s) for threads, s in values[key].items()}

        return cls(int(values["cores"]), by_threads("encode_s"), by_threads("caption_s"))


def thread_counts(cores: int, *, any_number: bool) -> list[int]:
    """Numbers of threads to time: one and all, and between them, where an engine can use
    `any_number`, the powers of two and what they leave of the cores."""
    powers = [2**n for n in range(cores.bit_length())] if any_number else [1]
    left = [cores - power for power in powers] if any_number else []
    return sorted({n for n in (*powers, *left, cores) if 1 <= n <= cores})


def kept_times(path: Path, measure: Callable[[], StageTimes]) -> StageTimes:
    """The times in a file; measured, and written to it, where it is missing or unreadable."""
    try:
        return StageTimes.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        times = measure()
    with atomic_write(path) as building:
        building.write_text(json.dumps(times.to_dict(), indent=1) + "\n", encoding="utf-8")
    return times


def measure_stages(
    loaders: Mapping[str, ModuleLoader],
    model: VideoLanguageModel,
    settings: GenerationSettings,
    *,
    cores: int,
    any_number: bool,
    decode_batch: int,
    changed: Callable[[VisualTokens], VisualTokens] = lambda visual: visual,
) -> StageTimes:
    """Time encoder and decoder, one loaded after the other, on a clip of noise.

    A caption has all `max_new_tokens`, so that the times depend on the weights' shapes only.

    Args:
        any_number: whether the engine's modules can use any number of threads.
        decode_batch: captions that share the decoder's steps.
        changed: what stages between the modules make of visual tokens.
    """
    counts = thread_counts(cores, any_number=any_number)
    config = model.encoder
    size = config.image_size
    clip = torch.randint(0, 256, (1, config.frames, 3, size, size), dtype=torch.uint8)
    encoder: Any = loaders["encoder"].read()
    try:
        visual = changed(encoder(clip))
        encode_s = _least_s(lambda: encoder(clip), counts)
    finally:
        encoder.release()
    clips = VisualTokens(
        visual.tokens.repeat(decode_batch, 1, 1),
        visual.frame_tokens,
        {name: x.repeat(decode_batch, *[1] * (x.dim() - 1)) for name, x in visual.features.items()},
    )
    whole = replace(settings, forbid_end=True)
    decoder: Any = loaders["decoder"].read()
    try:
        caption_s = _least_s(lambda: decoder.generate(clips, model.prompt, whole), counts)
    finally:
        decoder.release()
    each_s = {threads: seconds / decode_batch for threads, seconds in caption_s.items()}
    return StageTimes(cores, encode_s, each_s)


def _least_s(call: Callable[[], object], counts: Sequence[int]) -> dict[int, float]:
    """Seconds of the fastest call with each number of threads."""
    before, seconds = torch.get_num_threads(), {}
    try:
        for threads in counts:
            torch.set_num_threads(threads)
            taken: list[float] = []
            while not _enough(taken):
                start = time.perf_counter()
                call()
                taken.append(time.perf_counter() - start)
            seconds[threads] = min(taken)
    finally:
        torch.set_num_threads(before)
    return seconds


def _enough(taken: Sequence[float]) -> bool:
    """Whether the calls so far tell how long one takes. The first may load what its number of
    threads needs, so it is enough only where it is so long that this does not matter."""
    if len(taken) == 1:
        return taken[0] > _LONG_S
    return sum(taken) > _ENOUGH_S
