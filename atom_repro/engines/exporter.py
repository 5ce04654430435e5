"""Export of modules to ExecuTorch files, each checked against PyTorch before it counts.

    <folder of a checkpoint's recipe>/executorch/<module>-<key>/
        model.pte            methods `prefill` and `step` of a decoder, `forward` of an encoder
        tables.safetensors   embedding tables of a decoder, as the quantiser stores them
        export.json          the contents of the key, and what the host has to know

The key is a hash of weights label, recipe, hyperparameters, versions and this format, so a file of
other weights or another version is never run. A folder appears whole or not at all.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from atom_repro.datatypes import AtomError
from atom_repro.engines.xnnpack import Program, no_python_messages
from atom_repro.models.exported import Method, MethodCall, Table
from atom_repro.records.atomic import atomic_write
from atom_repro.records.record import out_of_memory

PROGRAM, TABLES, DESCRIPTION = "model.pte", "tables.safetensors", "export.json"
# What else to compare: pairs of a result of the exported methods and that of PyTorch.
Check = Callable[[Mapping[str, Table], Mapping[str, MethodCall]], Sequence[tuple[Tensor, Tensor]]]
_FORMAT = 1  # raised by a change of graphs or files, so that older exports are made again
# Relative to the largest value of an output. Quantised activations round the other way here and
# there, which 16 layers of full size add up to 0.02; a wrong graph differs by about 1.
_TOLERANCE = {"fp32": 1e-4, "int8": 0.1}


@dataclass(frozen=True)
class Export:
    """What identifies the export of a module, and where it lies.

    Attributes:
        folder: that holds the exports of the module's recipe.
        module: its name, such as `encoder`.
        identity: weights, recipe and hyperparameters.
    """

    folder: Path
    module: str
    identity: Mapping[str, Any]

    @property
    def key(self) -> str:
        packages = {name: version(name) for name in ("executorch", "torch", "torchao")}
        content = {**self.identity, "packages": packages, "format": _FORMAT}
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """The folder of the export."""
        return self.folder / f"{self.module}-{self.key}"

    @property
    def exists(self) -> bool:
        return (self.path / DESCRIPTION).is_file()

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.stat().st_size for file in self.path.iterdir())

    def description(self) -> dict[str, Any]:
        """What `write_export` was given for the host."""
        text = (self.path / DESCRIPTION).read_text(encoding="utf-8")
        host: dict[str, Any] = json.loads(text)["host"]
        return host

    def tables(self) -> dict[str, Table]:
        """The embedding tables, memory-mapped: rows are read when they are used."""
        return _read_tables(self.path)


@dataclass(frozen=True)
class FloatTable:
    """An embedding table (N, E) in fp32."""

    weight: Tensor

    def __call__(self, ids: Tensor) -> Tensor:
        return self.weight[ids]


@dataclass(frozen=True)
class QuantisedTable:
    """An embedding table of int8 codes (N, E), with a scale (N, 1) for each row."""

    codes: Tensor
    scales: Tensor

    def __call__(self, ids: Tensor) -> Tensor:
        return self.codes[ids].float() * self.scales[ids]


def _read_tables(folder: Path) -> dict[str, Table]:
    tensors = load_file(folder / TABLES)
    names = {name.removesuffix(".codes").removesuffix(".scales") for name in tensors}
    return {
        name: FloatTable(tensors[name])
        if name in tensors
        else QuantisedTable(tensors[f"{name}.codes"], tensors[f"{name}.scales"])
        for name in names
    }


def write_export(
    export: Export,
    methods: Sequence[Method],
    *,
    tables: Mapping[str, Tensor],
    arithmetic: str,
    host: Mapping[str, Any],
    check: Check | None = None,
    fused: bool = True,
) -> None:
    """Export methods, execute the file, compare it with PyTorch, and only then keep it.

    Args:
        tables: embedding weights that the host reads, fp32 or quantised by TorchAO.
        arithmetic: of the quantiser; decides how close the outputs have to be.
        host: what the host has to know to run the module.
        check: more to compare than the outputs of each method.
        fused: whether neighbouring operators become one call of XNNPACK.

    Raises:
        AtomError: a method cannot be exported, or computes something else than PyTorch does.
        MemoryError: too little memory.
    """
    what = f"the {export.module} for engine=executorch"
    try:
        with atomic_write(export.path) as building, no_python_messages():
            building.mkdir()
            save_file(dict(_plain(tables)), building / TABLES)
            with tqdm(total=4, desc=f"export {export.module}", leave=False) as bar:
                lower(methods, building / PROGRAM, bar, fused=fused)
                bar.set_postfix_str("compare with PyTorch")
                _compare(methods, building, check, _TOLERANCE[arithmetic], what)
                bar.update()
            content = {"identity": dict(export.identity), "host": dict(host)}
            text = json.dumps(content, indent=1, default=str)
            (building / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    except AtomError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise MemoryError(
                f"no memory left to export {what}; free some, or choose engine=eager"
            ) from error
        reason = " ".join(str(error).split())[:300]
        raise AtomError(
            f"ExecuTorch cannot export {what} ({type(error).__name__}: {reason}); choose "
            "engine=eager"
        ) from error


def in_a_process(work: Callable[..., None], *arguments: Any) -> None:
    """Run an export in a process of its own: its memory is given back, and a kill is an error here.

    Raises:
        MemoryError: the process was killed, as systems do that run out of memory.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as processes:
        try:
            processes.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise MemoryError(
                "the export for engine=executorch was killed, most likely for lack of memory; free "
                "some and run the command again, or choose engine=eager"
            ) from error


