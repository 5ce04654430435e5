"""Validation metric during training: CIDEr of the captions of the modules in training."""

from atom_repro.evaluation.captioning import scored_prediction
from atom_repro.metrics.caption import score_captions
from atom_repro.models.generation import Generated, GenerationSettings
from atom_repro.runtime.captioning import read_clips
from atom_repro.training.captioning_model import CaptioningModel
from atom_repro.training.data import TrainingData
from atom_repro.training.network import inference_modules

_BATCH_SIZE = 50


def validation_cider(
    network: CaptioningModel, data: TrainingData, settings: GenerationSettings
) -> float:
    """CIDEr (in points) on the validation clips; leaves the network in evaluation mode."""
    network.eval()
    encoder, decoder = inference_modules(network, data.tokenizer)
    captions = {}
    for first in range(0, len(data.validation), _BATCH_SIZE):
        batch = read_clips(data.validation[first : first + _BATCH_SIZE], network.model.encoder)
        generated: list[Generated] = []
        if batch.frames is not None:
            generated = decoder.generate(encoder(batch.frames), network.model.prompt, settings)
        for clip, outcome in zip(batch.clips, batch.outcomes(generated), strict=True):
            captions[clip.video_id] = scored_prediction(clip, outcome).caption
    references = {c.video_id: c.references for c in data.validation}
    return float(score_captions(captions, references, metrics=("cider",)).corpus["cider"])
