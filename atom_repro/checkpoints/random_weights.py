"""Modules with random weights, to measure latency and memory without trained weights.

Written a tensor at a time, so a module needs no more memory than its largest tensor, and labelled
`random`: quality evaluation refuses them.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from atom_repro.checkpoints import module_files
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.device.capacity import require_disk
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.records.atomic import atomic_write

RANDOM_WEIGHTS_LABEL = "random"


def write_random_weights(checkpoint: Checkpoint, model: VideoLanguageModel, *, seed: int) -> None:
    """Write the missing fp32 modules of `model`, the decoder with a stand-in tokenizer. Existing
    modules stay, whatever their weights.

    Raises:
        AtomError: too little disk.
    """
    modules = (
        (checkpoint.encoder(), module_files.ENCODER),
        (checkpoint.decoder(), module_files.DECODER),
    )
    for index, (folder, kind) in enumerate(modules):
        if folder.is_dir():
            continue
        shapes = module_files.weight_shapes(module_files.empty_network(model, kind))
        require_disk(folder, 4 * sum(map(math.prod, shapes.values())), f"random {model.name}")
        with atomic_write(folder) as building:
            module_files.stream_weights(building, shapes, _random_tensors(shapes, 2 * seed + index))
            module_files.write_module_config(building, model, kind, RANDOM_WEIGHTS_LABEL)
            if kind == module_files.DECODER:
                Tokenizer.word_level(model.decoder.vocabulary, model.specials).save(building)


def _random_tensors(
    shapes: Mapping[str, tuple[int, ...]], seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Random matrices that preserve the scale of activations; norms of one and biases of zero: no
    overflow, and no denormal numbers, which a processor is slow at."""
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        if len(shape) > 1:
            matrix = torch.empty(shape).normal_(generator=generator)
            yield name, matrix.mul_(math.prod(shape[1:]) ** -0.5)
        else:
            yield name, torch.full(shape, 1.0 if name.endswith("weight") else 0.0)
