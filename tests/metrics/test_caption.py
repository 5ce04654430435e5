"""Captioning scores: the published sample to six digits, and the contract around them."""

from pathlib import Path

import numpy as np
import pytest

from atom_repro.metrics.bootstrap import corpus_bleu
from atom_repro.metrics.caption import (
    CaptionScores,
    leave_one_out,
    score_captions,
    strongest_constant,
)

pytestmark = pytest.mark.java

GOLDEN = Path(__file__).parent / "golden"
# Printed in the README of Maluuba/nlg-eval for its two-line example.
PUBLISHED = {
    "bleu_1": 0.550000,
    "bleu_2": 0.428174,
    "bleu_3": 0.284043,
    "bleu_4": 0.201143,
    "rouge_l": 0.522104,
    "meteor": 0.295797,
    "cider": 1.242192,
}
NO_METEOR = ("bleu", "rouge_l", "cider")  # spares the seconds of its start

REFERENCES = {
    "x": ["a red ball rolls right", "the red ball moves right", "a ball rolls"],
    "y": ["two boats on the sea", "two boats sail on water", "boats at the beach"],
    "z": ["a bird flies in the night", "a bird at night", "one bird is flying"],
}


def _lines(name: str) -> list[str]:
    return (GOLDEN / f"nlgeval_{name}.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def sample() -> CaptionScores:
    predictions = dict(zip("ab", _lines("hyp"), strict=True))
    references = dict(zip("ab", zip(_lines("ref1"), _lines("ref2"), strict=True), strict=True))
    return score_captions(predictions, references)


def test_the_published_sample_to_six_digits(sample: CaptionScores) -> None:
    assert list(sample.corpus) == list(sample.per_clip) == list(PUBLISHED)
    assert {name: round(value / 100, 6) for name, value in sample.corpus.items()} == PUBLISHED


def test_per_clip_values_belong_to_their_corpus_values(sample: CaptionScores) -> None:
    assert sample.ids == ("a", "b")
    for name in ("rouge_l", "cider"):
        assert sample.per_clip[name].mean() == pytest.approx(sample.corpus[name])
    assert all(values.shape == (2,) for values in sample.per_clip.values())


def test_bleu_statistics_give_corpus_bleu(sample: CaptionScores) -> None:
    assert sample.bleu_statistics is not None
    summed = corpus_bleu(sample.bleu_statistics.sum(axis=0))
    expected = [sample.corpus[f"bleu_{order}"] for order in (1, 2, 3, 4)]
    np.testing.assert_allclose(summed, expected, rtol=1e-12)


def test_of_two_equally_near_references_the_shorter_is_the_closest() -> None:
    text = "a red ball rolls right"  # five words, beside four and six
    references = {"x": ["a red ball rolls right now", "a red ball rolls"]}
    scores = score_captions({"x": text}, references, metrics=("bleu",))
    assert scores.bleu_statistics is not None
    assert scores.bleu_statistics[0, -2:].tolist() == [5, 4]
    # Longer than the closest reference: no brevity penalty, all five words matched.
    assert scores.corpus["bleu_1"] == pytest.approx(100.0)


def test_order_of_ids_does_not_matter_and_nothing_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    predictions = {"x": "a red ball rolls right", "y": "two boats", "z": "a dog"}
    forward = score_captions(predictions, REFERENCES, metrics=NO_METEOR)
    backward = score_captions(
        dict(reversed(predictions.items())),
        dict(reversed(REFERENCES.items())),
        metrics=NO_METEOR,
    )
    assert backward.ids == forward.ids[::-1]
    for name, value in forward.corpus.items():
        assert backward.corpus[name] == pytest.approx(value)
        np.testing.assert_allclose(backward.per_clip[name][::-1], forward.per_clip[name])
    assert forward.per_clip["cider"][0] > forward.per_clip["cider"][2]
    assert capsys.readouterr() == ("", "")


def test_captions_without_a_word_are_counted_and_score_nothing() -> None:
    scores = score_captions(
        {"x": "", "y": "? !", "z": "a bird at night"}, REFERENCES, metrics=NO_METEOR
    )
    assert scores.empty == 2
    for name in ("bleu_4", "rouge_l", "cider"):
        assert scores.per_clip[name][:2].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
        assert scores.per_clip[name][2] > 50.0


def test_ids_must_match_exactly() -> None:
    with pytest.raises(ValueError, match=r"2 clips have a prediction or references .*'w', 'z'"):
        score_captions({"x": "a", "y": "a", "w": "a"}, REFERENCES)
    with pytest.raises(ValueError, match="1 clips have no references"):
        score_captions({"x": "a"}, {"x": []})
    with pytest.raises(ValueError, match="not a string"):
        score_captions({"x": "a"}, {"x": "a red ball"})
    with pytest.raises(ValueError, match="no clips"):
        score_captions({}, {})
    with pytest.raises(ValueError, match=r"unknown metrics \['spice'\]"):
        score_captions({"x": "a"}, {"x": ["a"]}, metrics=("spice",))


def test_the_strongest_constant_has_the_highest_cider_of_all() -> None:
    references = {
        "1": ["a man runs on the beach"], "2": ["a man runs home"], "3": ["two boats at night"],
        "4": ["a dog on the beach"],
    }  # fmt: skip
    candidates = ["two boats", "a man", "a man runs on the beach", "the beach"]
    cider = [
        score_captions(dict.fromkeys(references, text), references, metrics=("cider",)).corpus[
            "cider"
        ]
        for text in candidates
    ]
    assert len(set(cider)) == len(candidates)
    best = candidates[cider.index(max(cider))]
    assert strongest_constant(candidates, references) == best
    assert strongest_constant([*candidates, best], references) == best


def test_leave_one_out_is_the_mean_over_positions() -> None:
    scores = leave_one_out(REFERENCES, metrics=NO_METEOR)
    rounds = [
        score_captions(
            {key: texts[k] for key, texts in REFERENCES.items()},
            {key: texts[:k] + texts[k + 1 :] for key, texts in REFERENCES.items()},
            metrics=NO_METEOR,
        )
        for k in range(3)
    ]
    for name, value in scores.corpus.items():
        assert value == pytest.approx(np.mean([each.corpus[name] for each in rounds]))
        expected = np.mean([each.per_clip[name] for each in rounds], axis=0)
        np.testing.assert_allclose(scores.per_clip[name], expected)
    first = leave_one_out(REFERENCES, metrics=NO_METEOR, positions=1)
    assert first.corpus == rounds[0].corpus


def test_leave_one_out_needs_two_references() -> None:
    with pytest.raises(ValueError, match="the fewest has 1"):
        leave_one_out({"x": ["a", "b"], "y": ["a"]})
    with pytest.raises(ValueError, match="of 4 positions"):
        leave_one_out(REFERENCES, positions=4)
