"""Sharding of parameters, gradients and optimiser states across processes (FSDP2).

Uses torch's `fully_shard` directly: accelerate has no sharding for CPU processes, and this runs on
CPUs and GPUs. Names stay those of the unsharded network, and saved states are full, so a run may
go on with another number of processes above one.
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

_FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def process_mesh(device: torch.device, processes: int) -> DeviceMesh:
    """One-dimensional device mesh of all processes.

    Raises:
        AtomError: there is only one process.
    """
    if processes == 1:
        raise AtomError(
            "train.shard=true shards parameters across processes, but there is only one; start "
            "several (torchrun --nproc_per_node 2 -m train.finetune …), or leave it out"
        )
    return init_device_mesh(device.type, (processes,))


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard `network` in place: an FSDP group for each block, and one for the rest, which stays
    unsharded during a step (embeddings and heads are used outside of their modules)."""
    # A decoder layer also returns keys and values, views that training does not touch.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    for block in reversed(blocks(network)):
        if any(True for _ in block.parameters()):
            fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def full_state(network: nn.Module, optimiser: Any) -> dict[str, Any]:
    """Full weights and optimiser states by name, on the CPU. All processes call it, and only the
    first one gets them."""
    return {
        "network": get_model_state_dict(network, options=_FULL_STATE),
        "optimiser": get_optimizer_state_dict(network, optimiser, options=_FULL_STATE),
    }


def restore_state(network: nn.Module, optimiser: Any, state: dict[str, Any]) -> None:
    """Load what `full_state` returned; each process has read all of it."""
    set_model_state_dict(network, state["network"], options=StateDictOptions(full_state_dict=True))
    # Parameters that no step has reached yet have no optimiser state, and torch would make one.
    options = StateDictOptions(full_state_dict=True, strict=False)
    set_optimizer_state_dict(network, optimiser, state["optimiser"], options=options)
    reached = {
        id(parameter)
        for name, parameter in network.named_parameters(remove_duplicate=False)
        if name in state["optimiser"]["state"]
    }
    for parameter in list(optimiser.state):
        if id(parameter) not in reached:
            del optimiser.state[parameter]


class FullNetwork(Generic[Trained]):
    """Unsharded view of a network in training: the network itself, or if it is sharded, a full copy
    in the process that needs one.

    Args:
        make_network: builds the copy; None in a process that needs none.
    """

    def __init__(self, network: Trained, make_network: Callable[[], Trained] | None) -> None:
        self._trained, self._copy = network, None
        if isinstance(network, FSDPModule) and make_network:
            with torch.random.fork_rng(devices=[]):  # other processes draw no random numbers here
                self._copy = make_network().to(next(network.parameters()).device)

    def gathered(self) -> Trained | None:
        """Gather the current weights. All processes call it; None in one that needs no copy."""
        if not isinstance(self._trained, FSDPModule):
            return self._trained
        weights = get_model_state_dict(self._trained, options=_FULL_STATE)
        if self._copy is not None:
            self._copy.load_state_dict(weights)
        return self._copy
