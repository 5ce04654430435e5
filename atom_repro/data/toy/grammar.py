"""Captions of the generated data set: sentences from scenes, attributes parsed from sentences.

`describe` states all attributes of a scene (object, colour, count, motion, place, relation). The
wording is random and independent of the scene, so the best a captioner can do is the consensus,
as with human captions. `attributes_in` parses any sentence, also a model's, and returns the
attributes that it states; it matches phrases and ignores grammar.
Sentences are lower-case without punctuation, like those of MSR-VTT.
"""

import random
import re
from collections.abc import Sequence
from typing import Any

from atom_repro.data.toy.world import RELATIONS, Scene

MAX_WORDS = 21  # leaves room for start and end within the paper's 23 caption tokens

# Probability of the first phrase of each list, its default; the others share the rest.
_DEFAULT_PROBABILITY = 0.7

_OBJECTS = {
    "ball": [("ball", "balls"), ("sphere", "spheres")],
    "box": [("box", "boxes"), ("crate", "crates")],
    "car": [("car", "cars")],
    "boat": [("boat", "boats"), ("sailboat", "sailboats")],
    "fish": [("fish", "fish")],
    "bird": [("bird", "birds")],
    "tree": [("tree", "trees"), ("pine", "pines")],
    "house": [("house", "houses"), ("cottage", "cottages")],
    "star": [("star", "stars")],
    "rocket": [("rocket", "rockets"), ("spaceship", "spaceships")],
}
_COLOURS = {
    "red": ["red"],
    "orange": ["orange"],
    "yellow": ["yellow"],
    "green": ["green"],
    "blue": ["blue"],
    "purple": ["purple", "violet"],
    "white": ["white"],
    "black": ["black"],
}
_COUNTS = {
    1: ["a", "one", "a single"],
    2: ["two", "a pair of"],
    3: ["three", "a group of three"],
}
COUNT_NAMES = {1: "one", 2: "two", 3: "three"}
_PLACES = {
    "beach": ["on the beach", "at the beach", "by the sea", "at the seaside"],
    "night sky": ["in the night sky", "at night", "in the dark sky", "under the moon"],
    "snow": ["in the snow", "in a snowy field", "on a snowy day", "in winter"],
    "forest": ["in the forest", "in the woods", "in a deep forest"],
    "desert": ["in the desert", "over the dunes", "in a dry desert"],
    "city": ["in the city", "in town", "on a city street", "downtown"],
}
_PLACE_NAMES = {
    "beach": ["the beach", "the sea", "the seaside"],
    "night sky": ["the night sky", "the dark sky", "the moon"],
    "snow": ["the snow", "a snowy field", "winter"],
    "forest": ["the forest", "the woods", "a deep forest"],
    "desert": ["the desert", "the dunes", "a dry desert"],
    "city": ["the city", "the town", "a city street"],
}
# Third person, plural, participle. A verb in _NEUTRAL_VERBS does not identify a motion by itself.
_VERBS = {
    "move": ("moves", "move", "moving"),
    "go": ("goes", "go", "going"),
    "drift": ("drifts", "drift", "drifting"),
    "slide": ("slides", "slide", "sliding"),
    "travel": ("travels", "travel", "traveling"),
    "rise": ("rises", "rise", "rising"),
    "sink": ("sinks", "sink", "sinking"),
    "fall": ("falls", "fall", "falling"),
    "circle": ("circles", "circle", "circling"),
    "bounce": ("bounces", "bounce", "bouncing"),
    "jump": ("jumps", "jump", "jumping"),
    "hop": ("hops", "hop", "hopping"),
    "grow": ("grows", "grow", "growing"),
    "get": ("gets", "get", "getting"),
    "become": ("becomes", "become", "becoming"),
    "shrink": ("shrinks", "shrink", "shrinking"),
    "stay": ("stays", "stay", "staying"),
    "stand": ("stands", "stand", "standing"),
    "rest": ("rests", "rest", "resting"),
    "not move": ("does not move", "do not move", "not moving"),
    "flash": ("flashes", "flash", "flashing"),
    "blink": ("blinks", "blink", "blinking"),
}
_NEUTRAL_VERBS = {
    "move",
    "go",
    "drift",
    "slide",
    "travel",
    "get",
    "become",
    "stay",
    "stand",
    "jump",
}
# (verb, rest of the phrase).
_MOTIONS = {
    "right": [
        ("move", "to the right"),
        ("go", "right"),
        ("drift", "to the right"),
        ("slide", "right"),
        ("travel", "from left to right"),
    ],
    "left": [
        ("move", "to the left"),
        ("go", "left"),
        ("drift", "to the left"),
        ("slide", "left"),
        ("travel", "from right to left"),
    ],
    "up": [("move", "up"), ("rise", ""), ("go", "upward")],
    "down": [("move", "down"), ("sink", ""), ("fall", ""), ("go", "downward")],
    "circle": [
        ("move", "in a circle"),
        ("circle", "around"),
        ("go", "around and around"),
    ],
    "bounce": [("bounce", ""), ("bounce", "up and down"), ("jump", "up and down"), ("hop", "")],
    "grow": [("grow", ""), ("get", "bigger"), ("grow", "larger"), ("become", "larger")],
    "shrink": [("shrink", ""), ("get", "smaller"), ("shrink", "away"), ("become", "smaller")],
    "still": [("stay", "still"), ("stand", "still"), ("rest", ""), ("not move", "")],
    "flash": [("flash", ""), ("blink", ""), ("blink", "on and off")],
}
_RELATIONS = {
    "left of": ["to the left of", "left of"],
    "right of": ["to the right of", "right of"],
    "above": ["above", "over"],
    "below": ["below", "under", "beneath"],
}
# {n} noun phrase, {f} "moves …", {b} "is moving …", {i} "moving …", {p} place, {are} is or are.
_SINGLE_TEMPLATES = [
    "{n} {f} {p}",
    "{p} {n} {f}",
    "{n} {b} {p}",
    "{p} {n} {b}",
    "there {are} {n} {i} {p}",
    "{n} can be seen {i} {p}",
    "{p} we see {n} {i}",
    "{n} {are} shown {i} {p}",
    "{n} {p} {f}",
]
# {r} relation such as "left of", {m} noun phrase of the second thing.
_RELATION_TEMPLATES = [
    "{n} {f} {r} {m} {p}",
    "{p} {n} {f} {r} {m}",
    "{n} {b} {r} {m} {p}",
    "{n} {r} {m} both {i} {p}",
    "{p} there is {n} {r} {m} both {i}",
    "{n} can be seen {i} {r} {m} {p}",
    "{p} {n} is shown {i} {r} {m}",
]
_SHORT_TEMPLATES = {False: _SINGLE_TEMPLATES[:4], True: _RELATION_TEMPLATES[:4]}
_JOIN_TEMPLATES = ["{a} then {b}", "{a} and then {b}", "first {a} then {b}", "{a} before {b}"]


