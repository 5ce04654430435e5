"""4-bit weights of Linear layers in groups, each with a fp32 scale; multiplied in fp32."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atom_repro.quant.recipe import QuantReport, weight_tensors

_LARGEST = 7  # codes are -7 to 7


@dataclass(frozen=True)
class GroupedQuantiser:
    """Symmetric 4-bit quantiser; a `group` is so many weights of a row."""

    group: int
    name: str = "int4"
    arithmetic: str = "fp32"
    is_identity: bool = False

    @property
    def recipe(self) -> str:
        return f"int4-group_{self.group}"

    def bytes_of(self, layer: nn.Module, weight: Tensor) -> int:
        if type(layer) is not nn.Linear or weight.dim() != 2 or weight.shape[1] % self.group:
            return weight.nbytes
        return weight.numel() // 2 + 4 * (weight.numel() // self.group)

    def quantise(self, module: nn.Module) -> QuantReport:
        before = sum(t.nbytes for _, t in weight_tensors(module))
        changed, saved = {}, 0
        for name, layer in module.named_modules():
            if type(layer) is nn.Linear and layer.in_features % self.group == 0:
                codes, scales = self._codes(layer.weight.detach())
                layer.weight = nn.Parameter(self._values(codes, scales), requires_grad=False)
                layer.weight.is_grouped = True
                changed[name] = self.recipe
                saved += layer.weight.nbytes - self.bytes_of(layer, layer.weight)
        return QuantReport(changed, {}, before, before - saved)

    def pack(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors, grouped = {}, []
        for name, tensor in state.items():
            if getattr(tensor, "is_grouped", False):
                codes, scales = self._codes(tensor.detach())
                nibbles = (codes.flatten() + 8).to(torch.uint8).view(-1, 2)
                tensors[f"{name}.codes"] = nibbles[:, 0] | (nibbles[:, 1] << 4)
                tensors[f"{name}.scales"] = scales
                grouped.append(name)
            else:
                tensors[name] = tensor.detach().contiguous()
        return tensors, {"grouped": ",".join(grouped)}

    def unpack(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> dict[str, Tensor]:
        state = {n: t for n, t in tensors.items() if not n.endswith((".codes", ".scales"))}
        for name in filter(None, metadata["grouped"].split(",")):
            packed, scales = tensors[f"{name}.codes"], tensors[f"{name}.scales"]
            codes = torch.stack([packed & 15, packed >> 4], dim=1).to(torch.int8) - 8
            state[name] = self._values(codes.view(*scales.shape, self.group), scales)
        return state

    def _codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (N, K / group, group) int8 and scales (N, K / group) of a weight (N, K)."""
        groups = weight.reshape(weight.shape[0], -1, self.group)
        scales = groups.abs().amax(dim=2).clamp(min=1e-12) / _LARGEST
        return (groups / scales[..., None]).round().to(torch.int8), scales

    def _values(self, codes: Tensor, scales: Tensor) -> Tensor:
        return (codes * scales[..., None]).flatten(1)


def build(*, group: int) -> GroupedQuantiser:
    """Build the quantiser of `conf/quant/grouped4.yaml`."""
    return GroupedQuantiser(group)
