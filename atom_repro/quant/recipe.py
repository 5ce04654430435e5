"""The quantiser protocol, and its report.

A quantiser changes a module in place, reports what it quantised and what it skipped and why, and
converts the quantised weights to safetensors and back, without the fp32 ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class QuantReport:
    """Result of quantising a module. `changed` maps a submodule's name to its recipe; `skipped`
    maps a layer type that has weights to its parameter count and the reason. Bytes are of weights
    in memory, each shared tensor once."""

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
    """A post-training quantiser, chosen by `conf/quant`.

    Attributes:
        name: precision in messages and records, such as `int8`.
        recipe: identifier of this very quantiser in folders of modules, records and rows; two of
            one precision differ in it.
        arithmetic: precision of its matrix products, whose rate on the device bounds them.
        is_identity: whether weights stay as they were trained.
    """

    @property
    def name(self) -> str: ...
    @property
    def recipe(self) -> str: ...
    @property
    def arithmetic(self) -> str: ...
    @property
    def is_identity(self) -> bool: ...

    def bytes_of(self, layer: nn.Module, weight: Tensor) -> int:
        """Bytes of a weight of `layer` once it is quantised, with its scales.

        Args:
            weight: as trained; its values are not read.
        """
        ...

    def quantise(self, module: nn.Module) -> QuantReport:
        """Quantise `module` in place.

        Raises:
            AtomError: nothing in it can be quantised.
        """
        ...

    def pack(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Convert a state dict to plain tensors and metadata of a safetensors file."""
        ...

    def unpack(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> dict[str, Tensor]:
        """Restore the state dict that `pack` was given."""
        ...


def weight_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Named parameters and persistent buffers, each shared tensor once."""
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def weights_by_storage(network: nn.Module) -> dict[int, tuple[nn.Module, Tensor]]:
    """Layer and weight by storage; of a weight that an embedding shares, the other layer."""
    found: dict[int, tuple[nn.Module, Tensor]] = {}
    for layer in network.modules():
        for weight in layer.parameters(recurse=False):
            storage = id(weight.untyped_storage())
            if storage not in found or not isinstance(layer, nn.Embedding):
                found[storage] = (layer, weight)
    return found


def stored_bytes(quantiser: Quantiser, network: nn.Module) -> int:
    """Bytes of a network's weights once they are quantised; it may be on the meta device."""
    weights = weights_by_storage(network).values()
    return sum(quantiser.bytes_of(layer, weight) for layer, weight in weights)


def is_tensor_subclass(tensor: Tensor) -> bool:
    """Whether a tensor is a quantised one of TorchAO."""
    return hasattr(tensor, "__tensor_flatten__")


def bytes_in_memory(module: nn.Module) -> int:
    """Bytes of a module's weights as they are in memory, quantised or not, each shared one once."""
    total = 0
    for _, tensor in weight_tensors(module):
        subclass: Any = tensor
        names = subclass.__tensor_flatten__()[0] if is_tensor_subclass(tensor) else []
        total += sum(getattr(tensor, n).nbytes for n in names) if names else tensor.nbytes
    return total


_REASONS = {
    "Conv3d": "TorchAO has no int8 Conv3d; the paper leaves it out for the same reason",
    "Conv2d": "not in the paper's recipe (Linear and Embedding only)",
    "MultiheadAttention": "its packed in_proj is a bare parameter; use model.form=folded",
    "NonDynamicallyQuantizableLinear": "read as a plain tensor by its attention kernel",
}


def skipped_layers(module: nn.Module, changed: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Layers with weights that a recipe of Linear and Embedding left alone, for a `QuantReport`."""
    skipped: dict[str, dict[str, Any]] = {}
    for name, child in module.named_modules():
        parameters = sum(p.numel() for p in child.parameters(recurse=False))
        if parameters and name not in changed:
            kind = type(child).__name__
            entry = skipped.setdefault(
                kind,
                {
                    "parameters": 0,
                    "reason": _REASONS.get(kind, "neither Linear nor Embedding"),
                },
            )
            entry["parameters"] += parameters
    return skipped
