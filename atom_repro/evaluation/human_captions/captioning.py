"""Caption metrics of human captions: one person against the others, a consensus, and floors.

The values and samples of a record: numbers and ids, never a caption's text.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atom_repro.datatypes import Clip
from atom_repro.evaluation.caption_scores import constant_sentence
from atom_repro.evaluation.human_captions.captioner import (
    HumanCaptioner,
    HumanCaptions,
    Study,
    consensus,
    draw_captions,
)
from atom_repro.metrics.bootstrap import clustered_interval, corpus_bleu, paired_bleu_difference
from atom_repro.metrics.caption import METRICS, CaptionScores, score_captions
from atom_repro.metrics.floors import constant_predictions, shuffled_predictions

REPORTED_METRICS = ("bleu_4", "rouge_l", "meteor", "cider")


def caption_study(
    clips: Sequence[Clip],
    training: Mapping[str, Sequence[str]],
    captioner: HumanCaptioner,
    *,
    resamples: int,
    seed: int,
    java: str | Path | None,
    progress: Callable[[str], object],
    metrics: Sequence[str] = METRICS,
) -> Study:
    """Score human captions like those of a captioner.

    A human caption is scored against the clip's other captions, one fewer than a model's; floors
    against all of them. Rows with `copies out` also drop references equal to the caption: with
    them, a caption that several people wrote is scored against itself. `best of n draws` takes
    for each clip the drawn caption with the highest CIDEr.

    Args:
        clips: of a captioning protocol.
        training: captions of training clips, for the constant sentence; empty to leave it out.
        captioner: settings of the draws.
        resamples: of the bootstrap over clips.
        seed: seed of the bootstrap.
        java: see `java.find_java`.
        progress: called with the name of each row before it is scored.
        metrics: BLEU and CIDEr are needed, the others may be left out.
    """
    references = {c.video_id: c.references for c in clips}

    def scored(name: str, captions: HumanCaptions) -> CaptionScores:
        progress(name)
        return score_captions(captions.predictions, captions.references, metrics=metrics, java=java)

    drawn = draw_captions(clips, captioner.draws, captioner.seed)
    random_scores = [scored(f"one at random/{d}", captions) for d, captions in enumerate(drawn)]
    best_draw = np.argmax([s.per_clip["cider"] for s in random_scores], axis=0)
    best_positions = [int(drawn[d].position[i]) for i, d in enumerate(best_draw)]
    consensus_captions = consensus(clips)
    rows = {
        "one at random": random_scores,
        "one at random, copies out": [scored("copies out", drawn[0].without_duplicates(clips))],
        "consensus, references known, copies out": [
            scored("consensus, copies out", consensus_captions.without_duplicates(clips))
        ],
        "consensus, references known": [scored("consensus", consensus_captions)],
        f"best of {captioner.draws} draws, references known": [
            scored("best of the draws", HumanCaptions.of(clips, best_positions))
        ],
        "floor: next video's caption": [
            scored("floor", _against_all(shuffled_predictions(references), references))
        ],
    }
    sentence = ""
    if training:
        sentence = constant_sentence(training, java=java)
        constant = constant_predictions(sentence, references)
        rows["floor: constant sentence"] = [scored("constant", _against_all(constant, references))]
    values = {
        "videos": len(clips),
        "captions": sum(len(c.references) for c in clips),
        "draws": captioner.draws,
        "constant_sentence": sentence,
        "rows": {name: _row(scores, resamples, seed) for name, scores in rows.items()},
    }
    return Study(values, _samples(clips, rows))


def _against_all(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> HumanCaptions:
    return HumanCaptions(
        dict(predictions), {k: tuple(v) for k, v in references.items()}, np.array([], np.int64)
    )


def _row(scores: Sequence[CaptionScores], resamples: int, seed: int) -> dict[str, Any]:
    """Means over draws with bootstrap intervals over clips.

    BLEU pools the draws' n-gram counts clip by clip. METEOR's corpus score is not the mean over
    clips; its interval is that of the mean, shifted to the corpus score.
    """
    row: dict[str, Any] = {}
    pooled = np.sum([np.asarray(s.bleu_statistics) for s in scores], axis=0)
    # The bootstrap of one BLEU is that of its difference to zero counts.
    bleu_interval = paired_bleu_difference(
        pooled, np.zeros_like(pooled), resamples=resamples, seed=seed
    )
    bleu = float(corpus_bleu(pooled.sum(axis=0))[3])
    row["bleu_4"] = {"mean": bleu, "low": bleu_interval.low, "high": bleu_interval.high}
    names = [name for name in REPORTED_METRICS if name in scores[0].corpus]
    for name in names[1:]:
        corpus = float(np.mean([s.corpus[name] for s in scores]))
        clips = np.mean([s.per_clip[name] for s in scores], axis=0)
        interval = clustered_interval(clips, np.arange(len(clips)), resamples=resamples, seed=seed)
        shift = corpus - interval.mean
        row[name] = {"mean": corpus, "low": interval.low + shift, "high": interval.high + shift}
    spread = {name: [s.corpus[name] for s in scores] for name in names}
    return row | {
        "draws": {name: [min(v), max(v)] for name, v in spread.items()},
        "empty_captions": scores[0].empty,
    }


def _samples(
    clips: Sequence[Clip], rows: Mapping[str, Sequence[CaptionScores]]
) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [
        {"video_id": c.video_id, "captions": len(c.references), "cider": {}} for c in clips
    ]
    for name, scores in rows.items():
        cider = np.mean([s.per_clip["cider"] for s in scores], axis=0)
        for line, value in zip(lines, cider, strict=True):
            line["cider"][name] = round(float(value), 2)
    return lines
