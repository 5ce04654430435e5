"""What every quantiser is, and what it must report.

A quantiser changes a module in place, says what it changed and what it left and why, and can put
the changed weights back into an empty module without the fp32 ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class QuantReport:
    """`changed` maps a module's name to its recipe; `skipped` maps a layer type that holds
    weights to its parameter count and the reason. Bytes are of weights in memory, each shared
    tensor once."""

    changed: Mapping[str, str]
    skipped: Mapping[str, Mapping[str, Any]]
    bytes_before: int
    bytes_after: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "changed": dict(self.changed),
            "skipped": {k: dict(v) for k, v in self.skipped.items()},
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }


class Quantiser(Protocol):
    """`name` is the precision's name in records and folders."""

    @property
    def name(self) -> str: ...

    def quantise(self, module: nn.Module) -> QuantReport:
        """Change `module` in place.

        Raises:
            AtomError: nothing in it could be changed.
        """
        ...

    def pack(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Plain tensors and metadata, as a safetensors file holds them."""
        ...

    def unpack(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> dict[str, Tensor]:
        """The state that `pack` was given."""
        ...


def weight_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers, each shared tensor once."""
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor
