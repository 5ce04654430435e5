"""Export of the text embedder to an ExecuTorch file, for devices that embed texts themselves."""

from pathlib import Path

import torch

from atom_repro.engines.exporter import Export, in_a_process, write_export
from atom_repro.models.text_embedder import load_text_embedder, weights_label
from atom_repro.models.text_embedder_export import embedder_method


def export_embedder(folder: Path, source: str) -> Export:
    """The exported embedder of a source, made unless it is there.

    Args:
        folder: that holds the exports of embedders.
        source: as in `load_text_embedder`.

    Raises:
        AtomError: it cannot be loaded or exported.
        MemoryError: too little memory.
    """
    export = Export(folder, "embedder", {"weights": weights_label(source), "recipe": "fp32"})
    if not export.exists:
        in_a_process(_export, export, source)
    return export


def _export(export: Export, source: str) -> None:
    embedder = load_text_embedder(source)
    with torch.no_grad():
        write_export(
            export,
            [embedder_method(embedder)],
            tables={},
            arithmetic="fp32",
            host={"longest": embedder.longest},
        )
