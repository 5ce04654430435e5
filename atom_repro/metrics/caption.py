"""Captioning scores as the paper prints them: BLEU, ROUGE-L, METEOR and CIDEr, in per cent.

The scorers are pycocoevalcap's, called one by one. `COCOEvalCap.evaluate` is not used: it
builds SPICE first, which downloads a parser. CIDEr weighs n-grams by how rare they are in the
references of the evaluated set, so it belongs to a set, not to a clip: CIDErs of two sets, or
of shards of one, neither compare nor average, and a set of one clip scores 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atom_repro.metrics.meteor import shared_meteor
from atom_repro.metrics.ptb import tokenise

METRICS = ("bleu", "rouge_l", "meteor", "cider")
_BLEU_ORDER = 4


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a set of captions, in per cent (a CIDEr may exceed 100).

    `corpus` and `per_clip` have the same keys, in the order bleu_1 … bleu_4, rouge_l, meteor,
    cider, as far as they were requested. `per_clip` follows `ids`. The corpus value is the mean
    of the clips for rouge_l and cider only; BLEU and METEOR sum statistics first.

    `bleu_statistics` has for each clip and order the matched n-grams (4 columns) and the
    n-grams of the hypothesis (4), then the length of the hypothesis and of the closest
    reference: what `bootstrap.corpus_bleu` needs. None without BLEU, and for a leave-one-out.
    """

    ids: tuple[str, ...]
    corpus: Mapping[str, float]
    per_clip: Mapping[str, NDArray[np.float64]]
    empty: int
    bleu_statistics: NDArray[np.int64] | None = None


def score_captions(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    metrics: Sequence[str] = METRICS,
    java: str | Path | None = None,
) -> CaptionScores:
    """Scores one caption per clip against the clip's references.

    Args:
        predictions: plain sentences; an empty one scores 0 and is counted in `empty`.
        references: at least one plain sentence for each of the same clips.
        metrics: any of `METRICS`. All need Java for the tokenizer, METEOR also for itself.
        java: see `java.find_java`.

    Raises:
        ValueError: no clips, the ids differ, a clip without references, an unknown metric.
        AtomError: no usable Java.
    """
    _check(predictions, references, metrics)
    tokenised_references = tokenise(references, java=java)
    hypotheses = tokenise({key: [predictions[key]] for key in references}, java=java)
    return _score(
        {key: texts[0] for key, texts in hypotheses.items()}, tokenised_references, metrics, java
    )


def strongest_constant(
    candidates: Sequence[str],
    references: Mapping[str, Sequence[str]],
    *,
    java: str | Path | None = None,
) -> str:
    """The candidate with the highest CIDEr as the caption of every clip; of equals the first.

    Args:
        references: of other clips than those that it is then scored on.
    """
    tokenised_references = tokenise(references, java=java)
    tokenised = tokenise({text: [text] for text in candidates}, java=java)

    def cider(text: str) -> float:
        constant = dict.fromkeys(references, tokenised[text][0])
        return _score(constant, tokenised_references, ("cider",), java).corpus["cider"]

    return max(candidates, key=cider)


def leave_one_out(
    references: Mapping[str, Sequence[str]],
    *,
    metrics: Sequence[str] = METRICS,
    positions: int | None = None,
    java: str | Path | None = None,
) -> CaptionScores:
    """Scores each clip's references against its other ones: human agreement, no upper bound.

    At position k every clip's k-th reference is the hypothesis and its other references are
    the references; the result is the mean over positions. A position's CIDEr takes document
    frequencies from the references that remain at that position. As one reference is missing
    throughout, the values sit a little below those against the full set.

    Args:
        references: at least two sentences a clip.
        metrics: any of `METRICS`.
        positions: how many, from the first; None for the fewest references of any clip.
        java: see `java.find_java`.

    Returns:
        Scores whose `empty` counts over all positions.

    Raises:
        ValueError: no clips, a clip with fewer than two references, too many positions.
        AtomError: no usable Java.
    """
    _check(references, references, metrics)
    fewest = min(len(texts) for texts in references.values())
    if positions is None:
        positions = fewest
    if fewest < 2 or not 1 <= positions <= fewest:
        raise ValueError(
            f"leave-one-out of {positions} positions needs as many references, and at least 2, "
            f"for every clip; the clip with the fewest has {fewest}"
        )
    tokenised = tokenise(references, java=java)
    rounds = [
        _score(
            {key: texts[k] for key, texts in tokenised.items()},
            {key: texts[:k] + texts[k + 1 :] for key, texts in tokenised.items()},
            metrics,
            java,
        )
        for k in range(positions)
    ]
    return CaptionScores(
        ids=rounds[0].ids,
        corpus={
            name: float(np.mean([each.corpus[name] for each in rounds]))
            for name in rounds[0].corpus
        },
        per_clip={
            name: np.mean([each.per_clip[name] for each in rounds], axis=0)
            for name in rounds[0].per_clip
        },
        empty=sum(each.empty for each in rounds),
    )


