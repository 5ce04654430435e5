"""Our exported engine beside its peers: the same files, graphs and loader."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from atom_repro.engines.exporter import PROGRAM, Export, write_export
from atom_repro.engines.xnnpack import Program
from atom_repro.peers.peer import Call, Work, calls, require_package
from atom_repro.quant import dynamic_activation, none
from atom_repro.quant.recipe import Quantiser


@dataclass(frozen=True)
class Executorch:
    """ExecuTorch on XNNPACK, its modules quantised as the engine's are."""

    quantiser: Quantiser

    @property
    def precision(self) -> str:
        return self.quantiser.name

    def open(self, work: Work) -> Mapping[str, Call]:
        require_package("executorch")
        quantiser = self.quantiser
        if not quantiser.is_identity:
            quantiser.quantise(work.network)
        export = Export(work.folder, "module", {"recipe": quantiser.recipe})
        shutil.rmtree(export.path, ignore_errors=True)
        write_export(
            export,
            list(work.methods.values()),
            tables={},
            arithmetic=quantiser.arithmetic,
            host={},
        )
        program = Program(export.path / PROGRAM, list(work.methods))
        run = {name: program.method(name) for name in work.methods}
        return calls(work, lambda s, a: run[s.method](*a))


def build(*, weight_bits: int, group: int) -> Executorch:
    """Build a peer of `conf/peer`; 32 bits are fp32, others those of `quant.dynamic_activation`."""
    if weight_bits == 32:
        return Executorch(none.build())
    return Executorch(dynamic_activation.build(weight_bits=weight_bits, group=group))
