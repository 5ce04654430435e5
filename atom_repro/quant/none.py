"""No quantisation: fp32 weights, as trained."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from atom_repro.quant.recipe import QuantReport, weight_tensors


@dataclass(frozen=True)
class NoQuantiser:
    """The identity: weights are stored and multiplied as trained."""

    name: str = "fp32"
    recipe: str = "fp32"
    arithmetic: str = "fp32"
    is_identity: bool = True

    def bytes_of(self, layer: nn.Module, weight: Tensor) -> int:
        return weight.nbytes

    def quantise(self, module: nn.Module) -> QuantReport:
        size = sum(t.nbytes for _, t in weight_tensors(module))
        return QuantReport({}, {}, size, size)

    def pack(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        return {name: tensor.contiguous() for name, tensor in state.items()}, {}

    def unpack(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> dict[str, Tensor]:
        return dict(tensors)


def build() -> NoQuantiser:
    """Build the quantiser of `conf/quant/none.yaml`."""
    return NoQuantiser()
