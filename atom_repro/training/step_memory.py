"""Estimated and measured peak memory of a training step.

The step runs once on fake tensors (shapes without data), and the bytes of live storages are
counted: forward, recomputed blocks and backward, for any family. So a step that does not fit is
refused before weights are read, and `MeasuredPeak` shows afterwards how accurate the estimate was.
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
from atom_repro.device.memory import PeakSampler, anonymous_bytes, is_measurable
from atom_repro.engines.roofline import ShapeOnlyDispatch
from atom_repro.training.checkpointing import blocks

_ADAM_STATES = 2  # the running means of the gradient and of its square; Muon has the first alone
# What a CPU process holds beside a step's tensors, at most, as shares of the activations and of
# what is held between steps: glibc keeps freed blocks below its mmap threshold (32 MiB at most, so
# larger weights cost nothing), kernels have workspaces. Set above every step in
# results/tables/training_step.md, where the process held 1.15 to 1.41 times the tensors.
_KEPT_OF_ACTIVATIONS, _KEPT_OF_HELD = 0.4, 0.2
_KEPT_OF_HELD_LIMIT, _WORKSPACES = 512 * 2**20, 64 * 2**20


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one process: `parameters`, the `gradients` and optimiser `states` of trained ones,
    and the `peak` of all of these with activations and communication buffers. `kept` is what
    allocator and kernels may hold beside these tensors.

    With sharding, the first process also has a `whole` copy of the network for validation, and
    while saving the full state in main memory: `gathered`.
    """

    parameters: int
    gradients: int
    states: int
    peak: int
    whole: int = 0
    gathered: int = 0
    kept: int = 0

    @property
    def bound(self) -> int:
        """Upper bound of a process's memory in a step."""
        return self.peak + self.kept


def step_memory(
    make_network: Callable[[], nn.Module],
    micro_batches: Sequence[dict[str, Any]],
    *,
    precision: str,
    processes: int = 1,
    shard: bool = False,
    device: str = "cpu",
) -> StepMemory:
    """Estimate the memory of a step by running its micro-batches on fake tensors.

    Padding is not visible there, so every token counts as a target: the estimate tends to be too
    large. On a CPU it has a margin for what allocator and kernels keep (`kept`).

    Args:
        make_network: builds the network whose forward is the loss, with frozen, adapted and
            recomputed parts; called inside the fake mode.
        micro_batches: micro-batches as `TrainingSteps` gives them; only shapes are read.
        precision: `fp32` or `bf16` (autocast).
        processes: number that share the batch; they exchange a copy of the gradients.
        shard: whether parameters, gradients and states are sharded too.
        device: device type; on a GPU AdamW updates all parameters at once, which takes as much
            memory again as the gradients.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), _LiveBytes() as live:
        network = make_network()
        network.train()
        parameters = live.current
        for batch in micro_batches[:2]:  # later ones start from the same memory as the second
            shapes = {n: _empty_like(v) for n, v in batch.items()}
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss, _ = network(shapes)
            loss.backward()
            del loss, shapes
        gradients = sum(_parameter_bytes(p) for p in network.parameters() if p.requires_grad)
    update = parameters + gradients + (gradients if device == "cuda" else 0)
    peak, whole = max(live.peak, update) + _ADAM_STATES * gradients, parameters
    if not shard:
        if processes > 1:
            peak += gradients  # DDP's buckets
        states = _ADAM_STATES * gradients
        kept = _kept(peak, parameters + gradients + states, device)
        return StepMemory(parameters, gradients, states, peak, kept=kept)
    # Each process holds its shard; the running block and the next one are unsharded.
    sizes = [sum(_parameter_bytes(p) for p in block.parameters()) for block in blocks(network)]
    rest = sum(_parameter_bytes(p) for p in network.parameters()) - sum(sizes)
    states = _ADAM_STATES * gradients
    persistent = parameters + gradients + states
    peak += persistent // processes - persistent + 2 * (rest + 2 * max(sizes, default=0))
    return StepMemory(
        parameters // processes,
        gradients // processes,
        states // processes,
        peak,
        whole=whole,
        gathered=whole + states,
        kept=_kept(peak, persistent // processes, device),
    )


def _kept(peak: int, held: int, device: str) -> int:
    if device != "cpu":
        return 0
    of_held = min(_KEPT_OF_HELD * held, _KEPT_OF_HELD_LIMIT)
    return round(_KEPT_OF_ACTIVATIONS * max(0, peak - held) + of_held + _WORKSPACES)


def require_step_memory(estimate: StepMemory, device: torch.device) -> None:
    """Check that the processes of this machine have enough memory for a step.

    Raises:
        AtomError: they need more than is available.
    """
    if device.type == "cuda":
        available, required = torch.cuda.mem_get_info(device)[0], estimate.bound + estimate.whole
    else:
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        available, required = (
            None,
            estimate.bound * local_processes + estimate.whole + estimate.gathered,
        )
    require_memory(
        required,
        "a training step",
        available=available,
        remedy="lower train.batch_size (and raise train.accumulate), set "
        "train.gradient_checkpointing=true, or freeze or adapt parts with train.components",
    )


class MeasuredPeak:
    """Measured peak memory of the first steps of a run, above what was allocated at construction.

    The optimiser's states exist from the second step on. On a GPU its allocator counts; on a CPU
    the process's anonymous memory is sampled, which includes freed blocks that glibc keeps: a third
    to a half of a small model's step, almost none with MALLOC_MMAP_THRESHOLD_=65536. `bytes` is
    None where the system does not report memory, or before the end.
    """

    def __init__(self, device: torch.device, steps: int = 3) -> None:
        self._device, self._remaining_steps = device, steps
        self._baseline = self._allocated_bytes()
        self._sampler: PeakSampler | None = None
        self.bytes: int | None = None

    def _allocated_bytes(self) -> int | None:
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        return anonymous_bytes() if is_measurable() else None

    def start(self) -> None:
        """Start measuring; peaks of loading before do not count."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._baseline is not None:
            self._sampler = PeakSampler()

    def step_done(self) -> None:
        self._remaining_steps -= 1
        if self._remaining_steps == 0:
            self.stop()

    def stop(self) -> None:
        """Stop measuring, before a validation or at the end; a second call does nothing."""
        if self._baseline is None or self.bytes is not None:
            return
        if self._sampler:
            self.bytes = self._sampler.stop().anonymous - self._baseline
        else:
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._baseline


class _LiveBytes(ShapeOnlyDispatch):
    """Counts the bytes of live storages, now and at the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.current = self.peak = 0
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
        self.current += size
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._remove, id(storage), size)

    def _remove(self, storage: int, size: int) -> None:
        self._alive.remove(storage)
        self.current -= size


def _empty_like(value: Any) -> Any:
    if isinstance(value, float):
        return value
    return torch.empty(value.shape, dtype=torch.from_numpy(value[:0]).dtype)


def _parameter_bytes(parameter: Tensor) -> int:
    return parameter.numel() * parameter.element_size()
