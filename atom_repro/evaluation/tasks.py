"""How well each task does where the truth is known: the pipelines against it, beside baselines.

Every function runs a pipeline of `conf/pipeline` on the generated data set and returns one line an
item. A line scores the model beside `rank` (no decoder: the clips as they were ranked, the first
caption, the usual answer, the whole video), `random`, and `oracle`: the same decoder, with true
captions in place of the model's. The last says what the captions cost, the others what the
decoder gains. Scores are shares from 0 to 1.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from atom_repro import prompts as wording
from atom_repro.data.toy.truth import AssemblyRequest, Event, VideoQuestion, scene_at, scenes_of
from atom_repro.datatypes import Clip, Prediction
from atom_repro.metrics.localisation import temporal_iou
from atom_repro.metrics.script import score_script, shuffled_script
from atom_repro.metrics.summary import (
    attribute_overlap,
    first_sentence,
    joined_sentences,
    normalised,
)
from atom_repro.pipelines.assembly import Assembly
from atom_repro.pipelines.captioned_clips import Footage
from atom_repro.pipelines.localisation import Localisation
from atom_repro.pipelines.questions import Questions
from atom_repro.pipelines.summary import Summary
from atom_repro.runtime.runtime import Runtime

Line = dict[str, Any]
Tell = Callable[[int], object]


class World(Protocol):
    """A data set that knows the truth about its clips."""

    def stated(self, caption: str) -> dict[str, set[str]]: ...
    def truth(self, clip: Clip) -> dict[str, set[str]]: ...


@dataclass(frozen=True)
class Seen:
    """The same clips twice: with the model's captions, and with true ones."""

    model: Footage
    oracle: Footage

    def of(self, wanted: Callable[[Clip], bool]) -> "Seen":
        return Seen(_part(self.model, wanted), _part(self.oracle, wanted))


def seen(runtime: Runtime, clips: Sequence[Clip], captions: Mapping[str, str]) -> Seen:
    """Footage of clips whose captions are known, and of their true captions.

    Args:
        clips: each with references, or windows of a video whose scenes have some.
        captions: of each clip by its id.
    """
    said = {clip.video_id: captions[clip.video_id] for clip in clips}
    true = {clip.video_id: _true_caption(clip) for clip in clips}
    return Seen(_footage(runtime, clips, said), _footage(runtime, clips, true))


def windows(
    videos: Sequence[Clip], cut: Callable[[Clip], Sequence[tuple[float, float]]]
) -> list[Clip]:
    """The windows of long videos as clips; `meta` stays the video's."""
    return [
        Clip(
            video.dataset,
            video.split,
            f"{video.video_id}@{start_s:g}",
            video.path,
            video.video_id,
            start_s,
            end_s,
            meta=video.meta,
        )
        for video in videos
        for start_s, end_s in cut(video)
    ]


def scripts(
    runtime: Runtime,
    task: Assembly,
    requests: Sequence[AssemblyRequest],
    shown: Seen,
    *,
    seed: int,
    tell: Tell,
) -> Iterator[Line]:
    """Order, coverage, duplicates and precision of scripts, over pools of one-scene clips."""
    rng = random.Random(f"scripts/{seed}")
    for request in requests:
        pool = shown.of(lambda clip, pool=request.pool: clip.video_id in pool)  # type: ignore[misc]
        arms: dict[str, list[str]] = {}
        written: dict[str, bool] = {}
        for name, footage in (("model", pool.model), ("oracle", pool.oracle)):
            reply = task.respond(runtime, footage, request.text, request.request_id)
            arms[name] = [shot.clip.video_id for shot in reply.result.shots]
            written[name] = reply.result.written
            if name == "model":
                arms["rank"] = [hit.clip.video_id for hit in reply.hits]
        order = shuffled_script(len(request.pool), rng, most=task.candidates)
        arms["random"] = [request.pool[number - 1] for number in order]
        line: Line = {
            "task": "script",
            "item": request.request_id,
            "ordered": request.ordered,
            "written": written["model"],
        }
        for name, clips in arms.items():
            score = score_script(
                [f"{video_id}#0" for video_id in clips], request.wanted, ordered=request.ordered
            )
            line[name] = {
                "order": score.order,
                "coverage": score.coverage,
                "duplicates": score.duplicates,
                "precision": score.precision,
                "clips": clips,
            }
        tell(1)
        yield line


