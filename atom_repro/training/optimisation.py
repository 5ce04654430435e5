"""The optimiser and schedules of fine-tuning: AdamW in named groups, and rates that are functions
of the step alone, so that a resumed run needs no state of a schedule.

Two rules of each stand side by side: ours, under which a model that starts from nothing learns
soonest, and the one that mPLUG-2 was released with, which the paper follows (section 5.1).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from atom_repro.datatypes import AtomError

# What the released code leaves undecayed: parameters whose names hold one of these.
_UNDECAYED = ("bias", "LayerNorm.weight")

# The learning rate of an iteration, given that of the group it is for.
Schedule = Callable[[int, float], float]


def decays_matrices(name: str, parameter: nn.Parameter) -> bool:
    """Ours: matrices and kernels, and not norms, biases or the class token."""
    return parameter.dim() > 1


def decays_as_released(name: str, parameter: nn.Parameter) -> bool:
    """All but biases and BERT's norms, by name: CLIP's norms, position and class embeddings and
    latents decay too.

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
) -> list[dict[str, Any]]:
    """Groups for an optimiser, by learning rate and decay; empty ones are left out.

    Args:
        parameters: by name, each once; frozen ones are left out.
        decay_rule: `matrices` or `released`.
        visual_learning_rate: of what `is_visual`; None for the same rate everywhere.

    Raises:
        AtomError: no rule of that name.
    """
    if decay_rule not in _DECAY_RULES:
        raise AtomError(f"train.decay_rule={decay_rule!r} is none of {', '.join(_DECAY_RULES)}")
    decays = _DECAY_RULES[decay_rule]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    rates = (
        [learning_rate] if visual_learning_rate is None else [learning_rate, visual_learning_rate]
    )
    for rate in rates:
        groups |= {(rate, weight_decay): [], (rate, 0.0): []}
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            visual = visual_learning_rate is not None and is_visual(name)
            decay = weight_decay if decays(name, parameter) else 0.0
            groups[(rates[-1] if visual else rates[0], decay)].append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
        if members
    ]


def adamw(groups: Iterable[dict[str, Any]], *, betas: Sequence[float]) -> torch.optim.AdamW:
    """AdamW over groups that carry their own `lr` and `weight_decay`."""
    first, second = betas
    optimiser = torch.optim.AdamW(list(groups), betas=(first, second))
    for group in optimiser.param_groups:
        group["peak_lr"] = group["lr"]
    return optimiser


def set_rates(optimiser: torch.optim.Optimizer, schedule: Schedule, iteration: int) -> None:
    """Give every group its rate for this iteration."""
    for group in optimiser.param_groups:
        group["lr"] = schedule(iteration, group["peak_lr"])


def warmup_cosine(*, warmup_steps: int, max_steps: int) -> Schedule:
    """Ours: linear to the group's rate over `warmup_steps`, cosine to 0 at `max_steps`."""
    warmup = max(1, min(warmup_steps, max_steps // 2))

    def rate(step: int, peak: float) -> float:
        if step < warmup:
            return peak * ((step + 1) / warmup)
        done = (step - warmup) / max(1, max_steps - warmup)
        return peak * (0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    return rate


@dataclass(frozen=True)
class ReleasedSchedule:
    """mPLUG-2's: linear from `floor` over `warmup` iterations, cosine back to it over the rest.

    The rate is set after each iteration for the next one, so iteration n runs at place n - 1,
    and iteration 0 at `floor`. With `epoch0_quirk`, places 0, 100, 200, … of the first epoch
    (up to 100 warm-ups) read as 0, 1, 2, …: one iteration in a hundred runs at a rate of the
    warm-up. That is what the released loop does, and hardly what was meant.

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
        place = max(0, iteration - 1)
        in_first = place < self.epoch and place <= 100 * self.warmup
        if self.epoch0_quirk and in_first and place % 100 == 0:
            place //= 100
        if place < self.warmup:
            return self.floor + place * (peak - self.floor) / self.warmup
        done = (place - self.warmup) / max(1, self.iterations - self.warmup)
        return self.floor + 0.5 * (peak - self.floor) * (1 + math.cos(math.pi * min(1.0, done)))


def schedule_named(
    name: str, *, warmup: int, floor: float, epoch: int, accumulate: int, steps: int, quirk: bool
) -> Schedule:
    """The schedule of a training of `steps` steps, as a function of the step.

    Args:
        name: `warmup_cosine` or `released`.
        warmup: in steps, for `released` in iterations.
        epoch: iterations of an epoch; a step takes `accumulate` of them, and its rate is that of
            its last one, at which the released loop steps.

    Raises:
        AtomError: no schedule of that name, or a setting that the one named has not.
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
