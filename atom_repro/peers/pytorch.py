"""PyTorch as a peer: eager or compiled, in fp32, bf16, or int8 by TorchAO."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atom_repro.datatypes import AtomError
from atom_repro.engines.cpu_kernels import use_fp32_int8_linear, use_small_batch_linear
from atom_repro.peers.peer import Call, Work, calls
from atom_repro.quant import int8

_PRECISIONS = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class PyTorch:
    """The modules as they are. Eager ones have the faster linear layers of our eager engine."""

    precision: str
    compiled: bool

    def open(self, work: Work) -> Mapping[str, Call]:
        if self.compiled and shutil.which("g++") is None and shutil.which("clang++") is None:
            raise AtomError("torch.compile needs a C++ compiler on the PATH: g++ or clang++")
        modules = {name: method.module.eval() for name, method in work.methods.items()}
        if self.precision == "bf16":
            torch.nn.ModuleList(modules.values()).bfloat16()
        elif self.precision == "int8":
            int8.build(linear="dynamic", embedding="none").quantise(work.network)
        if not self.compiled:
            use_small_batch_linear(work.network)
            use_fp32_int8_linear(work.network)
        run: dict[str, Callable[..., Any]] = dict(modules)
        if self.compiled:
            run = {name: torch.compile(module, dynamic=False) for name, module in modules.items()}
        if self.precision == "bf16":
            return calls(work, lambda s, a: run[s.method](*map(_bf16, a)))
        return calls(work, lambda s, a: run[s.method](*a))


def _bf16(x: Tensor) -> Tensor:
    return x.bfloat16() if x.is_floating_point() else x


def build(*, precision: str, compiled: bool) -> PyTorch:
    """Build a peer of `conf/peer`.

    Raises:
        AtomError: an unknown precision.
    """
    if precision not in _PRECISIONS:
        raise AtomError(f"peer precision {precision!r} is none of {', '.join(_PRECISIONS)}")
    return PyTorch(precision, compiled)
