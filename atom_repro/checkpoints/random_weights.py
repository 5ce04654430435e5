"""Modules of random weights at any size: what a model costs does not depend on what it says.

Written a tensor at a time, so making a module needs no more memory than its largest tensor, and
labelled `random`: everything that judges texts refuses them.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from atom_repro.checkpoints import module_files
from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.device.capacity import require_disk
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.records.atomic import atomically

LABEL = "random"


def write_random_weights(checkpoint: Checkpoint, model: VideoLanguageModel, *, seed: int) -> None:
    """Write the fp32 modules of `model` that are not there, the decoder with a stand-in for its
    tokenizer. What is there stays, whatever its weights.

    Raises:
        AtomError: too little disk.
    """
    sides = (
        (checkpoint.encoder("fp32"), "video_encoder", model.make_encoder),
        (checkpoint.decoder("fp32"), "text_decoder", model.make_decoder),
    )
    for place, (folder, kind, make) in enumerate(sides):
        if folder.is_dir():
            continue
        with torch.device("meta"):
            network: Any = make()
        shapes = {
            name: tuple(tensor.shape)
            for name, tensor in network.file_state().items()
            if name not in network.tied
        }
        require_disk(folder, 4 * sum(map(math.prod, shapes.values())), f"random {model.name}")
        with atomically(folder) as building:
            module_files.stream_weights(building, shapes, _drawn(shapes, 2 * seed + place))
            module_files.describe_module(building, model, kind, LABEL)
            if kind == "text_decoder":
                Tokenizer.stand_in(model.decoder.vocabulary, model.specials).save(building)


def _drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Iterator[tuple[str, Tensor]]:
    """Matrices that keep the size of what they multiply, norms and biases that change nothing: no
    overflow, and none of the denormal numbers that a processor is slow at."""
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        if len(shape) > 1:
            drawn = torch.empty(shape).normal_(generator=generator)
            yield name, drawn.mul_(math.prod(shape[1:]) ** -0.5)
        else:
            yield name, torch.full(shape, 1.0 if name.endswith("weight") else 0.0)
