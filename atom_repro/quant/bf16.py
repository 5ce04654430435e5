"""bf16: every weight rounded to bfloat16, half the bytes of fp32, and multiplied as such.

What GPUs with tensor cores and processors with AVX-512 bf16 or AMX multiply fastest of the floating
formats. The paper has no such row; it is what int8 has to beat on a GPU. Activations, keys and
values are bf16 too; softmax and log-probabilities are fp32, as the networks ask for them. Rotary
frequencies are not weights and stay fp32.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atom_repro.quant.recipe import QuantReport, bytes_in_memory


@dataclass(frozen=True)
class Bf16Quantiser:
    """Quantiser that rounds all floating-point weights to bfloat16."""

    name: str = "bf16"
    recipe: str = "bf16"
    arithmetic: str = "bf16"
    dtype: torch.dtype = torch.bfloat16
    is_identity: bool = False

    def bytes_of(self, layer: nn.Module, weight: Tensor) -> int:
        return weight.numel() * (2 if weight.is_floating_point() else weight.itemsize)

    def quantise(self, module: nn.Module) -> QuantReport:
        bytes_before = bytes_in_memory(module)
        changed = {}
        for name, layer in module.named_modules():
            for weight in layer.parameters(recurse=False):
                if weight.is_floating_point():
                    # In place, so that tied weights stay tied.
                    weight.data = weight.data.to(self.dtype)
                    changed[name] = "bf16 weights"
        return QuantReport(changed, {}, bytes_before, bytes_in_memory(module))

    def pack(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        return {name: tensor.detach().contiguous() for name, tensor in state.items()}, {}

    def unpack(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> dict[str, Tensor]:
        return dict(tensors)


def build() -> Bf16Quantiser:
    """Build the quantiser of `conf/quant/bf16.yaml`."""
    return Bf16Quantiser()
