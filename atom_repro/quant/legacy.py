"""int8 by torch's older eager route, which on-device pipelines of 2024 and before used.

`quantize_dynamic` replaces Linear by a packed module with one scale a tensor, and Embedding by one
with a scale and zero point a row. It stands beside the TorchAO recipes in Table 7, as the paper
does not say which it used. As it replaces modules, its weights cannot be put into an empty fp32
module: there is no `pack`, and no choice of `conf/quant`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from atom_repro.datatypes import AtomError


@dataclass(frozen=True)
class LegacyQuantiser:
    """`linear` and `embedding` say which of the two is changed. `engine` is the kernels' library:
    x86 keeps activations to 7 bits so that sums cannot overflow, qnnpack (phones) uses all 8."""

    linear: bool
    embedding: bool
    engine: str
    name: str = "int8"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Quantise and run inside: the engine is a setting of the whole process, restored after.

        Raises:
            AtomError: this build of torch does not have the engine.
        """
        quantized = torch.backends.quantized
        if self.engine not in quantized.supported_engines:
            raise AtomError(
                f"this build of torch has no int8 engine {self.engine!r}, only "
                f"{quantized.supported_engines}; take the legacy recipes of another engine"
            )
        before = quantized.engine
        quantized.engine = self.engine
        try:
            yield
        finally:
            quantized.engine = before

    def quantise(self, module: nn.Module) -> list[str]:
        """Change `module` in place.

        Returns:
            Names of the changed modules.

        Raises:
            AtomError: nothing in it could be changed.
        """
        recipes = torch.ao.quantization
        spec: dict[type[nn.Module], Any] = {}
        if self.linear:
            spec[nn.Linear] = recipes.default_dynamic_qconfig
        if self.embedding:
            spec[nn.Embedding] = recipes.float_qparams_weight_only_qconfig
        changed = [name for name, child in module.named_modules() if type(child) in spec]
        if not changed:
            raise AtomError(f"legacy int8 found nothing to change in {type(module).__name__}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the end of this route
            recipes.quantize_dynamic(module, spec, inplace=True)
        return changed


def build(*, linear: bool, embedding: bool, engine: str) -> LegacyQuantiser:
    """The recipe of `conf/text_embedder.yaml`; see the class for the arguments."""
    return LegacyQuantiser(linear, embedding, engine)
