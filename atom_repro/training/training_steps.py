"""What a training step sees: caption batches, and the text tasks beside them.

A step is `accumulate` micro-batches, each shared out between the processes. All of it is a
function of (seed, step), whatever the number of processes: each takes its rows of the same
micro-batches. Losses are means over target tokens, and rows differ in tokens, so every part
carries the weight that makes the mean over a step's parts the mean over its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from atom_repro.datatypes import AtomError
from atom_repro.training.batches import CaptionBatches
from atom_repro.training.text_batches import TextBatches

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is."""

    index: int = 0
    count: int = 1

    def rows(self, total: int, key: str) -> slice:
        """This process's rows of `total`.

        Raises:
            AtomError: they cannot be shared out evenly; names the setting.
        """
        if total % self.count:
            raise AtomError(f"{key}={total} cannot be shared out evenly to {self.count} processes")
        each = total // self.count
        return slice(self.index * each, (self.index + 1) * each)


@dataclass(frozen=True)
class TrainingSteps:
    """Step number `step`: the micro-batches of this process, as `CaptioningModel` takes them.

    Args:
        text: rows of text alone, or None.
        asked: rows of questions about training clips, or None.
        text_every: steps from one with text tasks to the next.
    """

    captions: CaptionBatches
    text: TextBatches | None = None
    asked: TextBatches | None = None
    text_every: int = 1
    accumulate: int = 1
    processes: Processes = Processes()

    def __call__(self, step: int) -> list[dict[str, Any]]:
        numbers = [step * self.accumulate + micro for micro in range(self.accumulate)]
        parts = [self._captions(n) for n in numbers]
        _weigh(parts, "caption_weight", self.processes)
        if step % self.text_every == 0:
            if self.text:
                self._add_text(parts, numbers, self.text)
            if self.asked:
                self._add_questions(parts, numbers, self.asked)
        return parts

    def _captions(self, number: int) -> dict[str, Any]:
        rows = self.processes.rows(self.captions.batch_size, "train.batch_size")
        frames, ids = self.captions(number, rows)
        targets = (ids != self.captions.pad_id).sum(axis=(1, 2))
        return {"frames": frames, "captions": ids[rows], "targets": targets, "rows": rows}

    def _add_text(self, parts: list[dict[str, Any]], numbers: list[int], text: TextBatches) -> None:
        rows = self.processes.rows(text.batch_size, "train.text_batch_size")
        for part, number in zip(parts, numbers, strict=True):
            ids, target = text(number)
            part |= {"text": ids[rows], "text_target": target[rows]}
            part |= {"targets": target.sum(axis=1), "rows": rows}
        _weigh(parts, "text_weight", self.processes)

    def _add_questions(
        self, parts: list[dict[str, Any]], numbers: list[int], asked: TextBatches
    ) -> None:
        rows = self.processes.rows(asked.batch_size, "train.text_questions")
        for part, number in zip(parts, numbers, strict=True):
            clips, ids, target = asked.with_clips(number)
            part |= {"asked": ids[rows], "asked_target": target[rows]}
            part["asked_frames"] = self.captions.frames(number, clips, rows)
            part |= {"targets": target.sum(axis=1), "rows": rows}
        _weigh(parts, "asked_weight", self.processes)


def _weigh(parts: Sequence[dict[str, Any]], name: str, processes: Processes) -> None:
    """Turn target counts of whole micro-batches into the weight of this process's mean.

    Gradients are averaged over micro-batches and processes afterwards, which the weight undoes:
    it is 1 where all have as many targets.
    """
    total = sum(int(part["targets"].sum()) for part in parts)
    equal = len(parts) * processes.count
    for part in parts:
        part[name] = equal * int(part.pop("targets")[part.pop("rows")].sum()) / total
