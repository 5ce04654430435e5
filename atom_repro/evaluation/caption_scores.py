"""Caption metrics with baselines, per group of the test set, and int8 minus fp32.

The values and samples that `eval.caption` records (paper section 5.2, Table 1).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atom_repro.datatypes import Clip, Prediction
from atom_repro.metrics.attributes import attribute_accuracy
from atom_repro.metrics.bootstrap import paired_bleu_difference, paired_difference
from atom_repro.metrics.caption import (
    CaptionScores,
    leave_one_out,
    score_captions,
    strongest_constant,
)
from atom_repro.metrics.floors import (
    central_sentences,
    constant_predictions,
    shuffled_predictions,
)
from atom_repro.records.record import Record

References = Mapping[str, Sequence[str]]
_PER_CLIP = ("rouge_l", "meteor", "cider")


# Of so many central sentences the strongest is taken, by its scores on so many training clips.
_CANDIDATES, _CLIPS = 50, 500


def constant_sentence(training: References, *, java: str | Path | None) -> str:
    """The sentence that earns the most as the caption of every training clip."""
    ids = list(training)
    some = {video: training[video] for video in ids[:: max(1, len(ids) // _CLIPS)]}
    return strongest_constant(central_sentences(training, _CANDIDATES), some, java=java)


def baselines(references: References, constant: str, *, java: str) -> dict[str, Any]:
    """Scores of captioners that ignore the video, and of human captions against each other.

    Args:
        constant: the sentence of the constant captioner, chosen without these references.
    """
    return {
        "floor_constant_sentence": score_captions(
            constant_predictions(constant, references), references, java=java
        ),
        "floor_next_video": score_captions(shuffled_predictions(references), references, java=java),
        "people_leave_one_out": leave_one_out(references, java=java),
    }


def groups_of(clips: Sequence[Clip]) -> list[str]:
    """Group of each clip: `seen` or `held_out` combinations; `all` for a set without groups."""
    return [str(clip.meta.get("combination", "all")) for clip in clips]


def scores_by_group(
    captions: Mapping[str, str], references: References, clips: Sequence[Clip], *, java: str
) -> dict[str, dict[str, float]]:
    """Corpus scores of each group of the test set; empty for a set without groups."""
    groups, scores = groups_of(clips), {}
    for group in sorted(set(groups) - {"all"}):
        video_ids = [c.video_id for c, g in zip(clips, groups, strict=True) if g == group]
        group_scores = score_captions(
            {v: captions[v] for v in video_ids}, {v: references[v] for v in video_ids}, java=java
        )
        scores[group] = dict(group_scores.corpus)
    return scores


def attributes_by_group(
    dataset: Any, predictions: Sequence[Prediction], clips: Sequence[Clip]
) -> dict[str, dict[str, list[int]]]:
    """Counts [correct, total] of stated attributes, by group and attribute.

    Args:
        dataset: with ground truth, that is `stated` and `truth`.
    """
    accuracy = attribute_accuracy(
        [dataset.stated(p.caption) for p in predictions],
        [dataset.truth(c) for c in clips],
        groups_of(clips),
    )
    return {
        group: {name: [a.correct, a.total] for name, a in by_name.items()}
        for group, by_name in accuracy.items()
    }


def minus_fp32(
    scores: CaptionScores, captions: Mapping[str, str], fp32: Record, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Paired difference of each metric to the fp32 record, with 95 % intervals."""
    assert scores.bleu_statistics is not None, "BLEU was scored"
    fp32_samples = {line["video_id"]: line for line in fp32.samples()}
    fp32_lines = [fp32_samples[v] for v in scores.ids]
    differences = {
        name: paired_difference(
            scores.per_clip[name],
            [line[name] for line in fp32_lines],
            resamples=resamples,
            seed=seed,
        )
        for name in _PER_CLIP
    }
    differences["bleu_4"] = paired_bleu_difference(
        scores.bleu_statistics,
        [line["bleu_statistics"] for line in fp32_lines],
        resamples=resamples,
        seed=seed,
    )
    return {
        "record": fp32.run_id,
        "identical_captions": sum(captions[v] == fp32_samples[v]["caption"] for v in scores.ids),
        **{name: interval.to_dict() for name, interval in differences.items()},
    }


def samples(predictions: Sequence[Prediction], scores: CaptionScores) -> list[dict[str, Any]]:
    """One sample per clip: its caption and per-clip scores."""
    assert scores.bleu_statistics is not None, "BLEU was scored"
    return [
        {
            "video_id": prediction.video_id,
            "caption": prediction.caption,
            "token_ids": prediction.token_ids,
            "log_prob": prediction.log_prob,
            **{name: float(scores.per_clip[name][i]) for name in _PER_CLIP},
            "bleu_statistics": scores.bleu_statistics[i].tolist(),
        }
        for i, prediction in enumerate(predictions)
    ]
