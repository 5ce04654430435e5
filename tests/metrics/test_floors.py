"""Captions that saw no video."""

import itertools
import random

import pytest

from atom_repro.metrics.floors import central_sentences, constant_predictions, shuffled_predictions


def test_the_constant_sentence_is_the_medoid_under_dice() -> None:
    rng = random.Random(0)
    training = {
        str(clip): [" ".join(rng.choices("abcdefgh", k=rng.randint(1, 6))) for _ in range(3)]
        for clip in range(30)
    }
    everything = list(itertools.chain.from_iterable(training.values()))

    def mean_dice(text: str) -> float:
        mine = set(text.split())
        return sum(
            2 * len(mine & set(other.split())) / (len(mine) + len(set(other.split())))
            for other in everything
        )

    best = max(mean_dice(text) for text in everything)
    chosen, second = central_sentences(training, 2)
    assert mean_dice(chosen) >= mean_dice(second)
    assert mean_dice(chosen) == pytest.approx(best)
    assert chosen == min(text for text in everything if mean_dice(text) > best - 1e-9)


def test_an_often_repeated_sentence_wins_and_blank_ones_never_do() -> None:
    training = {"1": ["a dog runs", ""], "2": ["a dog runs", "  "], "3": ["two boats sail"]}
    assert central_sentences(training, 1) == ["a dog runs"]
    with pytest.raises(ValueError, match="no training sentence"):
        central_sentences({"1": [""]}, 1)


def test_predictions_of_the_floors() -> None:
    assert constant_predictions("a dog", ["1", "2"]) == {"1": "a dog", "2": "a dog"}
    references = {"1": ["one", "uno"], "2": ["two"], "3": ["three"]}
    assert shuffled_predictions(references) == {"1": "two", "2": "three", "3": "one"}
    with pytest.raises(ValueError, match="at least two clips"):
        shuffled_predictions({"1": ["one"]})
    with pytest.raises(ValueError, match="1 clips have no references"):
        shuffled_predictions({"1": ["one"], "2": []})
