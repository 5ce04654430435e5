"""On what a training runs: its precision, and the processes that share its steps.

`torchrun` starts them; `accelerate launch --cpu --num_processes 2` starts one where there is no
MPI. The record says how many there were.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs, parse_flag_from_env

from atom_repro.config.schemas import TrainConfig
from atom_repro.datatypes import AtomError
from atom_repro.device.cuda import gpu_name
from atom_repro.training.training_steps import Processes

# The others wait while the first process makes a data set, decodes it or validates.
_LONGEST_WAIT = timedelta(days=2)


def accelerated_device() -> str:
    """The type of device that accelerate will take: a GPU if there is one and none is refused."""
    refused = parse_flag_from_env("ACCELERATE_USE_CPU")
    return "cuda" if torch.cuda.is_available() and not refused else "cpu"


def device_name(device: torch.device) -> str:
    """What records call a device, as `ComputeDevice.name` does."""
    return gpu_name(device) if device.type == "cuda" else device.type


def training_precision(setting: str, device: str) -> str:
    """`bf16` or `fp32` on a type of device. On a processor without instructions for it bf16 is
    emulated, at a tenth of the speed of fp32; `auto` takes what is fast.

    Raises:
        AtomError: the setting is none of those.
    """
    if setting not in ("bf16", "fp32", "auto"):
        raise AtomError(f"train.precision={setting!r} is none of bf16, fp32, auto")
    if setting != "auto":
        return setting
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"


def accelerator_for(settings: TrainConfig) -> Accelerator:
    """Of this process; `accelerate launch` says how many there are.

    Raises:
        AtomError: launched to share parameters out by accelerate; `sharding` does that.
    """
    precision = training_precision(settings.precision, accelerated_device())
    accelerator = Accelerator(
        mixed_precision="bf16" if precision == "bf16" else "no",
        gradient_accumulation_steps=settings.accumulate,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT)],
    )
    refuse_other_sharders(accelerator.distributed_type)
    return accelerator


def refuse_other_sharders(kind: DistributedType) -> None:
    """
    Raises:
        AtomError: accelerate would share parameters out itself.
    """
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise AtomError(
            f"train.finetune cannot be launched under {kind.value}: launch it without, and set "
            "train.shard=true to share parameters out between processes"
        )


def processes(accelerator: Accelerator) -> Processes:
    return Processes(accelerator.process_index, accelerator.num_processes)


def on_device(part: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A micro-batch with its arrays as tensors; weights stay floats."""
    return {
        name: value if isinstance(value, float) else torch.from_numpy(value).to(device)
        for name, value in part.items()
    }


def mean_over_processes(accelerator: Accelerator, losses: Mapping[str, float]) -> dict[str, float]:
    """Losses of this process to those of all; a collective call."""
    if accelerator.num_processes == 1:
        return dict(losses)
    values = torch.tensor(list(losses.values()), device=accelerator.device)
    reduced = accelerator.reduce(values, reduction="mean").tolist()
    return dict(zip(losses, reduced, strict=True))
