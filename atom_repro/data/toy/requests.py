"""Requests and questions about scenes of the generated data set, with their ground truth.

A `SceneFilter` describes the scenes that one part of a request asks for; a request joins filters
with or without an order. The truth comes from attributes, never from parsed text:
`SceneFilter.matches` and `Question.accepted` decide. Training examples and evaluation use the
same functions.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from atom_repro.data.toy import grammar
from atom_repro.data.toy.world import COLOURS, MOTIONS, OBJECTS, PLACES, Scene

QuestionKind = Literal["object", "colour", "count", "place", "motion", "yes_no"]
QUESTION_KINDS: tuple[QuestionKind, ...] = (
    "object",
    "colour",
    "count",
    "place",
    "motion",
    "yes_no",
)


@dataclass(frozen=True)
class SceneFilter:
    """Attributes that a scene must have, by the names in `world`; None matches any. Colour and
    count refer to `object` and are never set without it."""

    object: str | None = None
    colour: str | None = None
    count: int | None = None
    place: str | None = None
    motion: str | None = None

    def matches(self, scene: Scene) -> bool:
        if self.place not in (None, scene.place) or self.motion not in (None, scene.motion):
            return False
        if self.object is None:
            return True
        if self.count not in (None, scene.count):
            return False
        return any(
            thing == self.object and self.colour in (None, colour) for colour, thing in scene.things
        )

    @property
    def attributes(self) -> dict[str, set[str]]:
        """The set attributes, in the form of `grammar.attributes_in`, without empty kinds."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.count is not None:
            values["count"] = grammar.COUNT_NAMES[self.count]
        return {kind: {value} for kind, value in values.items() if value is not None}


# Attributes that a filter sets, with their weights. A count of 1 is never set.
_FILTER_WEIGHTS: list[tuple[tuple[str, ...], int]] = [
    (("place",), 4),
    (("object",), 4),
    (("colour", "object"), 3),
    (("count", "object"), 2),
    (("object", "place"), 3),
    (("count", "object", "place"), 1),
    (("object", "motion"), 1),
]


def sample_filter(scene: Scene, rng: random.Random) -> SceneFilter:
    """Draw a filter that the scene matches, from one to three of its attributes."""
    (kinds,) = rng.choices(
        [kinds for kinds, _ in _FILTER_WEIGHTS], [weight for _, weight in _FILTER_WEIGHTS]
    )
    attributes = {kind: getattr(scene, kind) for kind in kinds}
    if attributes.get("count") == 1:
        del attributes["count"]
    return SceneFilter(**attributes)


def filter_phrase(
    scene_filter: SceneFilter, rng: random.Random, *, place_first: float = 0.3
) -> str:
    """Noun phrase of a filter: "two boats on the beach", "a trip to the beach".

    `place_first` is the probability of "the beach with two boats".
    """
    if scene_filter.object is None:
        assert scene_filter.place is not None
        opening = rng.choice(_PLACE_OPENINGS)
        if opening.endswith("thing"):
            return f"{opening} {grammar.place_phrase(scene_filter.place, rng)}"
        return f"{opening} {grammar.place_name(scene_filter.place, rng)}".strip()
    count = scene_filter.count or 1
    thing = grammar.noun(scene_filter.object, count, rng)
    if scene_filter.colour is not None:
        thing = f"{grammar.colour_word(scene_filter.colour, rng)} {thing}"
    number = grammar.count_word(count, rng) if scene_filter.count else None
    thing = grammar.with_article(thing) if number is None else f"{number} {thing}"
    if scene_filter.motion is not None:
        thing = f"{thing} {grammar.motion_participle(scene_filter.motion, rng)}"
    if scene_filter.place is None:
        return thing
    if rng.random() < place_first:
        return f"{grammar.place_name(scene_filter.place, rng)} with {thing}"
    return f"{thing} {grammar.place_phrase(scene_filter.place, rng)}"


_PLACE_OPENINGS = ["", "", "", "a trip to", "a day at", "a look at", "something", "everything"]
_REQUEST_OPENINGS = ["", "", "show ", "a video of ", "i want to see "]
_ORDERED_TEMPLATES = {
    2: [
        "{0}, then {1}",
        "first {0}, then {1}",
        "{0} and then {1}",
        "start with {0} and end with {1}",
    ],
    3: [
        "{0}, then {1}, then {2}",
        "first {0}, then {1}, finally {2}",
        "start with {0}, then {1}, and end with {2}",
    ],
}  # fmt: skip
_UNORDERED_TEMPLATES = {
    1: ["{0}"],
    2: ["{0} and {1}", "{0}, {1}"],
    3: ["{0}, {1} and {2}", "{0}, {1}, {2}"],
}


def request_text(filters: Sequence[SceneFilter], *, ordered: bool, rng: random.Random) -> str:
    """Text of a request for one to three kinds of scenes, in their order or in none."""
    templates = (_ORDERED_TEMPLATES if ordered else _UNORDERED_TEMPLATES)[len(filters)]
    parts = [filter_phrase(scene_filter, rng) for scene_filter in filters]
    text = rng.choice(templates).format(*parts)
    return text if text.startswith(("first", "start")) else rng.choice(_REQUEST_OPENINGS) + text


