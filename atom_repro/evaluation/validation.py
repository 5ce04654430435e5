"""Validation metric during training: CIDEr of the captions of the modules in training."""

from typing import cast

from atom_repro.engines.eager import DecoderModule, EncoderModule
from atom_repro.evaluation.captioning import caption_clips
from atom_repro.metrics.caption import score_captions
from atom_repro.models.generation import GenerationSettings
from atom_repro.models.vlm import DecoderNetwork, EncoderNetwork
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.data import TrainingData


def validation_cider(
    network: CaptioningModel, data: TrainingData, settings: GenerationSettings
) -> float:
    """CIDEr (in points) on the validation clips; leaves the network in evaluation mode."""
    tokenizer, clips = data.tokenizer, data.validation
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
    captions = {p.video_id: p.caption for batch in batches for p in batch}
    references = {c.video_id: c.references for c in clips}
    return float(score_captions(captions, references, metrics=("cider",)).corpus["cider"])
