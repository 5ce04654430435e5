"""An engine whose modules count their calls in a file; the networks are eager PyTorch's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atom_repro.device.limits import Kernels
from atom_repro.engines.eager import EagerEngine
from atom_repro.models.generation import Generated
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.quant.recipe import Quantiser


class CountedModule:
    """A module that writes a line to `log` for each call."""

    def __init__(self, inner: Any, role: str, log: Path) -> None:
        self.inner, self.role, self.log = inner, role, log

    def __call__(self, *arguments: Any) -> Any:
        return self._counted(self.inner, *arguments)

    def generate(self, *arguments: Any) -> list[Generated]:
        return self._counted(self.inner.generate, *arguments)

    def score(self, *arguments: Any) -> list[list[tuple[float, ...]]]:
        return self._counted(self.inner.score, *arguments)

    def _counted(self, work: Callable[..., Any], *arguments: Any) -> Any:
        with self.log.open("a") as stream:
            stream.write(f"{self.role}\n")
        return work(*arguments)

    def release(self) -> None:
        self.inner.release()


@dataclass(frozen=True)
class CountingEngine:
    log: Path
    name: str = "counting"
    any_threads: bool = True

    def prepare(self, *arguments: Any) -> None:
        EagerEngine().prepare(*arguments)

    def module_bytes(self, *arguments: Any) -> dict[str, int]:
        return EagerEngine().module_bytes(*arguments)

    def load_encoder(
        self, folder: Path, model: VideoLanguageModel, quantiser: Quantiser, device: torch.device
    ) -> CountedModule:
        inner = EagerEngine().load_encoder(folder, model, quantiser, device)
        return CountedModule(inner, "encoder", self.log)

    def load_decoder(
        self, folder: Path, model: VideoLanguageModel, quantiser: Quantiser, device: torch.device
    ) -> CountedModule:
        inner = EagerEngine().load_decoder(folder, model, quantiser, device)
        return CountedModule(inner, "decoder", self.log)

    def load_embedder(self, source: str, device: torch.device) -> CountedModule:
        return CountedModule(EagerEngine().load_embedder(source, device), "embedder", self.log)

    def matmul_kernels(self) -> Kernels:
        def einsum(a: Tensor, b: Tensor) -> Tensor:
            return torch.einsum("ij,jk->ik", a, b)

        return {"fp32": {"torch.einsum": einsum}}


def build(*, log: str) -> CountingEngine:
    """Build the engine of `conf/engine/counting.yaml`."""
    return CountingEngine(Path(log))
