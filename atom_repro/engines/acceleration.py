"""On what a training runs: its precision, and the processes that share its steps."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator

from atom_repro.data.training_steps import Processes
from atom_repro.datatypes import AtomError


def training_precision(setting: str) -> str:
    """`bf16` or `fp32`. On a processor without instructions for it bf16 is emulated, at a tenth
    of the speed of fp32; `auto` takes what is fast.

    Raises:
        AtomError: the setting is none of those.
    """
    if setting not in ("bf16", "fp32", "auto"):
        raise AtomError(f"train.precision={setting!r} is none of bf16, fp32, auto")
    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"


def accelerator_for(*, precision: str, accumulate: int) -> Accelerator:
    """Of this process; `accelerate launch` says how many there are."""
    return Accelerator(
        mixed_precision="bf16" if precision == "bf16" else "no",
        gradient_accumulation_steps=accumulate,
    )


def processes(accelerator: Accelerator) -> Processes:
    return Processes(accelerator.process_index, accelerator.num_processes)


def on_device(part: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A micro-batch with its arrays as tensors; weights stay floats."""
    return {
        name: value if isinstance(value, float) else torch.from_numpy(value).to(device)
        for name, value in part.items()
    }
