"""Parameter counts of modules by layer type, as in the paper's Table 9.

Counted on the meta device, so full size costs no memory. Every parameter is counted once; a tied
head is counted separately, since a table that counts layers by their own size counts it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

# Attention's input projection is a bare parameter of its module, which no row of Table 9 covers.
IN_PROJ = "MultiheadAttention in_proj"
BARE_PARAMETERS = "bare parameters (class and position embeddings, latents, a head's bias)"


@dataclass(frozen=True)
class ParameterCounts:
    """`parameters` by layer type; `tied` are those of heads that share another layer's weight."""

    parameters: Mapping[str, int]
    tied: int

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def count_parameters(*modules: nn.Module) -> ParameterCounts:
    """Count the parameters of all modules together, by layer type.

    Types are PyTorch's; `NonDynamicallyQuantizableLinear` is the output projection of
    nn.MultiheadAttention, so encoders are to be built in their reference form.
    """
    counts: dict[str, int] = {}
    tied = 0
    for module in modules:
        seen: set[int] = set()
        for owner in module.modules():
            for name, parameter in owner.named_parameters(recurse=False):
                if id(parameter) in seen:
                    tied += parameter.numel()
                    continue
                seen.add(id(parameter))
                layer_type = _layer_type(owner, name)
                counts[layer_type] = counts.get(layer_type, 0) + parameter.numel()
    return ParameterCounts(dict(sorted(counts.items(), key=lambda item: -item[1])), tied)


def _layer_type(owner: nn.Module, name: str) -> str:
    if isinstance(owner, nn.MultiheadAttention):
        return IN_PROJ
    layer_type = type(owner).__name__
    if (
        layer_type == "RMSNorm"
        or hasattr(nn, layer_type)
        or layer_type == "NonDynamicallyQuantizableLinear"
    ):
        return layer_type
    return BARE_PARAMETERS
