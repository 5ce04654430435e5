"""Training data of a model: tokenizer, training steps and validation clips of a data set."""

from collections.abc import Callable, Mapping, Sequence
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
from atom_repro.training.image_batches import ImageBatches, image_steps
from atom_repro.training.text_batches import TextBatches
from atom_repro.training.training_steps import Processes, TrainingSteps
from atom_repro.video.sampling import unseen

# Rows of text tasks that the tokenizer is trained on, beside the captions.
_TOKENIZER_ROWS = 1000


@dataclass(frozen=True)
class TrainingData:
    """Data of a training run: `epoch` is the number of iterations (micro-batches of all processes)
    of one epoch, `rarity` the weight of each token in the word loss, `longest` the length of the
    longest caption in ids, `faults` what could not be seen of clips, by their id."""

    tokenizer: Tokenizer
    steps: TrainingSteps
    validation: Sequence[Clip]
    rarity: Sequence[float]
    epoch: int
    longest: int
    faults: Mapping[str, str]

    @property
    def remark(self) -> str:
        """A line on the clips that are seen only in part; see `unseen`."""
        return unseen("training clips", self.faults)

    def longest_step(self) -> list[dict[str, Any]]:
        """Micro-batches of the first step of captions, with text tasks, captions padded to the
        longest of the data set: the input of the memory estimate."""
        batches = self.steps(self.steps.image_steps)
        for batch in batches:
            padding = self.longest - batch["captions"].shape[2]
            batch["captions"] = np.pad(batch["captions"], ((0, 0), (0, 0), (0, padding)))
        return batches


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
    """Prepare the training split: frames of every clip in a mapped file, texts as token ids.

    Args:
        dataset: prepared; one with `text_tasks` and `task_texts` adds text tasks.
        start: checkpoint whose weights and tokenizer are used; None to train a tokenizer.
        frames: folder that caches decoded frames for the next run.
        progress: called after each decoded clip.
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
    max_length = model.decoder.max_positions
    steps = TrainingSteps(
        batches,
        text=_text_batches(tasks and tasks.rows, tokenizer, settings.text_batch_size, max_length),
        questions=_text_batches(
            tasks and tasks.visual_rows,
            tokenizer,
            settings.text_questions,
            max_length - model.encoder.visual_tokens,
        ),
        text_every=settings.text_every,
        accumulate=settings.accumulate,
        processes=processes,
        unscored_ids=model.unscored_ids,
        images=ImageBatches(batches, size=settings.batch_size * model.encoder.frames)
        if image_steps(settings, model)
        else None,
        image_steps=image_steps(settings, model),
    )
    special = (tokenizer.begin_id, tokenizer.end_id, tokenizer.pad_id)
    captions_per_iteration = settings.batch_size * settings.captions_per_clip
    return TrainingData(
        tokenizer=tokenizer,
        steps=steps,
        validation=dataset.clips("validation")[: settings.validation_clips],
        rarity=token_rarity(captions, model.decoder.vocabulary, special),
        epoch=max(1, sum(map(len, captions)) // captions_per_iteration),
        longest=max(len(ids) for clip_captions in captions for ids in clip_captions),
        faults=bank.faults,
    )


def _text_tasks(model: VideoLanguageModel, dataset: Any, settings: TrainConfig, seed: int) -> Any:
    """The data set's text tasks, None where it has none or the settings ask for none."""
    has_text = settings.text_every and (settings.text_batch_size or settings.text_questions)
    if not (has_text and model.writes_text and hasattr(dataset, "text_tasks")):
        return None
    return dataset.text_tasks(
        mix=dict(settings.text_mix),
        row_words=settings.text_words,
        max_captions=settings.text_captions,
        curriculum_steps=settings.text_easy_steps,
        seed=seed,
    )


def _text_batches(
    rows: Any, tokenizer: Tokenizer, batch_size: int, max_length: int
) -> TextBatches | None:
    if not (rows and batch_size):
        return None
    return TextBatches(rows, tokenizer, batch_size=batch_size, max_length=max_length)