def describe(scenes: Sequence[Scene], rng: random.Random) -> str:
    """One sentence of at most MAX_WORDS words about one scene, or two in their order."""
    if len(scenes) not in (1, 2):
        raise ValueError(f"a sentence holds one scene or two, got {len(scenes)}")
    while True:
        if len(scenes) == 1:
            sentence = _clause(scenes[0], rng, _templates(scenes[0], short=False))
        else:
            first, second = (_clause(s, rng, _templates(s, short=True)) for s in scenes)
            sentence = choose_phrase(_JOIN_TEMPLATES, rng).format(a=first, b=second)
        if len(sentence.split()) <= MAX_WORDS:
            return sentence


def describe_differently(scenes: Sequence[Scene], count: int, rng: random.Random) -> list[str]:
    """`count` different sentences about the same scenes."""
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        sentences[describe(scenes, rng)] = None
    return list(sentences)


def static_caption(scene: Scene) -> str:
    """Caption in default phrases without the motion: "two red boats on the beach"."""
    thing = _noun_phrase(scene.count, scene.colour, scene.object, None)
    if scene.relation is not None:
        other = _noun_phrase(1, str(scene.second_colour), str(scene.second_object), None)
        thing = f"{thing} {_RELATIONS[scene.relation][0]} {other}"
    return f"{thing} {_PLACES[scene.place][0]}"


