"""The work that no implementation of a module can leave out, counted without weights or memory.

Held against a device's `limits`, it gives the least time of a stage: the encoder multiplies, and
each step of the decoder reads all its weights and the keys and values so far.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from atom_repro.models.generation import GenerationSettings
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import VideoLanguageModel

_aten = torch.ops.aten


@dataclass(frozen=True)
class LeastWork:
    """Of one clip: `operations` are multiplications and additions in matrix products, `bytes` what
    is read from memory."""

    encode_operations: int
    prefill_operations: int
    step_bytes: int
    steps: int

    def least_s(self, limits: Mapping[str, float], precision: str) -> dict[str, float]:
        """Seconds by stage that the rates allow at the best; nothing for a rate that is not
        there."""
        multiply = limits.get(f"{precision}_operations_per_s")
        if not multiply:
            return {}
        reading = self.steps * self.step_bytes / limits["read_bytes_per_s"]
        return {
            "encode": self.encode_operations / multiply,
            "caption": self.prefill_operations / multiply + reading,
        }


def least_work(
    model: VideoLanguageModel, tokenizer: Tokenizer, settings: GenerationSettings, precision: str
) -> LeastWork:
    """The work of one clip's caption of `settings.max_new_tokens` tokens.

    In int8 the matrices are a byte a weight and a fp32 scale a row, and the rest is fp32 as in the
    paper's recipe. Keys and values, fp32 too, are counted at their mean length.
    """
    numbers = model.encoder
    with FakeTensorMode(), WithoutContents(), torch.inference_mode():
        encoder = cast(Any, model.make_encoder()).eval()
        decoder = cast(Any, model.make_decoder()).eval()
        size = numbers.image_size
        frames = torch.empty(1, numbers.frames, 3, size, size, dtype=torch.uint8)
        with operations() as encoding:
            visual = encoder(frames)
        ids = model.prompt_ids(tokenizer, model.prompt, visual=True)
        with operations() as prefilling:
            _, cache = decoder.start(visual, ids)
        cache.open(settings.beams, settings.max_new_tokens)
        with _Read() as read:
            decoder.step(torch.zeros(1, settings.beams, dtype=torch.long), cache)
        weights = {id(p.untyped_storage()): p for p in decoder.parameters()}
        cache.length = settings.max_new_tokens // 2
        step_bytes = cache.bytes() + sum(
            _stored(weight, precision) for key, weight in weights.items() if key in read.storages
        )
    return LeastWork(
        encode_operations=encoding.get_total_flops(),
        prefill_operations=prefilling.get_total_flops(),
        step_bytes=step_bytes,
        steps=settings.max_new_tokens - 1,
    )


def beside_limits(
    work: LeastWork, precision: str, before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, Any]:
    """What a record says of a clip's least work and the rates of the device, which are measured
    before and after: the higher of the two counts."""
    fastest = {name: max(before[name], after[name]) for name in before}
    return {
        "limits_before": dict(before),
        "limits_after": dict(after),
        "least_work_per_clip": asdict(work),
        "least_s_per_clip": work.least_s(fastest, precision),
    }


def _stored(weight: Tensor, precision: str) -> int:
    if precision == "int8" and weight.dim() == 2:
        return weight.numel() + 4 * weight.shape[0]
    return 4 * weight.numel()


class _Read(TorchDispatchMode):
    """The storages that are read as a whole: all that an operation takes, but for the table of an
    embedding, of which it reads some rows."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.embedding.default:
            self.storages |= {
                id(leaf.untyped_storage()) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)
            }
        return func(*args, **(kwargs or {}))


def operations() -> FlopCounterMode:
    """A context that counts, forward and backward; `get_total_flops` says how many. torch's own
    counts the attention kernels of GPUs only."""
    kernels: dict[Any, Any] = {
        _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=kernels)


def _attention(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))


def _attention_backward(
    grad: Any, q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(grad, q, k, v))


class WithoutContents(TorchDispatchMode):
    """Answers what depends on contents, for use inside torch's FakeTensorMode: no condition holds,
    every number is one, and a mask leaves everything in."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index.Tensor and _is_mask(args[1]):
            (mask,) = args[1]
            return args[0].flatten(0, mask.dim() - 1).clone()
        if func is torch.ops.aten._local_scalar_dense.default:
            return args[0].dtype != torch.bool
        return func(*args, **(kwargs or {}))


def _is_mask(indices: Any) -> bool:
    return len(indices) == 1 and indices[0] is not None and indices[0].dtype == torch.bool
