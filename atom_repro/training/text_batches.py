"""Batches of the text tasks: rows of token ids, and which of them the decoder should predict.

Like the caption batches they are functions of (seed, step) alone; the examples see to that.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atom_repro.data.toy.training_tasks import TextExample
from atom_repro.datatypes import AtomError

# Rows of a step: (step, count) to `count` lists of examples that share a context.
Rows = Callable[[int, int], list[list[TextExample]]]


class Encoder(Protocol):
    """What is needed of a tokenizer."""

    begin_id: int
    end_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]: ...


class TextBatches:
    """Batch number `step`: [begin] context, then ask, target and [end] of each of the row's
    examples, padded on the right.

    Args:
        rows: such as `ToyTasks.rows`.
        batch_size: rows.
        room: positions a row may take, which is the decoder's `max_positions` less the visual
            tokens that will be put in.
    """

    def __init__(self, rows: Rows, tokenizer: Encoder, *, batch_size: int, room: int) -> None:
        self._rows, self._tokenizer = rows, tokenizer
        self.batch_size, self._room = batch_size, room

    def __call__(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids (B, L) int64 and whether each is a target (B, L); the end token is one.

        Raises:
            AtomError: a row does not fit.
        """
        return self._padded(self._rows(step, self.batch_size))

    def with_clips(
        self, step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """The index of each row's training clip (B,), then ids and targets.

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
        if longest > self._room:
            raise AtomError(
                f"a row of text examples takes {longest} positions and {self._room} are left; "
                "lower train.text_words or raise model.decoder.max_positions"
            )
        ids_BL = np.full((len(rows), longest), self._tokenizer.pad_id, np.int64)
        target_BL = np.zeros(ids_BL.shape, bool)
        for row, (ids, target) in enumerate(tokens):
            ids_BL[row, : len(ids)], target_BL[row, : len(ids)] = ids, target
        return ids_BL, target_BL

    def _tokens(self, row: Sequence[TextExample]) -> tuple[list[int], list[bool]]:
        encode, end = self._tokenizer.encode, self._tokenizer.end_id
        known = encode(row[0].context) if row[0].context else []
        ids = [self._tokenizer.begin_id, *known]
        target = [False] * len(ids)
        for example in row:
            # Whole prompts are encoded, so that their tokens are those of a prompt on its own.
            ask, said = encode(example.prompt)[len(known) :], [*encode(example.target), end]
            ids += ask + said
            target += [False] * len(ask) + [True] * len(said)
        return ids, target
