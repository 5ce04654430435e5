"""What is asked of the generated data set: wishes for scenes, requests that order them, questions.

A `Wish` is what one part of a request wants to see; a request joins wishes in an order or in none.
The truth is in the attributes, never read back from the words: `Wish.fits` and `Question.accepted`
judge. Training examples and evaluation ask with the same functions.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from atom_repro.data.toy import grammar as words
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
class Wish:
    """Attributes that a scene must show, by the world's names; None asks nothing. A colour and
    a count are those of `object`, and are never asked without it."""

    object: str | None = None
    colour: str | None = None
    count: int | None = None
    place: str | None = None
    motion: str | None = None

    def fits(self, scene: Scene) -> bool:
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
        """What is asked, in the form of `toy_grammar.attributes_in`, without empty kinds."""
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.count is not None:
            asked["count"] = words.COUNT_NAMES[self.count]
        return {kind: {value} for kind, value in asked.items() if value is not None}


# Which attributes a wish names, and how often. A count is asked for two or three things only.
_WISHES: list[tuple[tuple[str, ...], int]] = [
    (("place",), 4),
    (("object",), 4),
    (("colour", "object"), 3),
    (("count", "object"), 2),
    (("object", "place"), 3),
    (("count", "object", "place"), 1),
    (("object", "motion"), 1),
]


def wish_for(scene: Scene, rng: random.Random) -> Wish:
    """A wish that the scene fulfils, from one to three of its attributes."""
    kinds = rng.choices([kinds for kinds, _ in _WISHES], [weight for _, weight in _WISHES])[0]
    named = {kind: getattr(scene, kind) for kind in kinds}
    if named.get("count") == 1:
        del named["count"]
    return Wish(**named)


def say_wish(wish: Wish, rng: random.Random, *, place_first: float = 0.3) -> str:
    """The wish as a noun phrase: "two boats on the beach", "a trip to the beach".

    `place_first` is the chance of "the beach with two boats".
    """
    if wish.object is None:
        assert wish.place is not None
        opening = rng.choice(_SIGHTS)
        if opening.endswith("thing"):
            return f"{opening} {words.where(wish.place, rng)}"
        return f"{opening} {words.place_name(wish.place, rng)}".strip()
    count = wish.count or 1
    thing = words.noun(wish.object, count, rng)
    if wish.colour is not None:
        thing = f"{words.colour_word(wish.colour, rng)} {thing}"
    number = words.count_word(count, rng) if wish.count else None
    thing = words.with_article(thing) if number is None else f"{number} {thing}"
    if wish.motion is not None:
        thing = f"{thing} {words.doing(wish.motion, rng)}"
    if wish.place is None:
        return thing
    if rng.random() < place_first:
        return f"{words.place_name(wish.place, rng)} with {thing}"
    return f"{thing} {words.where(wish.place, rng)}"


_SIGHTS = ["", "", "", "a trip to", "a day at", "a look at", "something", "everything"]
_OPENINGS = ["", "", "show ", "a video of ", "i want to see "]
_ORDERED = {
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
_UNORDERED = {
    1: ["{0}"],
    2: ["{0} and {1}", "{0}, {1}"],
    3: ["{0}, {1} and {2}", "{0}, {1}, {2}"],
}


def say_request(wishes: Sequence[Wish], *, ordered: bool, rng: random.Random) -> str:
    """A request for one to three wishes, in the order given or in none."""
    forms = (_ORDERED if ordered else _UNORDERED)[len(wishes)]
    parts = [say_wish(wish, rng) for wish in wishes]
    asked = rng.choice(forms).format(*parts)
    return asked if asked.startswith(("first", "start")) else rng.choice(_OPENINGS) + asked


@dataclass(frozen=True)
class Question:
    """`accepted` are all right answers, the usual one first."""

    kind: QuestionKind
    text: str
    accepted: tuple[str, ...]

    @property
    def answer(self) -> str:
        return self.accepted[0]


def question_about(
    scene: Scene, others: Sequence[Scene], kind: QuestionKind, rng: random.Random
) -> Question | None:
    """A question of a kind with one answer: what it names tells the scene from `others`.

    None where the scene has no such question: a count in a relation, or a thing that another
    scene shows too.
    """
    if kind == "yes_no":
        return _yes_or_no(scene, others, rng)
    unique_thing = not any(scene.object in _objects(other) for other in others)
    unique_place = all(scene.place != other.place for other in others)
    name = words.noun(scene.object, scene.count, rng)
    parts = {
        "n": name,
        "ns": words.noun(scene.object, 2, rng),
        "p": words.where(scene.place, rng),
        "are": "is" if scene.count == 1 else "are",
        "do": "does" if scene.count == 1 else "do",
    }
    if kind == "object":
        if not unique_place or scene.relation is not None:
            return None
        accepted = words.ways_to_say(kind, scene.object)
    elif not unique_thing or (kind == "count" and scene.relation is not None):
        return None
    elif kind == "count":
        accepted = words.ways_to_say(kind, words.COUNT_NAMES[scene.count])
    else:
        accepted = words.ways_to_say(kind, getattr(scene, kind))
    text = _asked(words.usually(_QUESTIONS[kind], rng).format(**parts), rng)
    return Question(kind, text, accepted)


# {n} the thing, {ns} its plural, {p} where, {are} and {do} agreeing with {n}.
_QUESTIONS = {
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
_YES_NO = ["is there {a}?", "can we see {a}?", "do we see {a}?"]


def _asked(question: str, rng: random.Random) -> str:
    """As people type: with a question mark or without, in British spelling or American."""
    if rng.random() < 0.3:
        question = question.replace("colour", "color")
    return question if rng.random() < 0.7 else question.removesuffix("?")


def _yes_or_no(scene: Scene, others: Sequence[Scene], rng: random.Random) -> Question:
    """Whether there is a thing, or a coloured thing, or a place; as often yes as no."""
    everywhere = [scene, *others]
    asked = rng.choice(
        [
            Wish(object=scene.object),
            Wish(object=scene.object, colour=scene.colour),
            Wish(object=scene.object, place=scene.place),
        ]
    )
    yes = rng.random() < 0.5
    while not yes and any(asked.fits(seen) for seen in everywhere):
        asked = _changed(asked, rng)
    text = _asked(words.usually(_YES_NO, rng).format(a=say_wish(asked, rng, place_first=0.0)), rng)
    return Question("yes_no", text, ("yes",) if yes else ("no",))


def _changed(wish: Wish, rng: random.Random) -> Wish:
    """The wish with one attribute exchanged, which makes it a near miss."""
    choices: dict[str, Sequence[str]] = {
        "object": OBJECTS,
        "colour": tuple(COLOURS),
        "place": PLACES,
    }
    kind = rng.choice([kind for kind in choices if getattr(wish, kind) is not None])
    changed: dict[str, Any] = {kind: rng.choice(choices[kind])}
    return replace(wish, **changed)


def misread(scene: Scene, rng: random.Random) -> Scene:
    """The scene as a captioner may take it for: one of its attributes exchanged."""
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