def answers(
    runtime: Runtime,
    task: Questions,
    asked: Sequence[VideoQuestion],
    shown: Seen,
    usual: Mapping[str, str],
    *,
    seed: int,
    tell: Tell,
) -> Iterator[Line]:
    """Right answers over a clip's caption, and over what is seen in it.

    Args:
        usual: the most frequent training answer of each kind of question.
    """
    rng = random.Random(f"answers/{seed}")
    pool: dict[str, list[str]] = {}
    for one in asked:
        pool.setdefault(one.question.kind, []).append(one.question.answer)
    clip_of = {clip.video_id: clip for clip in shown.oracle.clips}
    said = {p.video_id: p.caption for p in shown.model.predictions}
    true = {p.video_id: p.caption for p in shown.oracle.predictions}
    for one in asked:
        question, name = one.question, one.video_id

        def over(captions: Mapping[str, str], text: str = question.text, name: str = name) -> str:
            if name not in captions:
                return ""
            prompt = wording.answer(text, [captions[name]])
            return runtime.write(prompt, task.settings, stage="answer", item=name)

        texts = {
            "model": over(said),
            "visual": runtime.ask(
                clip_of[name], wording.visual_answer(question.text), task.settings
            ),
            "oracle": over(true),
            "rank": usual.get(question.kind, ""),
            "random": rng.choice(pool[question.kind]),
        }
        right = {normalised(text) for text in question.accepted}
        tell(1)
        yield {
            "task": "answer",
            "item": one.question_id,
            "kind": question.kind,
            "answer": question.answer,
            **{k: {"right": normalised(t) in right, "text": t} for k, t in texts.items()},
        }


def summaries(
    runtime: Runtime,
    task: Summary,
    videos: Sequence[Clip],
    shown: Seen,
    world: World,
    *,
    tell: Tell,
) -> Iterator[Line]:
    """What summaries of scenes and of whole videos state, against what is to be seen."""
    for at, video in enumerate(videos):
        mine = shown.of(lambda clip, path=video.path: clip.path == path)  # type: ignore[misc]
        other = videos[(at + 1) % len(videos)]
        strange = shown.of(lambda clip, path=other.path: clip.path == path)  # type: ignore[misc]
        made = task.respond(runtime, mine.model, "all", video.video_id).result
        told = task.respond(runtime, mine.oracle, "all", video.video_id).result
        captions = [p.caption for p in mine.model.predictions]
        whole = {
            "model": made[0].text if made else "",
            "oracle": told[0].text if told else "",
            "rank": joined_sentences(captions) if captions else "",
            "random": joined_sentences([p.caption for p in strange.model.predictions]),
        }
        yield _stated("video_summary", video.video_id, whole, world.truth(video), world)
        for scene in made[0].scenes if made else ():
            end_s = scene.end_s if scene.end_s is not None else float("inf")
            span = scene_at(video, scene.start_s, end_s)
            texts = {
                "model": scene.text,
                "rank": first_sentence(scene.captions),
                "random": strange.model.predictions[0].caption if len(strange.model) else "",
            }
            yield _stated("scene_summary", span.scene_id, texts, span.attributes, world)
        tell(1)


