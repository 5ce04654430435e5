"""Evaluation examples of the text tasks on the generated data set, with their ground truth.

Requests with the scenes that match them, questions with their answers, events with their times,
and what a scene's summary should state (`dataset.true_attributes` for a whole video). All are
functions of the clips and a seed. The truth comes from the rendered scenes and not from captions,
so that wrong captions lower a score.

A scene's id is its video's id and its number in the video, as "toy-videos-00001#2".
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from atom_repro.data.toy.grammar import attributes_of
from atom_repro.data.toy.requests import (
    QUESTION_KINDS,
    Question,
    QuestionKind,
    SceneFilter,
    question_about,
    request_text,
    sample_filter,
)
from atom_repro.data.toy.world import Scene
from atom_repro.datatypes import AtomError, Clip

_ORDERED_PROBABILITY = 0.7
_MAX_MATCHES = 3


@dataclass(frozen=True)
class SceneSpan:
    """One scene of a video and its time span."""

    scene_id: str
    video_id: str
    scene: Scene
    start_s: float
    end_s: float

    @property
    def attributes(self) -> dict[str, set[str]]:
        """The attributes that a summary should state, in the form of `attributes_in`."""
        return attributes_of([self.scene])


@dataclass(frozen=True)
class AssemblyRequest:
    """A request to a pool of videos. `wanted` holds, per filter, the ids of the scenes that match
    it, in the requested order if `ordered`; `relevant_videos` are their videos' ids."""

    request_id: str
    text: str
    ordered: bool
    filters: tuple[SceneFilter, ...]
    wanted: tuple[frozenset[str], ...]
    relevant_videos: frozenset[str]
    pool: tuple[str, ...]


@dataclass(frozen=True)
class VideoQuestion:
    question_id: str
    video_id: str
    question: Question


@dataclass(frozen=True)
class Event:
    """A sentence that is true of one span of a video and of no other."""

    event_id: str
    video_id: str
    text: str
    start_s: float
    end_s: float


def scenes_of(clip: Clip) -> list[SceneSpan]:
    """The scenes of a clip or long video in their order."""
    return [
        SceneSpan(
            f"{clip.video_id}#{i}",
            clip.video_id,
            Scene.from_meta(entry),
            float(entry["start_s"]),
            float(entry["end_s"]),
        )
        for i, entry in enumerate(clip.meta["scenes"])
    ]


def scene_at(clip: Clip, start_s: float, end_s: float) -> SceneSpan:
    """The scene with the largest overlap with a window, the earlier of equals.

    Raises:
        ValueError: the window is outside the video.
    """

    def overlap_s(span: SceneSpan) -> float:
        return min(span.end_s, end_s) - max(span.start_s, start_s)

    best = max(scenes_of(clip), key=overlap_s)
    if overlap_s(best) <= 0:
        raise ValueError(f"{clip.video_id} shows nothing from {start_s:g} s to {end_s:g} s")
    return best


def single_scene_clips(clips: Sequence[Clip]) -> list[Clip]:
    """The clips with a single scene, so that the clip stands for the scene."""
    return [clip for clip in clips if len(clip.meta["scenes"]) == 1]


def assembly_requests(
    clips: Sequence[Clip], *, count: int, pool_size: int, seed: int
) -> list[AssemblyRequest]:
    """Draw requests of one to three filters, each matched by one to three scenes of its own.

    Args:
        clips: clips of `single_scene_clips`, or long videos.
        count: number of requests.
        pool_size: number of clips that a request chooses from, at most all.
        seed: of the random draws.

    Raises:
        AtomError: `pool_size` is not between 1 and the number of clips.
    """
    if not 0 < pool_size <= len(clips):
        raise AtomError(
            f"pool={pool_size} of {len(clips)} clips: choose 1 to {len(clips)}, or make "
            "dataset.test larger"
        )
    requests = []
    for number in range(count):
        rng = random.Random(f"request/{seed}/{number}")
        while (request := _draw_request(f"request-{number:04d}", clips, pool_size, rng)) is None:
            pass
        requests.append(request)
    return requests


def _draw_request(
    request_id: str, clips: Sequence[Clip], pool: int, rng: random.Random
) -> AssemblyRequest | None:
    """Draw a request; None if a scene matches two filters or too many scenes match one."""
    pool_clips = rng.sample(list(clips), pool)
    spans = [span for clip in pool_clips for span in scenes_of(clip)]
    sources = rng.sample(spans, min(len(spans), rng.choice((1, 2, 2, 3))))
    filters = tuple(sample_filter(source.scene, rng) for source in sources)
    matches = [[span for span in spans if f.matches(span.scene)] for f in filters]
    wanted = tuple(frozenset(span.scene_id for span in matching) for matching in matches)
    # In a small pool of long videos one thing may be in most scenes: at most half may match.
    max_matches = max(1, min(_MAX_MATCHES, len(spans) // 2))
    if any(len(ids) > max_matches for ids in wanted):
        return None
    if len(frozenset().union(*wanted)) < sum(len(ids) for ids in wanted):
        return None
    ordered = len(filters) > 1 and rng.random() < _ORDERED_PROBABILITY
    return AssemblyRequest(
        request_id=request_id,
        text=request_text(filters, ordered=ordered, rng=rng),
        ordered=ordered,
        filters=filters,
        wanted=wanted,
        relevant_videos=frozenset(span.video_id for matching in matches for span in matching),
        pool=tuple(clip.video_id for clip in pool_clips),
    )


def questions(clips: Sequence[Clip], *, per_clip: int, seed: int) -> list[VideoQuestion]:
    """Draw up to `per_clip` questions about each clip, of different kinds, each with one answer.

    The kinds are random; a kind that would be ambiguous for the clip is left out.
    """
    video_questions = []
    for clip in clips:
        rng = random.Random(f"question/{seed}/{clip.video_id}")
        scenes = [span.scene for span in scenes_of(clip)]
        kinds = rng.sample(QUESTION_KINDS, len(QUESTION_KINDS))
        unambiguous = [q for kind in kinds if (q := _draw_question(scenes, kind, rng)) is not None]
        video_questions += [
            VideoQuestion(f"{clip.video_id}?{question.kind}", clip.video_id, question)
            for question in unambiguous[:per_clip]
        ]
    return video_questions


def _draw_question(
    scenes: Sequence[Scene], kind: QuestionKind, rng: random.Random
) -> Question | None:
    """Draw a question about the first scene, in random order, that has one of this kind."""
    for index in rng.sample(range(len(scenes)), len(scenes)):
        others = [*scenes[:index], *scenes[index + 1 :]]
        question = question_about(scenes[index], others, kind, rng)
        if question is not None:
            return question
    return None


def events(videos: Sequence[Clip]) -> list[Event]:
    """One sentence about each scene that its long video shows only once."""
    unique_events = []
    for video in videos:
        spans = scenes_of(video)
        for span, entry in zip(spans, video.meta["scenes"], strict=True):
            if sum(other.scene == span.scene for other in spans) == 1:
                text = str(entry["references"][0])
                unique_events.append(
                    Event(span.scene_id, video.video_id, text, span.start_s, span.end_s)
                )
    return unique_events
