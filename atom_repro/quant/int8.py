"""The paper's recipe: int8 on Linear and Embedding with TorchAO (section 4, appendix C).

Linear: int8 weights per row, activations quantised per token at run time. Embedding: int8 weights
per row. Convolutions, norms and bare parameters stay fp32 and are listed in the report. A module
in which nothing changed is an error, not a warning.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.quant.recipe import (
    QuantReport,
    bytes_in_memory,
    is_tensor_subclass,
    skipped_layers,
)


def import_torchao() -> tuple[Any, Any, Any]:
    # Takes seconds to import, and only int8 needs it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchao.prototype.safetensors.safetensors_support as safetensors_support
        import torchao.quantization as quantization
        from torchao.quantization.granularity import PerAxis
    return quantization, PerAxis, safetensors_support


_PAPER_SCHEME = ("dynamic", "weight_only")  # linear, embedding


@dataclass(frozen=True)
class Int8Quantiser:
    """TorchAO int8 quantiser. `linear` is dynamic | weight_only | none; `embedding` is
    weight_only | none."""

    linear: str
    embedding: str
    name: str = "int8"
    is_identity: bool = False

    @property
    def recipe(self) -> str:
        if (self.linear, self.embedding) == _PAPER_SCHEME:
            return self.name
        return f"{self.name}-linear_{self.linear}-embedding_{self.embedding}"

    @property
    def arithmetic(self) -> str:
        return "int8" if self.linear == "dynamic" else "fp32"

    def bytes_of(self, layer: nn.Module, weight: Tensor) -> int:
        changed = {nn.Linear: self.linear, nn.Embedding: self.embedding}.get(type(layer), "none")
        if changed == "none" or weight.dim() != 2:
            return weight.nbytes
        return weight.numel() + 4 * weight.shape[0]  # a fp32 scale for each row

    def quantise(self, module: nn.Module) -> QuantReport:
        quantization, per_axis, _ = import_torchao()
        bytes_before = bytes_in_memory(module)
        recipe_of: dict[type, tuple[str, Any]] = {}
        if self.linear == "dynamic":
            recipe_of[nn.Linear] = (
                "int8 dynamic activation, int8 weight a row",
                quantization.Int8DynamicActivationInt8WeightConfig(),
            )
        elif self.linear == "weight_only":
            recipe_of[nn.Linear] = ("int8 weight a row", quantization.Int8WeightOnlyConfig())
        if self.embedding == "weight_only":
            recipe_of[nn.Embedding] = (
                "int8 weight a row",
                quantization.IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=per_axis(0)),
            )
        # By exact type: nn.MultiheadAttention's out_proj is a subclass of Linear that its fused
        # kernel reads as a plain tensor (the paper's NonDynamicallyQuantizableLinear).
        changed = {
            name: recipe_of[type(child)][0]
            for name, child in module.named_modules()
            if type(child) in recipe_of
        }
        if not changed:
            raise AtomError(
                f"quant=int8 (linear={self.linear}, embedding={self.embedding}) found nothing to "
                f"change in {type(module).__name__}; choose other recipes or quant=none"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for kind, (_, config) in recipe_of.items():
                quantization.quantize_(module, config, lambda m, _, kind=kind: type(m) is kind)
        return QuantReport(
            changed, skipped_layers(module, changed), bytes_before, bytes_in_memory(module)
        )

    def pack(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        # TorchAO's safetensors support needs a dot in every name, so it gets the quantised weights
        # alone; the others are stored unchanged.
        _, _, safetensors_support = import_torchao()
        quantised = {name: t for name, t in state.items() if is_tensor_subclass(t)}
        tensors, metadata = safetensors_support.flatten_tensor_state_dict(quantised)
        tensors |= {name: t.detach() for name, t in state.items() if name not in quantised}
        return {name: t.contiguous() for name, t in tensors.items()}, metadata

    def unpack(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> dict[str, Tensor]:
        _, _, safetensors_support = import_torchao()
        if "tensor_names" not in metadata:
            raise AtomError("the checkpoint is marked int8 but has no int8 weights; write it again")
        quantised, plain = safetensors_support.unflatten_tensor_state_dict(
            dict(tensors), dict(metadata)
        )
        return {**quantised, **plain}


def build(*, linear: str, embedding: str) -> Int8Quantiser:
    """Build the quantiser of a `conf/quant` file.

    Raises:
        AtomError: an unknown recipe.
    """
    if linear not in ("dynamic", "weight_only", "none"):
        raise AtomError(f"quant.linear={linear!r} is none of dynamic, weight_only, none")
    if embedding not in ("weight_only", "none"):
        raise AtomError(f"quant.embedding={embedding!r} is neither weight_only nor none")
    return Int8Quantiser(linear, embedding)
