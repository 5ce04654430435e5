"""A network whose parameters, gradients and optimiser states are shared out between processes.

torch's `fully_shard` (FSDP2), the one that accelerate calls where it knows the device: accelerate
has none for CPU processes, and this runs on those and on GPUs. Names stay those of the whole
network, and what is saved is whole, so a run may go on with another number of processes above one.
"""

import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from atom_repro.datatypes import AtomError
from atom_repro.training.checkpointing import blocks

Trained = TypeVar("Trained", bound=nn.Module)

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def process_mesh(device: torch.device, processes: int) -> DeviceMesh:
    """All processes in a row.

    Raises:
        AtomError: one process has nobody to share with.
    """
    if processes == 1:
        raise AtomError(
            "train.shard=true shares parameters out between processes, and this is one; start "
            "several (torchrun --nproc_per_node 2 -m train.finetune …), or leave it out"
        )
    return init_device_mesh(device.type, (processes,))


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Share `network` out, in place: a group of parameters for each block, and one of the rest,
    which stays whole during a step (embeddings and heads are used apart from their modules)."""
    # A decoder layer also returns keys and values, views that training does not touch.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    for block in reversed(blocks(network)):
        if any(True for _ in block.parameters()):
            fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def whole_state(network: nn.Module, optimiser: Any) -> dict[str, Any]:
    """Weights and optimiser states by name, on the CPU. All processes call it, and the first one
    gets them."""
    return {
        "network": get_model_state_dict(network, options=_WHOLE),
        "optimiser": get_optimizer_state_dict(network, optimiser, options=_WHOLE),
    }


def restore_state(network: nn.Module, optimiser: Any, state: dict[str, Any]) -> None:
    """Put back what `whole_state` gave; each process has read all of it."""
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(network, state["network"], options=options)
    set_optimizer_state_dict(network, optimiser, state["optimiser"], options=options)


class WholeNetwork(Generic[Trained]):
    """The whole of a network that trains: the network itself, and if it is shared out, a copy
    in the process that has a use for one.

    Args:
        make: makes an empty one; None in a process that needs none.
    """

    def __init__(self, network: Trained, make: Callable[[], Trained] | None) -> None:
        self._trained, self._copy = network, None
        if isinstance(network, FSDPModule) and make:
            with torch.random.fork_rng(devices=[]):  # the others draw nothing here
                self._copy = make().to(next(network.parameters()).device)

    def refreshed(self) -> Trained | None:
        """As trained by now. All processes call it; None in one that needs none."""
        if not isinstance(self._trained, FSDPModule):
            return self._trained
        weights = get_model_state_dict(self._trained, options=_WHOLE)
        if self._copy is not None:
            self._copy.load_state_dict(weights)
        return self._copy
