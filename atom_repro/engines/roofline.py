"""Roofline model of captioning: operations and bytes of one caption, and lower bounds in seconds.

Counted on fake tensors, without weights or memory. With a device's measured `limits` they bound a
stage from below: the encoder multiplies, and each step of the decoder reads all its weights and
the keys and values so far.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count

from atom_repro.datatypes import CaptionWork
from atom_repro.device.limits import Rates
from atom_repro.models.generation import GenerationSettings
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.visual_tokens import VisualTokens
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant.recipe import Quantiser, weights_by_storage

_aten = torch.ops.aten


class ChangesVisualTokens(Protocol):
    """What is counted of a stage between encoder and decoder (see `runtime.visual_stages`)."""

    def example(self, visual: VisualTokens) -> VisualTokens: ...


def caption_work(
    model: VideoLanguageModel,
    tokenizer: Tokenizer,
    settings: GenerationSettings,
    quantiser: Quantiser,
    visual_stages: Sequence[ChangesVisualTokens] = (),
) -> CaptionWork:
    """Count the work of one clip's caption of `settings.max_new_tokens` tokens.

    Weights are counted as the quantiser stores them. Keys and values are fp32, or bf16 where the
    quantiser multiplies so, at their mean length. Of stages between encoder and decoder the number
    of tokens counts, not their own work.
    """
    encoder_config = model.encoder
    # What no quantiser of linear layers changes: attention, convolutions, keys and values.
    unquantised = torch.bfloat16 if quantiser.arithmetic == "bf16" else torch.float32
    with FakeTensorMode(), ShapeOnlyDispatch(), torch.inference_mode():
        with _default_dtype(unquantised):  # fake modules refuse .to(dtype)
            encoder = cast(Any, model.make_encoder()).eval()
            decoder = cast(Any, model.make_decoder()).eval()
        size = encoder_config.image_size
        frames = torch.empty(1, encoder_config.frames, 3, size, size, dtype=torch.uint8)
        with count_flops() as encoding:
            visual = encoder(frames)
        for stage in visual_stages:
            visual = stage.example(visual)
        ids = model.prompt_ids(tokenizer, model.prompt, visual=visual)
        with count_flops() as prefilling:
            _, cache = decoder.start(visual, ids)
        cache.open(settings.beams, settings.max_new_tokens)
        with _ReadStorages() as read, count_flops() as stepping:
            decoder.step(torch.zeros(1, settings.beams, dtype=torch.long), cache)
        weights = weights_by_storage(decoder)
        cache.length = settings.max_new_tokens // 2
        step_bytes = cache.bytes() + sum(
            quantiser.bytes_of(*weights[key]) for key in weights.keys() & read.storages
        )
    return CaptionWork(
        encode_operations=encoding.get_total_flops(),
        prefill_operations=prefilling.get_total_flops(),
        step_bytes=step_bytes,
        steps=settings.max_new_tokens - 1,
        encode_fp32_operations=_left_in_fp32(encoding, unquantised),
        prefill_fp32_operations=_left_in_fp32(prefilling, unquantised),
        step_operations=stepping.get_total_flops(),
    )


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Context in which new parameters have this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _left_in_fp32(counter: FlopCounterMode, unquantised: torch.dtype) -> int:
    """Operations other than those of linear layers, if these are in fp32."""
    if unquantised != torch.float32:
        return 0
    by_operator = counter.get_flop_counts()["Global"]
    return sum(count for op, count in by_operator.items() if op not in (_aten.mm, _aten.addmm))


def roofline_values(
    work: CaptionWork, arithmetic: str, before: Rates, after: Rates
) -> dict[str, Any]:
    """Record values: a caption's work, the device's rates and the lower bounds. Rates are measured
    before and after; the higher of the two counts."""
    fastest = {name: max(rate, after.values[name]) for name, rate in before.values.items()}
    return {
        **rate_values(before, after),
        "arithmetic": arithmetic,
        "least_work_per_clip": asdict(work),
        "least_s_per_clip": work.lower_bound_s(fastest, arithmetic),
    }


def rate_values(before: Rates, after: Rates) -> dict[str, Any]:
    """Record values: the device's rates, measured before and after."""
    return {
        "limits_before": before.values,
        "limits_after": after.values,
        "limit_kernels": after.kernels,
    }


class _ReadStorages(TorchDispatchMode):
    """Collects the storages that operations read as a whole: all arguments but embedding tables, of
    which only some rows are read."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.embedding.default:
            self.storages |= {
                id(leaf.untyped_storage()) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)
            }
        return func(*args, **(kwargs or {}))


def count_flops() -> FlopCounterMode:
    """Context that counts operations, forward and backward (`get_total_flops`). torch's own counts
    the attention kernels of GPUs only, so those of CPUs are added."""
    kernels: dict[Any, Any] = {
        _aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations,
        _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_operations,
    }
    return FlopCounterMode(display=False, custom_mapping=kernels)


def _attention_operations(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    # Not torch's sdpa_flop_count, which refuses grouped heads before 2.13.
    (B, H, S, C), (L, D) = q, v[-2:]
    return int(2 * B * H * S * L * (C + D))


def _attention_backward_operations(
    grad: Any, q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(grad, q, k, v))


class ShapeOnlyDispatch(TorchDispatchMode):
    """Handles operations that depend on tensor values inside torch's FakeTensorMode: conditions are
    false, numbers are one, and a mask selects everything."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index.Tensor and _is_mask(args[1]):
            (mask,) = args[1]
            return args[0].flatten(0, mask.dim() - 1).clone()
        if func is torch.ops.aten._local_scalar_dense.default:
            return args[0].dtype != torch.bool
        return func(*args, **(kwargs or {}))


def _is_mask(indices: Any) -> bool:
    return len(indices) == 1 and indices[0] is not None and indices[0].dtype == torch.bool
