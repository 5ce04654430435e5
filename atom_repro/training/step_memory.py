"""What the tensors of a training step need at their peak, found without the memory they need.

The step runs once on tensors that have shapes and no contents, and what is alive is counted as it
goes: forward, recomputed blocks and backward, whatever the family. So a step that does not fit is
refused before weights are read, and `MeasuredPeak` says afterwards how right the estimate was.
"""

import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from atom_repro.device.capacity import require_memory
from atom_repro.device.memory import STATUS, PeakSampler, anonymous_bytes
from atom_repro.engines.roofline import WithoutContents
from atom_repro.training.checkpointing import blocks

_ADAM_STATES = 2  # the running means of the gradient and of its square


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a process: `parameters` as it holds them, the `gradients` and optimiser `states` of
    those that are trained, and at the `peak` all of these with activations and exchanges.

    Where parameters are shared out, the first process also has a `whole` copy, to validate with,
    and now and then all that is saved in main memory: `gathered`.
    """

    parameters: int
    gradients: int
    states: int
    peak: int
    whole: int = 0
    gathered: int = 0


def step_memory(
    make_network: Callable[[], nn.Module],
    parts: Sequence[dict[str, Any]],
    *,
    precision: str,
    processes: int = 1,
    shard: bool = False,
    device: str = "cpu",
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
        device: type of it; a GPU's AdamW works on all parameters at once, for which it needs as
            much again as the gradients take.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), _LiveBytes() as live:
        network = make_network()
        network.train()
        parameters = live.now
        for part in parts[:2]:  # those after the second find what the second finds
            shapes = {n: _without_contents(v) for n, v in part.items()}
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss, _ = network(shapes)
            loss.backward()
            del loss, shapes
        gradients = sum(_size(p) for p in network.parameters() if p.requires_grad)
    update = parameters + gradients + (gradients if device == "cuda" else 0)
    peak, whole = max(live.peak, update) + _ADAM_STATES * gradients, parameters
    if not shard:
        if processes > 1:
            peak += gradients  # DDP's buckets
        return StepMemory(parameters, gradients, _ADAM_STATES * gradients, peak)
    # Each holds its share; a block is whole while it computes, and the next beside it.
    sizes = [sum(_size(p) for p in block.parameters()) for block in blocks(network)]
    rest = sum(_size(p) for p in network.parameters()) - sum(sizes)
    states = _ADAM_STATES * gradients
    held = parameters + gradients + states
    peak += held // processes - held + 2 * (rest + 2 * max(sizes, default=0))
    return StepMemory(
        parameters // processes,
        gradients // processes,
        states // processes,
        peak,
        whole=whole,
        gathered=whole + states,
    )


def require_step_memory(needed: StepMemory, device: torch.device) -> None:
    """
    Raises:
        AtomError: the processes of this machine find less than they need together.
    """
    if device.type == "cuda":
        there, wanted = torch.cuda.mem_get_info(device)[0], needed.peak + needed.whole
    else:
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        there, wanted = None, needed.peak * beside + needed.whole + needed.gathered
    require_memory(
        wanted,
        "a training step",
        there=there,
        remedy="lower train.batch_size (and raise train.accumulate), set "
        "train.gradient_checkpointing=true, or freeze or adapt parts with train.components",
    )


class MeasuredPeak:
    """The most memory in the first steps of a run, above what was held when this was made.

    The optimiser's states are there from the second step on. On a GPU its allocator counts; on a
    CPU the process's anonymous memory is sampled, in which is also what glibc keeps of freed
    blocks: a third to a half of a small model's step, next to nothing with
    MALLOC_MMAP_THRESHOLD_=65536. `bytes` is None where the system does not say, or before the end.
    """

    def __init__(self, device: torch.device, steps: int = 3) -> None:
        self._device, self._left = device, steps
        self._before = self._held()
        self._sampler: PeakSampler | None = None
        self.bytes: int | None = None

    def _held(self) -> int | None:
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        return anonymous_bytes() if STATUS.is_file() else None

    def start(self) -> None:
        """Training begins: what loading took for a while does not count."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._before is not None:
            self._sampler = PeakSampler()

    def step_done(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.stop()

    def stop(self) -> None:
        """Before a validation, or at the end; a second call does nothing."""
        if self._before is None or self.bytes is not None:
            return
        if self._sampler:
            self.bytes = self._sampler.stop() - self._before
        else:
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._before


class _LiveBytes(WithoutContents):
    """Counts the bytes of the storages that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
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


def _without_contents(value: Any) -> Any:
    if isinstance(value, float):
        return value
    return torch.empty(value.shape, dtype=torch.from_numpy(value[:0]).dtype)


def _size(parameter: Tensor) -> int:
    return parameter.numel() * parameter.element_size()
