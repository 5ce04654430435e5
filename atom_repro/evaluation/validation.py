"""How good the captions of a training's modules are, while it goes on."""

from collections.abc import Sequence
from typing import cast

from atom_repro.datatypes import Clip
from atom_repro.engines.eager import DecoderModule, EncoderModule
from atom_repro.evaluation.captioning import caption_clips
from atom_repro.metrics.caption import score_captions
from atom_repro.models.generation import GenerationSettings
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import DecoderNetwork, EncoderNetwork
from atom_repro.training.captioning_model import CaptioningModel


def validation_cider(
    network: CaptioningModel,
    tokenizer: Tokenizer,
    clips: Sequence[Clip],
    settings: GenerationSettings,
) -> float:
    """CIDEr, in points, of the captions of `clips`; leaves the network in evaluation mode."""
    network.eval()
    model, device = network.model, next(network.parameters()).device
    encoder, decoder = cast(EncoderNetwork, network.encoder), cast(DecoderNetwork, network.decoder)
    batches = caption_clips(
        EncoderModule(encoder, model, "training", device=device),
        DecoderModule(decoder, model, tokenizer, "training"),
        clips,
        prompt=model.prompt,
        settings=settings,
        batch_size=50,
    )
    said = {p.video_id: p.caption for batch in batches for p in batch}
    references = {c.video_id: c.references for c in clips}
    return float(score_captions(said, references, metrics=("cider",)).corpus["cider"])
