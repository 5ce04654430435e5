"""Batches of text tasks: rows of token ids, and a mask of those that the decoder predicts.

Like the caption batches they are functions of (seed, step) alone, because the examples are.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atom_repro.data.toy.training_tasks import TextExample
from atom_repro.datatypes import AtomError

# (step, count) to the rows of a step: `count` lists of examples that share a context.
ExampleRows = Callable[[int, int], list[list[TextExample]]]


class TextTokenizer(Protocol):
    """The part of a tokenizer that batches need."""

    begin_id: int
    end_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]: ...


class TextBatches:
    """Batches by step number. A row is [begin] context, then prompt, target and [end] of each
    of its examples, padded on the right.

    Args:
        rows: for example `ToyTasks.rows`.
        batch_size: rows.
        max_length: positions that a row may take: the decoder's `max_positions` less the visual
            tokens that are inserted.
    """

    def __init__(
        self, rows: ExampleRows, tokenizer: TextTokenizer, *, batch_size: int, max_length: int
    ) -> None:
        self._rows, self._tokenizer = rows, tokenizer
        self.batch_size, self._max_length = batch_size, max_length

    def __call__(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids (B, L) int64 and target mask (B, L), which includes the end token.

        Raises:
            AtomError: a row is longer than `max_length`.
        """
        return self._padded(self._rows(step, self.batch_size))

    def with_clips(
        self, step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """The index of each row's training clip (B,), then ids and target mask.

        Raises:
            ValueError: a row is not about a clip.
        """
        rows = self._rows(step, self.batch_size)
        clips = [row[0].clip for row in rows if row[0].clip is not None]
        if len(clips) < len(rows):
            raise ValueError("a row is not about a clip")
        return (np.array(clips, np.int64), *self._padded(rows))

    def _padded(
        self, rows: Sequence[Sequence[TextExample]]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        tokens = [self._tokens(row) for row in rows]
        longest = max(len(ids) for ids, _ in tokens)
        if longest > self._max_length:
            raise AtomError(
                f"a row of text examples takes {longest} positions and {self._max_length} are "
                "left; lower train.text_words or raise model.decoder.max_positions"
            )
        ids_BL = np.full((len(rows), longest), self._tokenizer.pad_id, np.int64)
        target_BL = np.zeros(ids_BL.shape, bool)
        for row, (ids, target) in enumerate(tokens):
            ids_BL[row, : len(ids)], target_BL[row, : len(ids)] = ids, target
        return ids_BL, target_BL

    def _tokens(self, row: Sequence[TextExample]) -> tuple[list[int], list[bool]]:
        encode, end = self._tokenizer.encode, self._tokenizer.end_id
        context_ids = encode(row[0].context) if row[0].context else []
        ids = [self._tokenizer.begin_id, *context_ids]
        target = [False] * len(ids)
        for example in row:
            # The prompt is encoded with its context, so that the tokens equal those at inference.
            prompt_ids, target_ids = (
                encode(example.prompt)[len(context_ids) :],
                [*encode(example.target), end],
            )
            ids += prompt_ids + target_ids
            target += [False] * len(prompt_ids) + [True] * len(target_ids)
        return ids, target
