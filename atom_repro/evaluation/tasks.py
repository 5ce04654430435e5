"""Evaluation of the pipeline tasks against ground truth, with baselines.

Every function runs a pipeline of `conf/pipeline` on the generated data set and yields one sample
per item. It scores the `model`, the baselines `rank` (no decoder: the clips in rank order, the
first caption, the most frequent answer, the whole video) and `random`, and the `oracle`: the same
decoder with true captions in place of the model's. The oracle shows what caption errors cost, the
baselines what the decoder gains. Scores are from 0 to 1.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from atom_repro import prompts as prompt_templates
from atom_repro.data.toy.truth import AssemblyRequest, Event, VideoQuestion, scene_at, scenes_of
from atom_repro.datatypes import Clip, Prediction
from atom_repro.metrics.localisation import temporal_iou
from atom_repro.metrics.script import score_script, shuffled_script
from atom_repro.metrics.summary import (
    attribute_overlap,
    first_caption,
    joined_captions,
    normalised,
)
from atom_repro.pipelines.assembly import Assembly
from atom_repro.pipelines.captioned_clips import CaptionedClips
from atom_repro.pipelines.localisation import Localisation
from atom_repro.pipelines.questions import QuestionAnswering
from atom_repro.pipelines.summary import Summarisation
from atom_repro.runtime.runtime import Runtime

Sample = dict[str, Any]
Progress = Callable[[int], object]


class GroundTruth(Protocol):
    """A data set with the true attributes of its clips, and those that a caption states."""

    def stated(self, caption: str) -> dict[str, set[str]]: ...
    def truth(self, clip: Clip) -> dict[str, set[str]]: ...


@dataclass(frozen=True)
class CaptionSources:
    """The same clips with two sources of captions: the model, and the ground truth (`oracle`)."""

    model: CaptionedClips
    oracle: CaptionedClips

    def where(self, predicate: Callable[[Clip], bool]) -> "CaptionSources":
        """Only the clips for which `predicate` is true."""
        return CaptionSources(_filtered(self.model, predicate), _filtered(self.oracle, predicate))


def caption_sources(
    runtime: Runtime, clips: Sequence[Clip], captions: Mapping[str, str]
) -> CaptionSources:
    """Embed the model's captions and the true captions of clips.

    Args:
        clips: each with references, or windows of a video whose scenes have some.
        captions: the model's caption of each clip id.
    """
    of_model = {clip.video_id: captions[clip.video_id] for clip in clips}
    of_oracle = {clip.video_id: _true_caption(clip) for clip in clips}
    return CaptionSources(
        _captioned_clips(runtime, clips, of_model), _captioned_clips(runtime, clips, of_oracle)
    )


def scripts(
    runtime: Runtime,
    task: Assembly,
    requests: Sequence[AssemblyRequest],
    sources: CaptionSources,
    *,
    seed: int,
    progress: Progress,
) -> Iterator[Sample]:
    """Order, coverage, duplicates and precision of scripts, over pools of one-scene clips."""
    rng = random.Random(f"scripts/{seed}")
    for request in requests:
        pool = sources.where(lambda clip, pool=request.pool: clip.video_id in pool)  # type: ignore[misc]
        arms: dict[str, list[str]] = {}
        written: dict[str, bool] = {}
        for name, captioned in (("model", pool.model), ("oracle", pool.oracle)):
            reply = task.respond(runtime, captioned, request.text, request.request_id)
            arms[name] = [shot.clip.video_id for shot in reply.result.shots]
            written[name] = reply.result.written
            if name == "model":
                arms["rank"] = [hit.clip.video_id for hit in reply.hits]
        order = shuffled_script(len(request.pool), rng, max_clips=task.candidates)
        arms["random"] = [request.pool[number - 1] for number in order]
        sample: Sample = {
            "task": "script",
            "item": request.request_id,
            "ordered": request.ordered,
            "written": written["model"],
        }
        for name, clips in arms.items():
            score = score_script(
                [f"{video_id}#0" for video_id in clips], request.wanted, ordered=request.ordered
            )
            sample[name] = {
                "order": score.order,
                "coverage": score.coverage,
                "duplicates": score.duplicates,
                "precision": score.precision,
                "clips": clips,
            }
        progress(1)
        yield sample


def answers(
    runtime: Runtime,
    task: QuestionAnswering,
    questions: Sequence[VideoQuestion],
    sources: CaptionSources,
    frequent_answers: Mapping[str, str],
    *,
    seed: int,
    progress: Progress,
) -> Iterator[Sample]:
    """Accuracy of answers from a clip's caption (`model`) and from its visual tokens (`visual`).

    Args:
        frequent_answers: the most frequent training answer of each kind of question.
    """
    rng = random.Random(f"answers/{seed}")
    answers_of_kind: dict[str, list[str]] = {}
    for video_question in questions:
        answers_of_kind.setdefault(video_question.question.kind, []).append(
            video_question.question.answer
        )
    clip_of = {clip.video_id: clip for clip in sources.oracle.clips}
    of_model = {p.video_id: p.caption for p in sources.model.predictions}
    of_oracle = {p.video_id: p.caption for p in sources.oracle.predictions}
    for video_question in questions:
        question, name = video_question.question, video_question.video_id

        def from_caption(
            captions: Mapping[str, str], text: str = question.text, name: str = name
        ) -> str:
            if name not in captions:
                return ""
            prompt = prompt_templates.answer(text, [captions[name]])
            return runtime.write(prompt, task.settings, stage="answer", item=name).text

        texts = {
            "model": from_caption(of_model),
            "visual": runtime.ask(
                clip_of[name], prompt_templates.visual_answer(question.text), task.settings
            ).text,
            "oracle": from_caption(of_oracle),
            "rank": frequent_answers.get(question.kind, ""),
            "random": rng.choice(answers_of_kind[question.kind]),
        }
        accepted = {normalised(text) for text in question.accepted}
        progress(1)
        yield {
            "task": "answer",
            "item": video_question.question_id,
            "kind": question.kind,
            "answer": question.answer,
            **{k: {"right": normalised(t) in accepted, "text": t} for k, t in texts.items()},
        }


def summaries(
    runtime: Runtime,
    task: Summarisation,
    videos: Sequence[Clip],
    sources: CaptionSources,
    ground_truth: GroundTruth,
    *,
    progress: Progress,
) -> Iterator[Sample]:
    """Attribute precision, recall and F1 of summaries of scenes and of whole videos."""
    for number, video in enumerate(videos):
        of_video = sources.where(lambda clip, path=video.path: clip.path == path)  # type: ignore[misc]
        other = videos[(number + 1) % len(videos)]
        of_other = sources.where(lambda clip, path=other.path: clip.path == path)  # type: ignore[misc]
        model_summaries = task.respond(runtime, of_video.model, "all", video.video_id).result
        oracle_summaries = task.respond(runtime, of_video.oracle, "all", video.video_id).result
        captions = [p.caption for p in of_video.model.predictions]
        video_texts = {
            "model": model_summaries[0].text if model_summaries else "",
            "oracle": oracle_summaries[0].text if oracle_summaries else "",
            "rank": joined_captions(captions) if captions else "",
            "random": joined_captions([p.caption for p in of_other.model.predictions]),
        }
        yield _attribute_scores(
            "video_summary", video.video_id, video_texts, ground_truth.truth(video), ground_truth
        )
        for scene in model_summaries[0].scenes if model_summaries else ():
            end_s = scene.end_s if scene.end_s is not None else float("inf")
            span = scene_at(video, scene.start_s, end_s)
            scene_texts = {
                "model": scene.text,
                "rank": first_caption(scene.captions),
                "random": of_other.model.predictions[0].caption if len(of_other.model) else "",
            }
            yield _attribute_scores(
                "scene_summary", span.scene_id, scene_texts, span.attributes, ground_truth
            )
        progress(1)


def moments(
    runtime: Runtime,
    task: Localisation,
    events: Sequence[Event],
    videos: Sequence[Clip],
    sources: CaptionSources,
    *,
    seed: int,
    progress: Progress,
) -> Iterator[Sample]:
    """Temporal IoU of the localised moment of a sentence, within its video."""
    rng = random.Random(f"moments/{seed}")
    by_id = {video.video_id: video for video in videos}
    for event in events:
        video = by_id[event.video_id]
        of_video = sources.where(lambda clip, path=video.path: clip.path == path)  # type: ignore[misc]
        true = (event.start_s, event.end_s)
        end_s = scenes_of(video)[-1].end_s
        start_s = rng.uniform(0.0, max(0.0, end_s - 10.0))
        spans: dict[str, tuple[float, float] | None] = {
            "rank": (0.0, end_s),
            "random": (start_s, min(end_s, start_s + 10.0)),
        }
        for name, captioned in (("model", of_video.model), ("oracle", of_video.oracle)):
            reply = task.respond(runtime, captioned, event.text, event.event_id)
            localised = reply.result
            spans[name] = (localised[0].start_s, localised[0].end_s) if localised else None
        progress(1)
        yield {
            "task": "moment",
            "item": event.event_id,
            **{
                name: {"iou": temporal_iou(span, true) if span else 0.0, "span": span}
                for name, span in spans.items()
            },
        }


def similarities(
    runtime: Runtime,
    sources: CaptionSources,
    clips: Sequence[Clip],
    unrelated_prompts: Sequence[str],
    *,
    pool: int,
    seed: int,
) -> list[Sample]:
    """Highest similarity in a random pool, for prompts with a matching clip and without one.

    Args:
        clips: with a query each; pools are drawn from them.
        unrelated_prompts: prompts about content that the data set never shows.
    """
    rng = random.Random(f"similarities/{seed}")
    row = {clip.video_id: i for i, clip in enumerate(sources.model.clips)}
    queries = [clip.queries[0].text for clip in clips]
    similarity = (
        runtime.embed([*queries, *unrelated_prompts], "threshold") @ sources.model.vectors.T
    )
    samples: list[Sample] = []
    for number, clip in enumerate(clips):
        distractors = rng.sample(
            [c.video_id for c in clips if c is not clip], min(pool, len(clips)) - 1
        )
        rows = [row[v] for v in distractors if v in row]
        if not rows:
            continue
        if clip.video_id in row:
            best = float(similarity[number, [*rows, row[clip.video_id]]].max())
            samples.append({"task": "threshold", "fits": True, "similarity": best})
        unrelated = len(queries) + number % len(unrelated_prompts)
        best = float(similarity[unrelated, rows].max())
        samples.append({"task": "threshold", "fits": False, "similarity": best})
    return samples


def best_threshold(samples: Sequence[Sample]) -> float | None:
    """Similarity threshold with the best balanced accuracy; None without samples."""
    values = sorted({sample["similarity"] for sample in samples})
    return max(values, key=lambda value: (balanced_accuracy(samples, value), value), default=None)


def balanced_accuracy(samples: Sequence[Sample], threshold: float) -> float:
    """Mean of the true positive rate and the true negative rate at a similarity threshold."""
    rates = []
    for fits in (True, False):
        predicted = [
            sample["similarity"] >= threshold for sample in samples if sample["fits"] is fits
        ]
        rates.append(sum(m is fits for m in predicted) / len(predicted) if predicted else 0.0)
    return sum(rates) / 2


def _attribute_scores(
    task: str,
    item: str,
    texts: Mapping[str, str],
    truth: Mapping[str, set[str]],
    ground_truth: GroundTruth,
) -> Sample:
    sample: Sample = {"task": task, "item": item}
    for name, text in texts.items():
        overlap = attribute_overlap([ground_truth.stated(text)], [truth])
        score = overlap.get("all")
        sample[name] = {
            "precision": score.precision if score else 0.0,
            "recall": score.recall if score else 0.0,
            "f1": score.f1 if score else 0.0,
            "words": len(text.split()),
            "text": text,
        }
    return sample


def _true_caption(clip: Clip) -> str:
    if clip.references:
        return clip.references[0]
    end_s = clip.end_s if clip.end_s is not None else float("inf")
    span = scene_at(clip, clip.start_s, end_s)
    number = int(span.scene_id.rsplit("#", 1)[1])
    return str(clip.meta["scenes"][number]["references"][0])


def _captioned_clips(
    runtime: Runtime, clips: Sequence[Clip], captions: Mapping[str, str]
) -> CaptionedClips:
    with_caption = [clip for clip in clips if captions[clip.video_id].strip()]
    return CaptionedClips(
        tuple(with_caption),
        tuple(Prediction(c.video_id, captions[c.video_id], (), 0.0) for c in with_caption),
        runtime.embed([captions[c.video_id] for c in with_caption], "captions"),
    )


def _filtered(captioned: CaptionedClips, predicate: Callable[[Clip], bool]) -> CaptionedClips:
    keep = [i for i, clip in enumerate(captioned.clips) if predicate(clip)]
    return CaptionedClips(
        tuple(captioned.clips[i] for i in keep),
        tuple(captioned.predictions[i] for i in keep),
        captioned.vectors[keep],
    )
