"""What is true of the generated data set's evaluation clips and long videos, for the text tasks.

Requests with the scenes that fulfil them, questions with their answers, events with their times,
and what a scene's summary should state (`toy.true_attributes` has it for a whole video).
Everything is a function of the clips and a seed. Pictures decide: no caption is involved, so a
wrong caption costs whoever relies on it.

A scene is named by its video and its number in it, as "toy-videos-00001#2".
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from atom_repro.data.toy.grammar import attributes_of
from atom_repro.data.toy.requests import (
    QUESTION_KINDS,
    Question,
    QuestionKind,
    Wish,
    question_about,
    say_request,
    wish_for,
)
from atom_repro.data.toy.world import Scene
from atom_repro.datatypes import AtomError, Clip

_ORDERED = 0.7
_MOST_FITTING = 3


@dataclass(frozen=True)
class SceneSpan:
    """One scene of a video and when it is shown."""

    scene_id: str
    video_id: str
    scene: Scene
    start_s: float
    end_s: float

    @property
    def attributes(self) -> dict[str, set[str]]:
        """What a summary of the scene should state, in the form of `attributes_in`."""
        return attributes_of([self.scene])


@dataclass(frozen=True)
class AssemblyRequest:
    """A request to a pool of videos. `wanted` holds for each part of it the ids of the scenes
    that fulfil the part, in the order asked for if `ordered`; `relevant` are their videos."""

    request_id: str
    text: str
    ordered: bool
    wishes: tuple[Wish, ...]
    wanted: tuple[frozenset[str], ...]
    relevant: frozenset[str]
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
    """The scene that fills most of a window, the earlier of equals.

    Raises:
        ValueError: the window lies outside the video.
    """

    def shared_s(span: SceneSpan) -> float:
        return min(span.end_s, end_s) - max(span.start_s, start_s)

    best = max(scenes_of(clip), key=shared_s)
    if shared_s(best) <= 0:
        raise ValueError(f"{clip.video_id} shows nothing from {start_s:g} s to {end_s:g} s")
    return best


def one_scene(clips: Sequence[Clip]) -> list[Clip]:
    """The clips that show one scene only, so that showing the clip is showing the scene."""
    return [clip for clip in clips if len(clip.meta["scenes"]) == 1]


def assembly_requests(
    clips: Sequence[Clip], *, count: int, pool: int, seed: int
) -> list[AssemblyRequest]:
    """Requests of one to three parts, each fulfilled by one to three scenes of its own.

    Args:
        clips: clips of `one_scene`, or long videos, of which windows are shown.
        count: of requests.
        pool: how many of the clips a request chooses from; at most as many as there are.
        seed: of the requests.

    Raises:
        AtomError: too few clips for the pool.
    """
    if not 0 < pool <= len(clips):
        raise AtomError(
            f"a pool of {pool} clips out of {len(clips)}: choose 1 to {len(clips)}, or make "
            "dataset.test larger"
        )
    made = []
    for number in range(count):
        rng = random.Random(f"request/{seed}/{number}")
        while (asked := _request(f"request-{number:04d}", clips, pool, rng)) is None:
            pass
        made.append(asked)
    return made


def _request(
    name: str, clips: Sequence[Clip], pool: int, rng: random.Random
) -> AssemblyRequest | None:
    """One draw; None where its parts overlap or too many scenes fit."""
    chosen = rng.sample(list(clips), pool)
    spans = [span for clip in chosen for span in scenes_of(clip)]
    sources = rng.sample(spans, min(len(spans), rng.choice((1, 2, 2, 3))))
    wishes = tuple(wish_for(source.scene, rng) for source in sources)
    fitting = [[span for span in spans if wish.fits(span.scene)] for wish in wishes]
    wanted = tuple(frozenset(span.scene_id for span in some) for some in fitting)
    # In a small pool of long videos even one thing may be everywhere; half of all is too much.
    most = max(1, min(_MOST_FITTING, len(spans) // 2))
    if any(len(ids) > most for ids in wanted):
        return None
    if len(frozenset().union(*wanted)) < sum(len(ids) for ids in wanted):
        return None
    ordered = len(wishes) > 1 and rng.random() < _ORDERED
    return AssemblyRequest(
        request_id=name,
        text=say_request(wishes, ordered=ordered, rng=rng),
        ordered=ordered,
        wishes=wishes,
        wanted=wanted,
        relevant=frozenset(span.video_id for some in fitting for span in some),
        pool=tuple(clip.video_id for clip in chosen),
    )


def questions(clips: Sequence[Clip], *, per_clip: int, seed: int) -> list[VideoQuestion]:
    """Up to `per_clip` questions about each clip, of different kinds, each with one answer.

    Which kinds is chance; what a clip cannot be asked without ambiguity is left out.
    """
    made = []
    for clip in clips:
        rng = random.Random(f"question/{seed}/{clip.video_id}")
        scenes = [span.scene for span in scenes_of(clip)]
        kinds = rng.sample(QUESTION_KINDS, len(QUESTION_KINDS))
        asked = [q for kind in kinds if (q := _question(scenes, kind, rng)) is not None]
        made += [
            VideoQuestion(f"{clip.video_id}?{question.kind}", clip.video_id, question)
            for question in asked[:per_clip]
        ]
    return made


def _question(scenes: Sequence[Scene], kind: QuestionKind, rng: random.Random) -> Question | None:
    """About the first scene, in random order, that can be asked about."""
    for at in rng.sample(range(len(scenes)), len(scenes)):
        question = question_about(scenes[at], [*scenes[:at], *scenes[at + 1 :]], kind, rng)
        if question is not None:
            return question
    return None


def events(videos: Sequence[Clip]) -> list[Event]:
    """A sentence about each scene of the long videos that its video shows only once."""
    found = []
    for video in videos:
        spans = scenes_of(video)
        for span, entry in zip(spans, video.meta["scenes"], strict=True):
            if sum(other.scene == span.scene for other in spans) == 1:
                text = str(entry["references"][0])
                found.append(Event(span.scene_id, video.video_id, text, span.start_s, span.end_s))
    return found
