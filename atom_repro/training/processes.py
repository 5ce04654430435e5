"""Device, precision and processes of a training, through accelerate.

`torchrun` starts the processes; `accelerate launch --cpu --num_processes 2` starts only one where
MPI is missing. The record has their number.
"""

import warnings
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    parse_flag_from_env,
)

from atom_repro.config.schemas import TrainConfig
from atom_repro.datatypes import AtomError
from atom_repro.device.cuda import gpu_name
from atom_repro.training.training_steps import Processes

# The others wait while the first process makes a data set, decodes it or validates.
_TIMEOUT = timedelta(days=2)


def accelerated_device() -> str:
    """Device type that accelerate will use: a GPU if available and not ACCELERATE_USE_CPU."""
    cpu_only = parse_flag_from_env("ACCELERATE_USE_CPU")
    return "cuda" if torch.cuda.is_available() and not cpu_only else "cpu"


def device_name(device: torch.device) -> str:
    """Name of a device in records, as in `ComputeDevice.name`."""
    return gpu_name(device) if device.type == "cuda" else device.type


def training_precision(setting: str, device: str) -> str:
    """Resolve `train.precision` to `bf16` or `fp32` for a device type. On a processor without bf16
    instructions it is emulated, at a tenth of the speed of fp32; `auto` takes the faster one.

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


def make_accelerator(settings: TrainConfig, *, unused_parameters: bool = False) -> Accelerator:
    """Make the Accelerator of this process.

    Args:
        unused_parameters: whether there are steps that do not reach all parameters.

    Raises:
        AtomError: launched under accelerate's own sharding; `training.sharding` does that.
    """
    device = accelerated_device()
    precision = training_precision(settings.precision, device)
    accelerator = Accelerator(
        cpu=device == "cpu",  # unless told so, it leaves processes without a GPU unconnected
        mixed_precision="bf16" if precision == "bf16" else "no",
        gradient_accumulation_steps=settings.accumulate,
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=_TIMEOUT),
            DistributedDataParallelKwargs(find_unused_parameters=unused_parameters),
        ],
    )
    # Of depthwise kernels, whose dimensions of one have strides that mean nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    refuse_accelerate_sharding(accelerator.distributed_type)
    return accelerator


def refuse_accelerate_sharding(kind: DistributedType) -> None:
    """Refuse FSDP and DeepSpeed launches.

    Raises:
        AtomError: accelerate would shard parameters itself.
    """
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise AtomError(
            f"train.finetune cannot be launched under {kind.value}: launch it without, and set "
            "train.shard=true to shard parameters across processes"
        )


def process_group(accelerator: Accelerator) -> Processes:
    return Processes(accelerator.process_index, accelerator.num_processes)


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Convert a micro-batch's arrays to tensors on a device; weights stay floats."""
    return {
        name: value if isinstance(value, float) else torch.from_numpy(value).to(device)
        for name, value in batch.items()
    }


def mean_over_processes(accelerator: Accelerator, losses: Mapping[str, float]) -> dict[str, float]:
    """Average losses over all processes; a collective call."""
    if accelerator.num_processes == 1:
        return dict(losses)
    values = torch.tensor(list(losses.values()), device=accelerator.device)
    reduced = accelerator.reduce(values, reduction="mean").tolist()
    return dict(zip(losses, reduced, strict=True))
