"""How the modules of a trained model are read for a session."""

from functools import partial

from atom_repro.checkpoints.checkpoint import Checkpoint
from atom_repro.device.compute import ComputeDevice
from atom_repro.engines.eager import embedder_bytes, load_decoder, load_embedder, load_encoder
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

    A load ends when the module can be called. No forward is made up for it: eager PyTorch puts
    nothing off until the first one, and at full size one costs more than the reading, which would
    be charged to every reload and to no application that really reloads. An engine that does put
    work off has to do it in its loader.

    Raises:
        AtomError: a module of that precision is not there.
    """
    sizes = checkpoint.bytes(precision)
    encoder, decoder = checkpoint.encoder(precision), checkpoint.decoder(precision)
    return {
        "encoder": Loader(partial(load_encoder, encoder, model, device.torch), sizes["encoder"]),
        "decoder": Loader(partial(load_decoder, decoder, model, device.torch), sizes["decoder"]),
        "embedder": Loader(
            partial(load_embedder, embedder, device.torch), embedder_bytes(embedder)
        ),
    }
