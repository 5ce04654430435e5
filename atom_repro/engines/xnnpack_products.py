"""Matrix products on XNNPACK, to measure how fast a device computes them.

A runtime's own products are the limit of its modules: those of PyTorch may be faster or slower on
the same processor.
"""

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from atom_repro.engines.exporter import in_a_process, lower
from atom_repro.engines.xnnpack import Program, no_python_messages
from atom_repro.models.exported import Method, MethodCall
from atom_repro.quant.recipe import Quantiser

# Exported together, because a process takes seconds to import the exporter.
_COMMON_SIZES = (256, 512, 1024, 2048, 4096)


class SquareProducts:
    """Products of square fp32 matrices with weights as a quantiser stores them.

    A call with two matrices multiplies others of their size, because a file's weights are fixed;
    how long it takes is all that is asked. The last size stays loaded.
    """

    def __init__(self, quantiser: Quantiser) -> None:
        self._quantiser = quantiser
        self._folder = Path(tempfile.mkdtemp(prefix="atom-products-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._size = 0
        self._product: MethodCall | None = None

    def __call__(self, one: Tensor, other: Tensor) -> Sequence[Tensor]:
        size = one.shape[0]
        if self._product is None or size != self._size:
            self._product = None  # one size in memory at a time
            self._product, self._size = self._open(size), size
            self._input = torch.ones(size, size)
        return self._product(self._input)

    def _open(self, size: int) -> MethodCall:
        path = _file(self._folder, size)
        if not path.exists():
            sizes = _COMMON_SIZES if size in _COMMON_SIZES else (size,)
            in_a_process(_export, self._folder, self._quantiser, sizes)
        return Program(path, ["forward"]).method("forward")


def _file(folder: Path, size: int) -> Path:
    return folder / f"{size}.pte"


def _export(folder: Path, quantiser: Quantiser, sizes: Sequence[int]) -> None:
    with no_python_messages():
        for size in tqdm(sizes, desc="export matrix products", leave=False):
            layer = nn.Sequential(nn.Linear(size, size, bias=False)).eval().requires_grad_(False)
            if not quantiser.is_identity:
                quantiser.quantise(layer)
            method = Method("forward", layer, (torch.ones(size, size),), ({},))
            with tqdm(total=3, disable=True) as bar:
                lower([method], _file(folder, size), bar)
