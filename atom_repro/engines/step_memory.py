"""What the tensors of a training step need at their peak, found without the memory they need.

The step runs once on tensors that have shapes and no contents, and what is alive is counted as it
goes: forward, recomputed blocks and backward, whatever the family. So a step that does not fit is
refused before weights are read, and `MeasuredPeak` says afterwards how right the estimate was.
"""

import os
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from atom_repro.device.memory import PeakSampler, anonymous_bytes
from atom_repro.device.room import require_memory
from atom_repro.models.checkpointing import blocks

_ADAM_STATES = 2  # the running means of the gradient and of its square


@dataclass(frozen=True)
class StepMemory:
    """Bytes of the process that takes most: `parameters` as it holds them, the `gradients` and
    optimiser `states` of those that are trained, and at the `peak` all of these with activations,
    copies and exchanges."""

    parameters: int
    gradients: int
    states: int
    peak: int


def step_memory(
    make_network: Callable[[], nn.Module],
    parts: Iterable[dict[str, Any]],
    *,
    precision: str,
    processes: int = 1,
    shard: bool = False,
) -> StepMemory:
    """Run a step's micro-batches on tensors without contents.

    Padding cannot be seen there, so every token counts as one to predict: the estimate leans to
    the large side. Kernels' workspaces and the allocator's rounding are not in it.

    Args:
        make_network: the model whose forward is the loss, with what is frozen, adapted and
            recomputed set up; called in here.
        parts: micro-batches as `TrainingSteps` gives them; only shapes are read.
        precision: `fp32` or `bf16` (autocast).
        processes: that share the batch; they exchange a copy of the gradients.
        shard: whether they share out parameters, gradients and states too.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), _LiveBytes() as live:
        network = make_network()
        network.train()
        parameters = live.now
        for part in parts:
            shapes = {n: _without_contents(v) for n, v in part.items()}
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss, _ = network(shapes)
            loss.backward()
            del loss, shapes
        gradients = sum(_size(p) for p in network.parameters() if p.requires_grad)
        held, peak = parameters + gradients, live.peak
        if shard:
            # Each holds its share; blocks are whole while they compute, and the next beside them.
            # The first process also keeps a whole copy, which it validates with.
            whole = [sum(_size(p) for p in block.parameters()) for block in blocks(network)]
            rest = sum(_size(p) for p in network.parameters()) - sum(whole)
            peak += 2 * (rest + 2 * max(whole, default=0)) + parameters
            peak -= held - held // processes
            parameters, gradients = parameters // processes, gradients // processes
        elif processes > 1:
            peak += gradients
    states = _ADAM_STATES * gradients
    return StepMemory(parameters, gradients, states, peak + states)


def require_step_memory(needed: StepMemory, device: torch.device) -> None:
    """
    Raises:
        AtomError: the processes of this machine find less than they need together.
    """
    there, beside = None, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type == "cuda":
        there, beside = torch.cuda.mem_get_info(device)[0], 1
    require_memory(
        needed.peak * beside,
        "a training step",
        there=there,
        remedy="lower train.batch_size (and raise train.accumulate), set "
        "train.gradient_checkpointing=true, or freeze or adapt parts with train.components",
    )


class MeasuredPeak:
    """The most memory that the first steps took, above what was held when this was made.

    The optimiser's states are there from the second step on. On a GPU its allocator counts; on a
    CPU the process's anonymous memory is sampled, which holds kernels' workspaces and the
    allocator's rounding too.
    """

    def __init__(self, device: torch.device, steps: int = 3) -> None:
        self._device, self._left = device, steps
        self._sampler: PeakSampler | None = None
        if device.type == "cuda":
            self._before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._before = anonymous_bytes()
            self._sampler = PeakSampler()
        self.bytes: int | None = None

    def step_done(self) -> None:
        self._left -= 1
        if self._left == 0:
            most = (
                self._sampler.stop()
                if self._sampler
                else torch.cuda.max_memory_allocated(self._device)
            )
            self.bytes = most - self._before


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, and answers what depends on contents."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index.Tensor and _is_mask(args[1]):
            (mask,) = args[1]
            out = args[0].flatten(0, mask.dim() - 1).clone()
        elif func is torch.ops.aten._local_scalar_dense.default:
            return args[0].dtype.is_floating_point  # no condition holds; a count is harmless
        else:
            out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._alive:
            return
        self._alive.add(id(storage))
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, id(storage), size)

    def _drop(self, storage: int, size: int) -> None:
        self._alive.remove(storage)
        self.now -= size


def _is_mask(indices: Any) -> bool:
    return len(indices) == 1 and indices[0] is not None and indices[0].dtype == torch.bool


def _without_contents(value: Any) -> Any:
    if isinstance(value, float):
        return value
    return torch.empty(value.shape, dtype=torch.from_numpy(value[:0]).dtype)


def _size(parameter: Tensor) -> int:
    return parameter.numel() * parameter.element_size()