@dataclass(frozen=True)
class Question:
    """A question and its kind; `accepted` are all correct answers, the default first."""

    kind: QuestionKind
    text: str
    accepted: tuple[str, ...]

    @property
    def answer(self) -> str:
        return self.accepted[0]


def question_about(
    scene: Scene, others: Sequence[Scene], kind: QuestionKind, rng: random.Random
) -> Question | None:
    """Draw a question of a kind with one answer: what it names occurs in no scene of `others`.

    None where the scene has no such question: a count in a relation, or a thing that another
    scene shows too.
    """
    if kind == "yes_no":
        return _yes_no_question(scene, others, rng)
    unique_thing = not any(scene.object in _objects(other) for other in others)
    unique_place = all(scene.place != other.place for other in others)
    name = grammar.noun(scene.object, scene.count, rng)
    parts = {
        "n": name,
        "ns": grammar.noun(scene.object, 2, rng),
        "p": grammar.place_phrase(scene.place, rng),
        "are": "is" if scene.count == 1 else "are",
        "do": "does" if scene.count == 1 else "do",
    }
    if kind == "object":
        if not unique_place or scene.relation is not None:
            return None
        accepted = grammar.accepted_phrases(kind, scene.object)
    elif not unique_thing or (kind == "count" and scene.relation is not None):
        return None
    elif kind == "count":
        accepted = grammar.accepted_phrases(kind, grammar.COUNT_NAMES[scene.count])
    else:
        accepted = grammar.accepted_phrases(kind, getattr(scene, kind))
    template = grammar.choose_phrase(_QUESTION_TEMPLATES[kind], rng)
    text = _vary_spelling(template.format(**parts), rng)
    return Question(kind, text, accepted)


# {n} noun, {ns} its plural, {p} place, {are} and {do} agreeing with {n}.
_QUESTION_TEMPLATES = {
    "object": ["what is {p}?", "what can be seen {p}?", "what do we see {p}?"],
    "colour": [
        "what colour {are} the {n}?",
        "which colour {do} the {n} have?",
        "what is the colour of the {n}?",
    ],
    "count": ["how many {ns} are there?", "how many {ns} can be seen?", "how many {ns} do we see?"],
    "place": ["where {are} the {n}?", "where can the {n} be seen?", "where do we see the {n}?"],
    "motion": [
        "what {are} the {n} doing?",
        "how {do} the {n} move?",
        "what {do} the {n} do?",
    ],
}
_YES_NO_TEMPLATES = ["is there {a}?", "can we see {a}?", "do we see {a}?"]


def _vary_spelling(question: str, rng: random.Random) -> str:
    """Randomly use American spelling, and randomly omit the question mark."""
    if rng.random() < 0.3:
        question = question.replace("colour", "color")
    return question if rng.random() < 0.7 else question.removesuffix("?")


def _yes_no_question(scene: Scene, others: Sequence[Scene], rng: random.Random) -> Question:
    """Draw a question whether a thing (of a colour, in a place) occurs; yes in half the draws."""
    scenes = [scene, *others]
    target = rng.choice(
        [
            SceneFilter(object=scene.object),
            SceneFilter(object=scene.object, colour=scene.colour),
            SceneFilter(object=scene.object, place=scene.place),
        ]
    )
    yes = rng.random() < 0.5
    while not yes and any(target.matches(other) for other in scenes):
        target = _change_one_attribute(target, rng)
    template = grammar.choose_phrase(_YES_NO_TEMPLATES, rng)
    text = _vary_spelling(template.format(a=filter_phrase(target, rng, place_first=0.0)), rng)
    return Question("yes_no", text, ("yes",) if yes else ("no",))


def _change_one_attribute(scene_filter: SceneFilter, rng: random.Random) -> SceneFilter:
    """The filter with one attribute replaced, so that it is nearly right."""
    choices: dict[str, Sequence[str]] = {
        "object": OBJECTS,
        "colour": tuple(COLOURS),
        "place": PLACES,
    }
    kind = rng.choice([kind for kind in choices if getattr(scene_filter, kind) is not None])
    changed: dict[str, Any] = {kind: rng.choice(choices[kind])}
    return replace(scene_filter, **changed)


def with_wrong_attribute(scene: Scene, rng: random.Random) -> Scene:
    """The scene with one attribute replaced, as a captioner may mistake it."""
    kind = rng.choice(("object", "object", "colour", "motion", "count"))
    if scene.relation is not None and kind in ("motion", "count"):
        kind = "colour"
    choices: dict[str, list[Any]] = {
        "object": [thing for thing in OBJECTS if thing not in _objects(scene)],
        "colour": [c for c in COLOURS if c not in (scene.colour, scene.second_colour)],
        "motion": [motion for motion in MOTIONS if motion != scene.motion],
        "count": [count for count in (1, 2, 3) if count != scene.count],
    }
    changed: dict[str, Any] = {kind: rng.choice(choices[kind])}
    return replace(scene, **changed)


def _objects(scene: Scene) -> set[str]:
    return {thing for _, thing in scene.things}
