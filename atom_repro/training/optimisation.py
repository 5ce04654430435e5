"""Parameter groups and learning rate schedules of fine-tuning. Rates are functions of the
step alone, so that a resumed run needs no scheduler state.

There are two rules of each: ours, under which a randomly initialised model learns fastest, and
that of the mPLUG-2 release, which the paper follows (section 5.1).
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from atom_repro.datatypes import AtomError
from atom_repro.training.muon import Muon

# The released code does not decay parameters whose names contain one of these.
_UNDECAYED = ("bias", "LayerNorm.weight")

_IMAGE_WARMUP = 30  # steps

# (iteration, peak learning rate of the group) to the learning rate.
Schedule = Callable[[int, float], float]


def decays_matrices(name: str, parameter: nn.Parameter) -> bool:
    """Our decay rule: matrices and kernels, but not norms, biases or the class token."""
    return parameter.dim() > 1


def decays_as_released(name: str, parameter: nn.Parameter) -> bool:
    """Released decay rule: all but biases and BERT's norms, by name. CLIP's norms, position and
    class embeddings and latents decay too.

    The families of this package keep the released names' "bias" and BERT's "LayerNorm".
    Source: mPLUG-2, `optim/optim_factory.py`.
    """
    return not any(part in name for part in _UNDECAYED)


_DECAY_RULES = {"matrices": decays_matrices, "released": decays_as_released}


def parameter_groups(
    parameters: Mapping[str, nn.Parameter],
    *,
    weight_decay: float,
    decay_rule: str,
    learning_rate: float,
    visual_learning_rate: float | None = None,
    is_visual: Callable[[str], bool] = lambda name: False,
    orthogonal: Collection[int] = (),
) -> list[dict[str, Any]]:
    """Optimiser parameter groups by learning rate and weight decay; empty groups are left out.

    Args:
        parameters: by name, each once; frozen ones are left out.
        decay_rule: `matrices` or `released`.
        visual_learning_rate: of parameters that are `is_visual`; None for one rate for all.
        orthogonal: ids of the parameters whose groups are marked so; see `Muon`.

    Raises:
        AtomError: no rule of that name.
    """
    if decay_rule not in _DECAY_RULES:
        raise AtomError(f"train.decay_rule={decay_rule!r} is none of {', '.join(_DECAY_RULES)}")
    decays = _DECAY_RULES[decay_rule]
    rates = (
        [learning_rate] if visual_learning_rate is None else [learning_rate, visual_learning_rate]
    )
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {
        (rate, decay, kind): []
        for kind in (False, True)
        for rate in rates
        for decay in (weight_decay, 0.0)
    }
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            visual = visual_learning_rate is not None and is_visual(name)
            decay = weight_decay if decays(name, parameter) else 0.0
            rate = rates[-1] if visual else rates[0]
            groups[rate, decay, id(parameter) in orthogonal].append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": decay, "orthogonal": kind}
        for (rate, decay, kind), members in groups.items()
        if members
    ]


def optimiser(groups: Iterable[dict[str, Any]], *, betas: Sequence[float]) -> torch.optim.AdamW:
    """AdamW over groups with their own `lr` and `weight_decay`; Muon if one is `orthogonal`."""
    first, second = betas
    members = list(groups)
    kind = Muon if any(group["orthogonal"] for group in members) else torch.optim.AdamW
    made = kind(members, betas=(first, second))
    for group in made.param_groups:
        group["peak_lr"] = group["lr"]
    return made


def set_learning_rates(
    optimiser: torch.optim.Optimizer, schedule: Schedule, iteration: int
) -> None:
    """Set the learning rate of every group for this iteration."""
    for group in optimiser.param_groups:
        group["lr"] = schedule(iteration, group["peak_lr"])


def warmup_cosine(*, warmup_steps: int, max_steps: int) -> Schedule:
    """Our schedule: linear warm-up over `warmup_steps`, then cosine to 0 at `max_steps`."""
    warmup = max(1, min(warmup_steps, max_steps // 2))

    def rate(step: int, peak: float) -> float:
        if step < warmup:
            return peak * ((step + 1) / warmup)
        progress = (step - warmup) / max(1, max_steps - warmup)
        return peak * (0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

    return rate


def images_first(schedule: Schedule, *, image_steps: int, ratio: float) -> Schedule:
    """A warm-up and a cosine of their own for the steps of single frames, then `schedule`.

    Args:
        ratio: their peak rate over that of captioning.
    """
    if not image_steps:
        return schedule
    of_images = warmup_cosine(warmup_steps=_IMAGE_WARMUP, max_steps=image_steps)

    def rate(step: int, peak: float) -> float:
        if step < image_steps:
            return of_images(step, peak * ratio)
        return schedule(step - image_steps, peak)

    return rate


@dataclass(frozen=True)
class ReleasedSchedule:
    """mPLUG-2's schedule: linear from `floor` over `warmup` iterations, then cosine back to it.

    The rate is set after each iteration for the next one, so iteration n runs at position n - 1,
    and iteration 0 at `floor`. With `epoch0_quirk`, positions 0, 100, 200, … of the first epoch
    (up to 100 warm-ups) count as 0, 1, 2, …: one iteration in a hundred runs at a warm-up rate.
    That is what the released loop does, probably by mistake.

    Args:
        epoch: iterations of one epoch.
        iterations: of all epochs together.
    Source: mPLUG-2, `video_caption_mplug2.py` and `scheduler/`.
    """

    warmup: int
    floor: float
    epoch: int
    iterations: int
    epoch0_quirk: bool = False

    def __call__(self, iteration: int, peak: float) -> float:
        position = max(0, iteration - 1)
        in_first = position < self.epoch and position <= 100 * self.warmup
        if self.epoch0_quirk and in_first and position % 100 == 0:
            position //= 100
        if position < self.warmup:
            return self.floor + position * (peak - self.floor) / self.warmup
        progress = (position - self.warmup) / max(1, self.iterations - self.warmup)
        return self.floor + 0.5 * (peak - self.floor) * (1 + math.cos(math.pi * min(1.0, progress)))


def make_schedule(
    name: str, *, warmup: int, floor: float, epoch: int, accumulate: int, steps: int, quirk: bool
) -> Schedule:
    """Make the schedule of a training of `steps` steps, as a function of the step.

    Args:
        name: `warmup_cosine` or `released`.
        warmup: in steps, for `released` in iterations.
        epoch: iterations of an epoch; a step takes `accumulate` of them, and its rate is that of
            its last one, after which the released loop updates the weights.

    Raises:
        AtomError: an unknown schedule, or a setting that the schedule does not have.
    """
    if name == "released":
        released = ReleasedSchedule(warmup, floor, epoch, steps * accumulate, quirk)
        return lambda step, peak: released((step + 1) * accumulate - 1, peak)
    if name != "warmup_cosine":
        raise AtomError(f"train.schedule={name!r} is neither 'warmup_cosine' nor 'released'")
    if floor or quirk:
        raise AtomError(
            "train.floor_learning_rate and train.epoch0_quirk belong to train.schedule=released"
        )
    return warmup_cosine(warmup_steps=warmup, max_steps=steps)
