"""Micro-batches of a training step: captions, and text tasks beside them; first, single frames.

A step is `accumulate` micro-batches, each split over the processes. All of it is a function of
(seed, step), whatever the number of processes: each takes its rows of the same micro-batches.
Losses are means over target tokens, and rows differ in length, so every micro-batch has a weight
that makes the mean over a step's micro-batches the mean over its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atom_repro.datatypes import AtomError
from atom_repro.training.batches import CaptionBatches
from atom_repro.training.image_batches import ImageBatches
from atom_repro.training.text_batches import TextBatches


@dataclass(frozen=True)
class Processes:
    """Rank of this process and number of processes."""

    index: int = 0
    count: int = 1

    def rows(self, total: int, key: str) -> slice:
        """This process's rows of a batch of `total`.

        Raises:
            AtomError: they cannot be split evenly; names the setting.
        """
        if total % self.count:
            raise AtomError(f"{key}={total} cannot be split evenly over {self.count} processes")
        per_process = total // self.count
        return slice(self.index * per_process, (self.index + 1) * per_process)


@dataclass(frozen=True)
class TrainingSteps:
    """This process's micro-batches by step number, in the format of `CaptioningModel`.

    Args:
        text: rows of text without video, or None.
        questions: rows of questions about training clips, or None.
        text_every: interval in steps between steps with text tasks, 0 for none.
        unscored_ids: ids at the beginning of a caption that its loss leaves out.
        images: batches of single frames, of which the first `image_steps` steps are.
    """

    captions: CaptionBatches
    text: TextBatches | None = None
    questions: TextBatches | None = None
    text_every: int = 1
    accumulate: int = 1
    processes: Processes = Processes()
    unscored_ids: int = 0
    images: ImageBatches | None = None
    image_steps: int = 0

    def __call__(self, step: int) -> list[dict[str, Any]]:
        if self.images and step < self.image_steps:
            rows = self.processes.rows(self.images.size, "train.batch_size")
            first = step * self.accumulate
            return [self.images(first + micro, rows) for micro in range(self.accumulate)]
        step -= self.image_steps
        batch_numbers = [step * self.accumulate + micro for micro in range(self.accumulate)]
        batches = [self._captions(n) for n in batch_numbers]
        _set_loss_weights(batches, "caption_weight", self.processes)
        if self.text_every and step % self.text_every == 0:
            if self.text:
                self._add_text(batches, batch_numbers, self.text)
            if self.questions:
                self._add_questions(batches, batch_numbers, self.questions)
        return batches

    def _captions(self, number: int) -> dict[str, Any]:
        rows = self.processes.rows(self.captions.batch_size, "train.batch_size")
        frames, ids = self.captions(number, rows)
        targets = (ids[:, :, self.unscored_ids :] != self.captions.pad_id).sum(axis=(1, 2))
        return {"frames": frames, "captions": ids[rows], "targets": targets, "rows": rows}

    def _add_text(
        self, batches: list[dict[str, Any]], batch_numbers: list[int], text: TextBatches
    ) -> None:
        rows = self.processes.rows(text.batch_size, "train.text_batch_size")
        for batch, number in zip(batches, batch_numbers, strict=True):
            ids, target = text(number)
            batch |= {"text": ids[rows], "text_target": target[rows]}
            batch |= {"targets": target.sum(axis=1), "rows": rows}
        _set_loss_weights(batches, "text_weight", self.processes)

    def _add_questions(
        self, batches: list[dict[str, Any]], batch_numbers: list[int], questions: TextBatches
    ) -> None:
        rows = self.processes.rows(questions.batch_size, "train.text_questions")
        for batch, number in zip(batches, batch_numbers, strict=True):
            clips, ids, target = questions.with_clips(number)
            batch |= {"asked": ids[rows], "asked_target": target[rows]}
            batch["asked_frames"] = self.captions.frames(number, clips, rows)
            batch |= {"targets": target.sum(axis=1), "rows": rows}
        _set_loss_weights(batches, "asked_weight", self.processes)


def _set_loss_weights(batches: Sequence[dict[str, Any]], name: str, processes: Processes) -> None:
    """Replace the target counts of whole micro-batches by the weight `name` of this process's loss.

    Gradients are averaged over micro-batches and processes afterwards, which the weight corrects:
    it is 1 where all have equally many targets.
    """
    total = sum(int(batch["targets"].sum()) for batch in batches)
    shares = len(batches) * processes.count
    for batch in batches:
        batch[name] = shares * int(batch.pop("targets")[batch.pop("rows")].sum()) / total