def _check(
    predictions: Mapping[str, object],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str],
) -> None:
    if unknown := set(metrics) - set(METRICS):
        raise ValueError(f"unknown metrics {sorted(unknown)}; known are {list(METRICS)}")
    if not references:
        raise ValueError("no clips to score")
    if unpaired := sorted(predictions.keys() ^ references.keys()):
        raise ValueError(
            f"{len(unpaired)} clips have a prediction or references but not both, such as "
            f"{unpaired[:3]}"
        )
    if missing := [key for key, texts in references.items() if not texts]:
        raise ValueError(f"{len(missing)} clips have no references, such as {missing[:3]}")
    if strings := [key for key, texts in references.items() if isinstance(texts, str)]:
        raise ValueError(f"references are a list of sentences, not a string ({strings[0]})")


def _score(
    hypotheses: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str],
    java: str | Path | None,
) -> CaptionScores:
    """Scores tokenised captions; both mappings have the same keys in the same order."""
    corpus: dict[str, float] = {}
    per_clip: dict[str, NDArray[np.float64]] = {}
    bleu_statistics = None
    # pycocoevalcap relies on equal key order and takes lists of one hypothesis.
    truth = {key: list(texts) for key, texts in references.items()}
    candidates = {key: [hypotheses[key]] for key in truth}

    if "bleu" in metrics:
        values, clips, bleu_statistics = _bleu(hypotheses, truth)
        for order in range(_BLEU_ORDER):
            corpus[f"bleu_{order + 1}"] = values[order]
            per_clip[f"bleu_{order + 1}"] = clips[order]
    if "rouge_l" in metrics:
        from pycocoevalcap.rouge.rouge import Rouge

        corpus["rouge_l"], per_clip["rouge_l"] = Rouge().compute_score(truth, candidates)
    if "meteor" in metrics:
        corpus["meteor"], per_clip["meteor"] = shared_meteor(java).score(hypotheses, truth)
    if "cider" in metrics:
        from pycocoevalcap.cider.cider import Cider

        corpus["cider"], per_clip["cider"] = Cider().compute_score(truth, candidates)

    return CaptionScores(
        ids=tuple(truth),
        corpus={name: 100.0 * float(value) for name, value in corpus.items()},
        per_clip={name: 100.0 * np.asarray(values) for name, values in per_clip.items()},
        empty=sum(not text for text in hypotheses.values()),
        bleu_statistics=bleu_statistics,
    )


def _bleu(
    hypotheses: Mapping[str, str], references: Mapping[str, list[str]]
) -> tuple[list[float], list[NDArray[np.float64]], NDArray[np.int64]]:
    """Returns corpus BLEU-1..4, per-clip BLEU-1..4, and the n-gram statistics of each clip."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=_BLEU_ORDER)
    for key, texts in references.items():
        scorer += (hypotheses[key], texts)
    corpus, clips = scorer.compute_score(option="closest", verbose=0)
    statistics = [
        (
            *clip["correct"],
            *clip["guess"],
            clip["testlen"],
            _closest_length(clip["reflen"], clip["testlen"]),
        )
        for clip in scorer.ctest
    ]
    return corpus, [np.array(values) for values in clips], np.array(statistics, dtype=np.int64)


def _closest_length(reference_lengths: Sequence[int], length: int) -> int:
    """Returns the nearest reference length, the shorter of two equally near ones."""
    return min((abs(each - length), each) for each in reference_lengths)[1]
