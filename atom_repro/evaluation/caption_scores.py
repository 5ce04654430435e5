"""Caption metrics with baselines, per group of the test set, and int8 minus fp32.

The values and samples that `eval.caption` records (paper section 5.2, Table 1).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atom_repro.datatypes import AtomError, Clip, Prediction
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
_CORPUS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", *_PER_CLIP)


# Of so many central sentences the strongest is taken, by its scores on so many training clips.
_CANDIDATES, _CLIPS = 50, 500


def require_references(clips: Sequence[Clip]) -> None:
    """Check, before any clip is captioned, that every caption can be scored.

    Raises:
        AtomError: a clip has no reference; names the first.
    """
    bare = [clip.video_id for clip in clips if not clip.references]
    if bare or not clips:
        first = f", such as {bare[0]}" if bare else ""
        raise AtomError(
            f"{len(bare)} of {len(clips)} clips have no reference{first}; scores need at least one "
            "for each clip"
        )


def training_references(dataset: Any) -> References:
    """References of a data set's training clips; none where it has no training split."""
    splits = getattr(dataset, "splits", ("train",))
    clips = dataset.clips("train") if "train" in splits else []
    return {clip.video_id: clip.references for clip in clips if clip.references}


def constant_sentence(training: References, *, java: str | Path | None) -> str:
    """The sentence that earns the most as the caption of every training clip; empty where there is
    none."""
    if not training:
        return ""
    ids = list(training)
    some = {video: training[video] for video in ids[:: max(1, len(ids) // _CLIPS)]}
    return strongest_constant(central_sentences(training, _CANDIDATES), some, java=java)


def baselines(
    references: References, constant: str, *, java: str
) -> tuple[dict[str, Mapping[str, float | None]], list[str]]:
    """Scores of captioners that ignore the video, and of human captions against each other.

    Args:
        constant: the sentence of the constant captioner, chosen without these references; empty
            for none.

    Returns:
        Corpus scores of each baseline, None for every metric of one that these data do not allow;
        and a line for each of those.
    """
    rows: dict[str, Mapping[str, float | None]] = {}
    left_out = []
    shuffled = shuffled_predictions(references) if len(references) > 1 else {}
    for name, predictions, reason in (
        ("floor_constant_sentence", constant_predictions(constant, references) if constant else {},
         "no floor of a constant sentence: the data set has no training split to choose one from"),
        ("floor_next_video", shuffled,
         "no floor of the next video's caption: there is one clip"),
    ):  # fmt: skip
        if predictions:
            rows[name] = score_captions(predictions, references, java=java).corpus
        else:
            rows[name] = dict.fromkeys(_CORPUS)
            left_out.append(reason)
    if min(map(len, references.values())) > 1:
        rows["people_leave_one_out"] = leave_one_out(references, java=java).corpus
    else:
        rows["people_leave_one_out"] = dict.fromkeys(_CORPUS)
        left_out.append("no scores of people against each other: a clip has one reference alone")
    return rows, left_out


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
