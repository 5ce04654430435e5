"""From a data set and a model to the tokenizer, steps and validation clips of a training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atom_repro.checkpoints.checkpoint import Checkpoint, starting_tokenizer
from atom_repro.config.schemas import TrainConfig
from atom_repro.datatypes import Clip
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import VideoLanguageModel
from atom_repro.training.batches import Augmentation, CaptionBatches, FrameBank, token_rarity
from atom_repro.training.text_batches import TextBatches
from atom_repro.training.training_steps import Processes, TrainingSteps

# Captions that are asked about in the texts that the tokenizer learns from.
_TOKENIZER_ROWS = 1000


@dataclass(frozen=True)
class TrainingData:
    """`epoch` counts the iterations (micro-batches of all processes) in which as many captions
    are shown as there are; `rarity` is that of each token, for the word loss; `longest` is the
    longest caption's number of ids."""

    tokenizer: Tokenizer
    steps: TrainingSteps
    validation: Sequence[Clip]
    rarity: Sequence[float]
    epoch: int
    longest: int

    def large_step(self) -> list[dict[str, Any]]:
        """The micro-batches of a step with text tasks, captions padded to the longest there is;
        texts are as long as the first step's."""
        parts = self.steps(0)
        for part in parts:
            more = self.longest - part["captions"].shape[2]
            part["captions"] = np.pad(part["captions"], ((0, 0), (0, 0), (0, more)))
        return parts


def training_data(
    model: VideoLanguageModel,
    dataset: Any,
    settings: TrainConfig,
    *,
    start: Checkpoint | None,
    augmentation: Augmentation,
    frames: Path,
    seed: int,
    processes: Processes,
    progress: Callable[[int], object],
) -> TrainingData:
    """Read the training split: frames of every clip to a mapped file, texts to ids.

    Args:
        dataset: prepared; one with `text_tasks` and `task_texts` adds text tasks.
        start: the weights that training starts from, whose tokenizer serves; None to learn one.
        frames: folder that keeps decoded frames for the next run.
        progress: told of each clip that was decoded.
    """
    clips = dataset.clips("train")
    tasks = _text_tasks(model, dataset, settings, seed)
    if start:
        tokenizer = starting_tokenizer(start, model)
    else:
        texts = [r for c in clips for r in c.references]
        if tasks:
            texts += dataset.task_texts(rows=_TOKENIZER_ROWS, seed=seed)
        tokenizer = Tokenizer.train(texts, model.decoder.vocabulary, model.specials)
    bank = FrameBank(
        clips,
        frames=model.encoder.frames,
        per_segment=settings.candidates_per_segment,
        size=model.encoder.image_size,
        folder=frames,
        name=dataset.fingerprint,
        progress=progress,
    )
    captions = [[model.training_ids(tokenizer, r) for r in c.references] for c in clips]
    batches = CaptionBatches(
        bank,
        captions,
        batch_size=settings.batch_size,
        captions_per_clip=settings.captions_per_clip,
        augmentation=augmentation,
        pad_id=tokenizer.pad_id,
        seed=seed,
    )
    room = model.decoder.max_positions
    steps = TrainingSteps(
        batches,
        text=_rows(tasks and tasks.rows, tokenizer, settings.text_batch_size, room),
        asked=_rows(
            tasks and tasks.visual_rows,
            tokenizer,
            settings.text_questions,
            room - model.encoder.visual_tokens,
        ),
        text_every=settings.text_every,
        accumulate=settings.accumulate,
        processes=processes,
    )
    special = (tokenizer.begin_id, tokenizer.end_id, tokenizer.pad_id)
    shown = settings.batch_size * settings.captions_per_clip
    return TrainingData(
        tokenizer=tokenizer,
        steps=steps,
        validation=dataset.clips("validation")[: settings.validation_clips],
        rarity=token_rarity(captions, model.decoder.vocabulary, special),
        epoch=max(1, sum(map(len, captions)) // shown),
        longest=max(len(ids) for ways in captions for ids in ways),
    )


def _text_tasks(model: VideoLanguageModel, dataset: Any, settings: TrainConfig, seed: int) -> Any:
    """The data set's text tasks, None where it has none or none are wanted."""
    wanted = settings.text_every and (settings.text_batch_size or settings.text_questions)
    if not (wanted and model.writes_text and hasattr(dataset, "text_tasks")):
        return None
    return dataset.text_tasks(
        mix=dict(settings.text_mix),
        words=settings.text_words,
        most_captions=settings.text_captions,
        easy_steps=settings.text_easy_steps,
        seed=seed,
    )


def _rows(rows: Any, tokenizer: Tokenizer, batch_size: int, room: int) -> TextBatches | None:
    if not (rows and batch_size):
        return None
    return TextBatches(rows, tokenizer, batch_size=batch_size, room=room)