def moments(
    runtime: Runtime,
    task: Localisation,
    events: Sequence[Event],
    videos: Sequence[Clip],
    shown: Seen,
    *,
    seed: int,
    tell: Tell,
) -> Iterator[Line]:
    """Temporal IoU of the moment that a sentence is about, within its video."""
    rng = random.Random(f"moments/{seed}")
    by_id = {video.video_id: video for video in videos}
    for event in events:
        video = by_id[event.video_id]
        mine = shown.of(lambda clip, path=video.path: clip.path == path)  # type: ignore[misc]
        true = (event.start_s, event.end_s)
        end_s = scenes_of(video)[-1].end_s
        start_s = rng.uniform(0.0, max(0.0, end_s - 10.0))
        spans: dict[str, tuple[float, float] | None] = {
            "rank": (0.0, end_s),
            "random": (start_s, min(end_s, start_s + 10.0)),
        }
        for name, footage in (("model", mine.model), ("oracle", mine.oracle)):
            reply = task.respond(runtime, footage, event.text, event.event_id)
            found = reply.result
            spans[name] = (found[0].start_s, found[0].end_s) if found else None
        tell(1)
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
    shown: Seen,
    clips: Sequence[Clip],
    elsewhere: Sequence[str],
    *,
    pool: int,
    seed: int,
) -> list[Line]:
    """The best match's similarity where a query's clip is in the pool, and where nothing fits.

    Args:
        clips: with a query each; pools are drawn from them.
        elsewhere: prompts about what the data set never shows.
    """
    rng = random.Random(f"similarities/{seed}")
    place = {clip.video_id: i for i, clip in enumerate(shown.model.clips)}
    queries = [clip.queries[0].text for clip in clips]
    vectors = runtime.embed([*queries, *elsewhere], "threshold") @ shown.model.vectors.T
    lines: list[Line] = []
    for number, clip in enumerate(clips):
        others = rng.sample([c.video_id for c in clips if c is not clip], min(pool, len(clips)) - 1)
        around = [place[v] for v in others if v in place]
        if not around:
            continue
        if clip.video_id in place:
            best = float(vectors[number, [*around, place[clip.video_id]]].max())
            lines.append({"task": "threshold", "fits": True, "similarity": best})
        strange = len(queries) + number % len(elsewhere)
        best = float(vectors[strange, around].max())
        lines.append({"task": "threshold", "fits": False, "similarity": best})
    return lines


def best_threshold(lines: Sequence[Line]) -> float | None:
    """The similarity that parts matches from the rest with the best balanced accuracy.

    None where no clip got a caption, so that there is nothing to choose from.
    """
    values = sorted({line["similarity"] for line in lines})
    return max(values, key=lambda value: (balanced_accuracy(lines, value), value), default=None)


def balanced_accuracy(lines: Sequence[Line], least: float) -> float:
    """Mean of the shares of matches kept and of non-matches refused."""
    shares = []
    for fits in (True, False):
        some = [line["similarity"] >= least for line in lines if line["fits"] is fits]
        shares.append(sum(kept is fits for kept in some) / len(some) if some else 0.0)
    return sum(shares) / 2


def _stated(
    task: str,
    item: str,
    texts: Mapping[str, str],
    truth: Mapping[str, set[str]],
    world: World,
) -> Line:
    line: Line = {"task": task, "item": item}
    for name, text in texts.items():
        overlap = attribute_overlap([world.stated(text)], [truth])
        score = overlap.get("all")
        line[name] = {
            "precision": score.precision if score else 0.0,
            "recall": score.recall if score else 0.0,
            "f1": score.f1 if score else 0.0,
            "words": len(text.split()),
            "text": text,
        }
    return line


def _true_caption(clip: Clip) -> str:
    if clip.references:
        return clip.references[0]
    end_s = clip.end_s if clip.end_s is not None else float("inf")
    span = scene_at(clip, clip.start_s, end_s)
    number = int(span.scene_id.rsplit("#", 1)[1])
    return str(clip.meta["scenes"][number]["references"][0])


def _footage(runtime: Runtime, clips: Sequence[Clip], captions: Mapping[str, str]) -> Footage:
    speaking = [clip for clip in clips if captions[clip.video_id].strip()]
    return Footage(
        tuple(speaking),
        tuple(Prediction(c.video_id, captions[c.video_id], (), 0.0) for c in speaking),
        runtime.embed([captions[c.video_id] for c in speaking], "captions"),
    )


def _part(footage: Footage, wanted: Callable[[Clip], bool]) -> Footage:
    keep = [i for i, clip in enumerate(footage.clips) if wanted(clip)]
    return Footage(
        tuple(footage.clips[i] for i in keep),
        tuple(footage.predictions[i] for i in keep),
        footage.vectors[keep],
    )
