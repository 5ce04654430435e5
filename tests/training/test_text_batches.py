"""Rows of text examples as ids: what is a target, and that a prompt reads as it will when alone."""

import numpy as np
import pytest

from atom_repro.data.toy.training_tasks import TextExample
from atom_repro.datatypes import AtomError
from atom_repro.models.tokenizer import Tokenizer
from atom_repro.models.vlm import SpecialTokens
from atom_repro.training.text_batches import TextBatches

CONTEXT = "captions:\n 1. a red boat\n 2. two stars\n"
ROWS = [
    [
        TextExample("answer", CONTEXT, "question: what is red?\nanswer in a few words:", "boat"),
        TextExample("script", CONTEXT, "write a video script for: stars\nlines:", "2. stars"),
    ],
    [TextExample("answer", "captions:\n 1. a star\n", "question: where?\nanswer:", "at night")],
]
SEEN = [
    [TextExample("visual_answer", "", "question: what?\nanswer:", "boat", 7)],
    [TextExample("visual_answer", "", "question: how many?\nanswer:", "two", 3)],
]


@pytest.fixture
def tokenizer():
    return Tokenizer.train(
        [e.prompt + e.target for row in ROWS + SEEN for e in row] * 3, 330, SpecialTokens()
    )


def batches(tokenizer, rows=ROWS, **changed):
    return TextBatches(
        lambda step, count: rows, tokenizer, **({"batch_size": 2, "max_length": 200} | changed)
    )


def test_targets_are_what_the_decoder_says(tokenizer):
    ids, target = batches(tokenizer)(0)
    assert ids.dtype == np.int64
    assert target.dtype == bool
    assert ids.shape == target.shape
    for row, ids_L, target_L in zip(ROWS, ids, target, strict=True):
        said = "".join(
            tokenizer.decode(run) + "|"
            for run in np.split(ids_L, np.flatnonzero(np.diff(target_L)) + 1)[1::2]
        )
        assert said == "".join(f"{example.target}|" for example in row)
        assert (ids_L[target_L] == tokenizer.end_id).sum() == len(row)
        assert ids_L[0] == tokenizer.begin_id
        assert not target_L[0]
    assert not target[ids == tokenizer.pad_id].any()
    assert ids[1, -1] == tokenizer.pad_id


def test_a_prompt_in_a_row_has_the_tokens_of_a_prompt_alone(tokenizer):
    ids, target = batches(tokenizer)(0)
    for row, ids_L, target_L in zip(ROWS, ids, target, strict=True):
        context = tokenizer.encode(row[0].context)
        edges = np.flatnonzero(np.diff(target_L)) + 1
        asks = np.split(ids_L[1 + len(context) :], edges - 1 - len(context))[0::2]
        for example, ask in zip(row, asks, strict=False):
            assert [*context, *ask] == tokenizer.encode(example.prompt)


def test_rows_about_clips(tokenizer):
    clips, ids, target = batches(tokenizer, SEEN).with_clips(0)
    assert clips.tolist() == [7, 3]
    assert clips.dtype == np.int64
    assert ids.shape == target.shape
    assert target.any(axis=1).all()
    with pytest.raises(ValueError, match="not about a clip"):
        batches(tokenizer).with_clips(0)


def test_step_and_count_are_passed_on(tokenizer):
    asked = []

    def rows(step, count):
        asked.append((step, count))
        return ROWS

    TextBatches(rows, tokenizer, batch_size=2, max_length=200)(5)
    assert asked == [(5, 2)]


def test_a_row_that_does_not_fit_is_refused_by_key(tokenizer):
    with pytest.raises(AtomError, match=r"positions and 20 are left.*max_positions"):
        batches(tokenizer, max_length=20)(0)
