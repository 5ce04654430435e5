"""Caption scores beside floors and people, by part of the test set, and int8 minus fp32.

What `eval.caption` records (paper section 5.2, Table 1).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from atom_repro.datatypes import Clip, Prediction
from atom_repro.metrics.attributes import attribute_accuracy
from atom_repro.metrics.bootstrap import paired_bleu_difference, paired_difference
from atom_repro.metrics.caption import CaptionScores, leave_one_out, score_captions
from atom_repro.metrics.floors import (
    constant_predictions,
    constant_sentence,
    shuffled_predictions,
)
from atom_repro.records.record import Record

References = Mapping[str, Sequence[str]]
_PER_CLIP = ("rouge_l", "meteor", "cider")


def baselines(references: References, training: References, *, java: str) -> dict[str, Any]:
    """Scores of captioners that never look at a clip, and of people against each other.

    Args:
        training: the references of the training split, for the constant sentence.
    """
    constant = constant_predictions(constant_sentence(training), references)
    return {
        "floor_constant_sentence": score_captions(constant, references, java=java),
        "floor_next_video": score_captions(shuffled_predictions(references), references, java=java),
        "people_leave_one_out": leave_one_out(references, java=java),
    }


def groups_of(clips: Sequence[Clip]) -> list[str]:
    """The part of the test set of each clip: `seen` or `held_out` combinations, or `all`."""
    return [str(clip.meta.get("combination", "all")) for clip in clips]


def scores_by_group(
    captions: Mapping[str, str], references: References, clips: Sequence[Clip], *, java: str
) -> dict[str, dict[str, float]]:
    """Corpus scores of each part of the test set; empty for a set without parts."""
    groups, scores = groups_of(clips), {}
    for group in sorted(set(groups) - {"all"}):
        part = [c.video_id for c, g in zip(clips, groups, strict=True) if g == group]
        of_part = score_captions(
            {v: captions[v] for v in part}, {v: references[v] for v in part}, java=java
        )
        scores[group] = dict(of_part.corpus)
    return scores


def attributes_by_group(
    dataset: Any, predictions: Sequence[Prediction], clips: Sequence[Clip]
) -> dict[str, dict[str, list[int]]]:
    """Correct and total statements by part of the set and attribute.

    Args:
        dataset: one that knows the truth, with `stated` and `truth`.
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
    scores: CaptionScores, captions: Mapping[str, str], fp32: Record, *, draws: int, seed: int
) -> dict[str, Any]:
    """Each metric minus that of the fp32 record, clip by clip, with 95 % intervals."""
    assert scores.bleu_statistics is not None, "BLEU was scored"
    before = {line["video_id"]: line for line in fp32.samples()}
    order = [before[v] for v in scores.ids]
    differences = {
        name: paired_difference(
            scores.per_clip[name], [line[name] for line in order], draws=draws, seed=seed
        )
        for name in _PER_CLIP
    }
    differences["bleu_4"] = paired_bleu_difference(
        scores.bleu_statistics,
        [line["bleu_statistics"] for line in order],
        draws=draws,
        seed=seed,
    )
    return {
        "record": fp32.run_id,
        "identical_captions": sum(captions[v] == before[v]["caption"] for v in scores.ids),
        **{name: interval.to_dict() for name, interval in differences.items()},
    }


def samples(predictions: Sequence[Prediction], scores: CaptionScores) -> list[dict[str, Any]]:
    """A line a clip: its caption, and what each metric needs of it."""
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