def canonical_caption(scene: Scene) -> str:
    """Caption with all attributes of a scene, in default phrases."""
    return _clause(scene, None, _templates(scene, short=True)[:1])


def noun(thing: str, count: int, rng: random.Random) -> str:
    """Noun of a thing: "boat", or "boats" for a count above 1."""
    return str(choose_phrase(_OBJECTS[thing], rng)[count > 1])


def with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def colour_word(colour: str, rng: random.Random | None) -> str:
    return str(choose_phrase(_COLOURS[colour], rng))


def count_word(count: int, rng: random.Random) -> str:
    return str(choose_phrase(_COUNTS[count], rng))


def place_phrase(place: str, rng: random.Random) -> str:
    """Prepositional phrase of a place: "on the beach"."""
    return str(choose_phrase(_PLACES[place], rng))


def place_name(place: str, rng: random.Random) -> str:
    """Noun phrase of a place: "the beach"."""
    return str(choose_phrase(_PLACE_NAMES[place], rng))


def motion_participle(motion: str, rng: random.Random) -> str:
    """Participle of a motion: "moving to the left"."""
    verb, rest = choose_phrase(_MOTIONS[motion], rng)
    return f"{_VERBS[verb][2]} {rest}".strip()


def accepted_phrases(kind: str, value: str) -> tuple[str, ...]:
    """All short answers with the meaning of an attribute's value, the default first.

    Args:
        kind: object, colour, count, motion or place, with values as in `attributes_in`.
    """
    match kind:
        case "object":
            phrases = [form for nouns in _OBJECTS[value] for form in nouns]
        case "colour":
            phrases = _COLOURS[value]
        case "count":
            number = {name: number for number, name in COUNT_NAMES.items()}[value]
            phrases = [value, *_COUNTS[number]]
        case "place":
            phrases = [*_PLACES[value], *_PLACE_NAMES[value], value]
        case "motion":
            phrases = [
                f"{verb_form} {rest}".strip()
                for form in (2, 0, 1)
                for verb, rest in _MOTIONS[value]
                for verb_form in [_VERBS[verb][form]]
            ]
        case _:
            raise ValueError(
                f"no short answers of kind {kind!r}; choose object, colour, count, motion or place"
            )
    return tuple(dict.fromkeys(phrases))


def attributes_of(scenes: Sequence[Scene]) -> dict[str, set[str]]:
    """The attributes that a caption of the scenes should state, in the form of `attributes_in`."""
    attributes = _empty_attributes()
    for scene in scenes:
        for colour, thing in scene.things:
            attributes["colour"].add(colour)
            attributes["object"].add(thing)
        attributes["count"].add(COUNT_NAMES[scene.count])
        attributes["motion"].add(scene.motion)
        attributes["place"].add(scene.place)
        if scene.relation is not None:
            attributes["relation"].add(scene.relation)
    return attributes


def attributes_in(caption: str) -> dict[str, set[str]]:
    """Parse the attributes that a caption states, in any of the known synonyms.

    Keys are object, colour, count, motion, relation and place; values are the world's names
    ("box" for "crates"), counts "one", "two", "three". An attribute that
    is not stated has an empty set. The longest known phrase wins at each word, so "to the left of"
    is never a motion.
    """
    words = re.findall(r"[a-z]+", caption.lower())
    attributes = _empty_attributes()
    count = ""
    position = 0
    while position < len(words):
        phrase = _longest_phrase_at(words, position)
        if phrase is None:
            position += 1
            continue
        kind, value = _LEXICON[phrase]
        if kind == "number":
            count = value
        else:
            attributes[kind].add(value)
        if kind == "object":
            # A number belongs to the thing it precedes; a bare "a" elsewhere counts nothing.
            if count:
                attributes["count"].add(count)
            count = ""
        position += len(phrase)
    return attributes


def vocabulary() -> set[str]:
    """Every word that `describe` can use."""
    phrases = [
        *_flatten(_OBJECTS),
        *_flatten(_COLOURS),
        *_flatten(_COUNTS),
        *_flatten(_PLACES),
        *_flatten(_RELATIONS),
    ]
    phrases += [*_SINGLE_TEMPLATES, *_RELATION_TEMPLATES, *_JOIN_TEMPLATES, "an is are"]
    for verb, rest in _flatten(_MOTIONS):
        phrases += [*_VERBS[verb], rest]
    text = " ".join(p if isinstance(p, str) else " ".join(p) for p in phrases)
    return set(re.sub(r"\{\w+\}", " ", text).split())


