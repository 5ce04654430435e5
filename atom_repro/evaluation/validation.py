"""Validation metric during training: CIDEr of the captions of the modules in training."""

from atom_repro.evaluation.captioning import caption_clips
from atom_repro.metrics.caption import score_captions
from atom_repro.models.generation import GenerationSettings
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.data import TrainingData
from atom_repro.training.network import inference_modules


def validation_cider(
    network: CaptioningModel, data: TrainingData, settings: GenerationSettings
) -> float:
    """CIDEr (in points) on the validation clips; leaves the network in evaluation mode."""
    network.eval()
    encoder, decoder = inference_modules(network, data.tokenizer)
    batches = caption_clips(
        encoder,
        decoder,
        data.validation,
        prompt=network.model.prompt,
        settings=settings,
        batch_size=50,
    )
    captions = {p.video_id: p.caption for batch in batches for p in batch}
    references = {c.video_id: c.references for c in data.validation}
    return float(score_captions(captions, references, metrics=("cider",)).corpus["cider"])
