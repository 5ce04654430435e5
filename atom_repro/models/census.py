"""Parameters of a module by the type of layer that owns them, as the paper's Table 9 counts.

Counted on the meta device, so full size costs no memory. Every parameter is counted once; a tied
head is given apart, since a table that counts layers by their own size counts it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

# Attention's input projection is a bare parameter of its module, which no row of Table 9 covers.
IN_PROJ = "MultiheadAttention in_proj"
BARE = "bare parameters (class and position embeddings, latents, a head's bias)"


@dataclass(frozen=True)
class Census:
    """`parameters` by layer type; `tied` are those of heads that share another layer's weight."""

    parameters: Mapping[str, int]
    tied: int

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def census(*modules: nn.Module) -> Census:
    """Count the parameters of modules, together.

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
                kind = _kind(owner, name)
                counts[kind] = counts.get(kind, 0) + parameter.numel()
    return Census(dict(sorted(counts.items(), key=lambda item: -item[1])), tied)


def _kind(owner: nn.Module, name: str) -> str:
    if isinstance(owner, nn.MultiheadAttention):
        return IN_PROJ
    kind = type(owner).__name__
    if kind == "RMSNorm" or hasattr(nn, kind) or kind == "NonDynamicallyQuantizableLinear":
        return kind
    return BARE