def lower(methods: Sequence[Method], path: Path, bar: Any, *, fused: bool = True) -> None:
    """Trace the methods, hand their operators to XNNPACK, and write the file.

    Args:
        bar: shows three steps of progress.
        fused: as in `write_export`.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import (
        EdgeCompileConfig,
        ExecutorchBackendConfig,
        to_edge_transform_and_lower,
    )
    from executorch.exir.passes import MemoryPlanningPass

    with torch.no_grad():
        bar.set_postfix_str("trace")
        programs = {m.name: _trace(m) for m in methods}
        bar.update()
        bar.set_postfix_str("lower")
        edge = to_edge_transform_and_lower(
            programs,
            partitioner=[XnnpackPartitioner(per_op_mode=not fused)],
            compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
        )
        del programs
        bar.update()
        bar.set_postfix_str("write")
        # Inputs and outputs stay where the caller has them: their largest sizes, planned ahead,
        # would be most of the memory.
        planning = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
        program = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning))
        with path.open("wb") as stream:
            program.write_to_file(stream)
        bar.update()


def _trace(method: Method) -> Any:
    from torch.export import Dim, export

    sizes = tuple(
        {dim: Dim.AUTO(min=1, max=largest) for dim, largest in dims.items()}
        for dims in method.dynamic
    )
    parameters = signature(method.module.forward).parameters.values()
    named = sum(p.kind is not Parameter.VAR_POSITIONAL for p in parameters)
    dynamic = sizes if named == len(parameters) else (*sizes[:named], sizes[named:])
    return export(method.module, method.example, dynamic_shapes=dynamic, strict=False)


def _compare(
    methods: Sequence[Method], folder: Path, check: Check | None, tolerance: float, what: str
) -> None:
    program = Program(folder / PROGRAM, [method.name for method in methods])
    run = {method.name: program.method(method.name) for method in methods}
    pairs: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for method in methods:
            outputs = run[method.name](*method.example)
            pairs += zip(outputs, method.module(*method.example), strict=True)
        if check is not None:
            pairs += check(_read_tables(folder), run)
    for got, wanted in pairs:
        error = ((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)).item()
        if got.shape != wanted.shape or not error <= tolerance:
            raise AtomError(
                f"the file of {what} computes something else than PyTorch (relative error "
                f"{error:.1e}, at most {tolerance:.0e} is rounding); it was removed, choose "
                "engine=eager"
            )


def _plain(tables: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, table in tables.items():
        tensor: Any = table
        if hasattr(tensor, "qdata"):
            yield f"{name}.codes", tensor.qdata.contiguous()
            yield f"{name}.scales", tensor.scale.contiguous()
        else:
            yield name, tensor.detach().contiguous()
