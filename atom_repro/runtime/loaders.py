"""How the modules of a trained model are read for a session.

A load ends when the module's first forward has, so that what an engine puts off until then
(kernel choice, packing) is not hidden in the first stage.
"""

import torch

from atom_repro.device.compute import ComputeDevice
from atom_repro.engines.checkpoints import Checkpoint
from atom_repro.engines.eager import (
    DecoderModule,
    EmbedderModule,
    EncoderModule,
    embedder_bytes,
    load_decoder,
    load_embedder,
    load_encoder,
)
from atom_repro.models.generation import GenerationSettings
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.runtime.residency import Loader


def module_loaders(
    checkpoint: Checkpoint,
    precision: str,
    model: VideoLanguageModel,
    device: ComputeDevice,
    *,
    embedder: str,
) -> dict[str, Loader]:
    """Loaders of encoder, decoder and embedder, onto a device.

    Raises:
        AtomError: a module of that precision is not there.
    """

    numbers = model.encoder

    def encoder() -> EncoderModule:
        module = load_encoder(checkpoint.encoder(precision), model, device.torch)
        size = numbers.image_size
        module(torch.zeros(1, numbers.frames, 3, size, size, dtype=torch.uint8))
        return module

    def decoder() -> DecoderModule:
        module = load_decoder(checkpoint.decoder(precision), model, device.torch)
        size = (1, numbers.visual_tokens, numbers.output_width)
        visual = torch.zeros(size, device=device.torch)
        module(visual, model.prompt, GenerationSettings(beams=1, max_new_tokens=1))
        return module

    def text_embedder() -> EmbedderModule:
        module = load_embedder(embedder, device.torch)
        module(["first"])
        return module

    sizes = checkpoint.bytes(precision)
    return {
        "encoder": Loader(encoder, sizes["encoder"]),
        "decoder": Loader(decoder, sizes["decoder"]),
        "embedder": Loader(text_embedder, embedder_bytes(embedder)),
    }
