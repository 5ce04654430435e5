"""int8 by torch's older eager-mode quantisation, common on devices until 2024.

`quantize_dynamic` replaces Linear by a packed module with one scale per tensor, and Embedding by
one with a scale and zero point per row. Table 7 lists it beside the TorchAO recipes, as the paper
does not say which it used. As it replaces modules, its weights cannot be loaded into an fp32
module: there is no `pack`, and no `conf/quant` file.
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
    """Eager-mode int8 quantiser. `linear` and `embedding` say which of the two is quantised.
    `engine` is the kernel library: x86 keeps activations to 7 bits so that sums cannot overflow,
    qnnpack (phones) uses all 8."""

    linear: bool
    embedding: bool
    engine: str
    name: str = "int8"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context to quantise and run in: sets torch's process-wide engine, and restores it.

        Raises:
            AtomError: this build of torch does not have the engine.
        """
        quantized = torch.backends.quantized
        if self.engine not in quantized.supported_engines:
            raise AtomError(
                f"this build of torch has no int8 engine {self.engine!r}, only "
                f"{quantized.supported_engines}; take the legacy recipes of another engine"
            )
        previous = quantized.engine
        quantized.engine = self.engine
        try:
            yield
        finally:
            quantized.engine = previous

    def quantise(self, module: nn.Module) -> list[str]:
        """Quantise `module` in place.

        Returns:
            Names of the quantised submodules.

        Raises:
            AtomError: nothing in it can be quantised.
        """
        quantization = torch.ao.quantization
        qconfigs: dict[type[nn.Module], Any] = {}
        if self.linear:
            qconfigs[nn.Linear] = quantization.default_dynamic_qconfig
        if self.embedding:
            qconfigs[nn.Embedding] = quantization.float_qparams_weight_only_qconfig
        changed = [name for name, child in module.named_modules() if type(child) in qconfigs]
        if not changed:
            raise AtomError(f"legacy int8 found nothing to change in {type(module).__name__}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces its removal
            quantization.quantize_dynamic(module, qconfigs, inplace=True)
        return changed


def build(*, linear: bool, embedding: bool, engine: str) -> LegacyQuantiser:
    """Build a quantiser of `conf/text_embedder.yaml`; see the class for the arguments."""
    return LegacyQuantiser(linear, embedding, engine)