def _flatten(table: dict[Any, list[Any]]) -> list[Any]:
    return [phrase for phrases in table.values() for phrase in phrases]


def choose_phrase(phrases: Sequence[Any], rng: random.Random | None) -> Any:
    """Draw a phrase: the first with `_DEFAULT_PROBABILITY` or without `rng`, otherwise another."""
    if rng is None or len(phrases) == 1 or rng.random() < _DEFAULT_PROBABILITY:
        return phrases[0]
    return rng.choice(phrases[1:])


def _templates(scene: Scene, *, short: bool) -> Sequence[str]:
    related = scene.relation is not None
    if short:
        return _SHORT_TEMPLATES[related]
    return _RELATION_TEMPLATES if related else _SINGLE_TEMPLATES


def _clause(scene: Scene, rng: random.Random | None, templates: Sequence[str]) -> str:
    related = scene.relation is not None
    verb, rest = choose_phrase(_MOTIONS[scene.motion], rng)
    third, plural, participle = _VERBS[verb]
    single = scene.count == 1
    are = "is" if single else "are"
    parts = {
        "n": _noun_phrase(scene.count, scene.colour, scene.object, rng),
        "f": f"{third if single else plural} {rest}",
        "b": f"{are} {participle} {rest}",
        "i": f"{participle} {rest}",
        "p": choose_phrase(_PLACES[scene.place], rng),
        "are": are,
    }
    if related:
        parts["r"] = choose_phrase(_RELATIONS[str(scene.relation)], rng)
        parts["m"] = _noun_phrase(1, str(scene.second_colour), str(scene.second_object), rng)
    return " ".join(choose_phrase(templates, rng).format(**parts).split())


def _noun_phrase(count: int, colour: str, thing: str, rng: random.Random | None) -> str:
    number, adjective = choose_phrase(_COUNTS[count], rng), colour_word(colour, rng)
    noun = choose_phrase(_OBJECTS[thing], rng)[count > 1]
    if number == "a" and adjective[0] in "aeiou":
        number = "an"
    return f"{number} {adjective} {noun}"


def _empty_attributes() -> dict[str, set[str]]:
    return {kind: set() for kind in ("object", "colour", "count", "motion", "relation", "place")}


def _lexicon() -> dict[tuple[str, ...], tuple[str, str]]:
    """Known phrases, split into words, to the attribute and value that they state."""
    lexicon: dict[str, tuple[str, str]] = {"an": ("number", "one")}
    for thing, nouns in _OBJECTS.items():
        lexicon |= {form: ("object", thing) for noun in nouns for form in noun}
    for colour, adjectives in _COLOURS.items():
        lexicon |= dict.fromkeys(adjectives, ("colour", colour))
    for number, phrases in _COUNTS.items():
        lexicon |= dict.fromkeys(phrases, ("number", COUNT_NAMES[number]))
    for place, phrases in _PLACES.items():
        lexicon |= dict.fromkeys(phrases, ("place", place))
    for relation in RELATIONS:
        lexicon |= dict.fromkeys(_RELATIONS[relation], ("relation", relation))
    for motion, verb_phrases in _MOTIONS.items():
        for verb, rest in verb_phrases:
            if verb not in _NEUTRAL_VERBS:
                lexicon |= dict.fromkeys(_VERBS[verb], ("motion", motion))
            if rest not in ("", "around", "away"):
                lexicon[rest] = ("motion", motion)
    return {tuple(phrase.split()): stated for phrase, stated in lexicon.items()}


_LEXICON = _lexicon()
_MAX_PHRASE_WORDS = max(len(phrase) for phrase in _LEXICON)


def _longest_phrase_at(words: Sequence[str], at: int) -> tuple[str, ...] | None:
    for length in range(min(_MAX_PHRASE_WORDS, len(words) - at), 0, -1):
        phrase = tuple(words[at : at + length])
        if phrase in _LEXICON:
            return phrase
    return None
