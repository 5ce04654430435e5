"""The words of the generated data set: sentences about scenes, and scenes read back from sentences.

`describe` says everything that a scene's caption may say (object, colour, count, motion, place,
relation) in one of many ways; which way is chance alone and never depends on what is seen, so
the best a captioner can do is the consensus, as with human captions. `attributes_in` reads any
sentence, a model's too, and lists the attributes that it states; it judges words, not grammar.
Sentences are lower-case without punctuation, like those of MSR-VTT.
"""

import random
import re
from collections.abc import Sequence
from typing import Any

from atom_repro.data.toy.world import RELATIONS, Scene

MAX_WORDS = 21  # leaves room for start and end within the paper's 23 caption tokens

# The first way to say a thing is the usual one; the rest share what is left of the chance.
_USUAL = 0.7

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
# Third person, plural, participle; then the rest of the phrase. A verb in _PLAIN says nothing
# of the motion by itself.
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
_PLAIN = {"move", "go", "drift", "slide", "travel", "get", "become", "stay", "stand", "jump"}
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
# {n} the things, {f} moves, {b} is moving, {i} moving, {p} the place, {are} is or are.
_ONE_FORMS = [
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
# {r} left of and the like, {m} the second thing.
_TWO_FORMS = [
    "{n} {f} {r} {m} {p}",
    "{p} {n} {f} {r} {m}",
    "{n} {b} {r} {m} {p}",
    "{n} {r} {m} both {i} {p}",
    "{p} there is {n} {r} {m} both {i}",
    "{n} can be seen {i} {r} {m} {p}",
    "{p} {n} is shown {i} {r} {m}",
]
_SHORT_FORMS = {False: _ONE_FORMS[:4], True: _TWO_FORMS[:4]}
_JOINS = ["{a} then {b}", "{a} and then {b}", "first {a} then {b}", "{a} before {b}"]


def describe(scenes: Sequence[Scene], rng: random.Random) -> str:
    """One sentence of at most MAX_WORDS words about one scene, or two in their order."""
    if len(scenes) not in (1, 2):
        raise ValueError(f"a sentence holds one scene or two, got {len(scenes)}")
    while True:
        if len(scenes) == 1:
            sentence = _clause(scenes[0], rng, _forms(scenes[0], short=False))
        else:
            first, second = (_clause(s, rng, _forms(s, short=True)) for s in scenes)
            sentence = usually(_JOINS, rng).format(a=first, b=second)
        if len(sentence.split()) <= MAX_WORDS:
            return sentence


def describe_differently(scenes: Sequence[Scene], count: int, rng: random.Random) -> list[str]:
    """`count` different sentences about the same scenes."""
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        sentences[describe(scenes, rng)] = None
    return list(sentences)


def glimpse(scene: Scene) -> str:
    """What is where, in the usual words and without the motion: "two red boats on the beach"."""
    thing = _noun_phrase(scene.count, scene.colour, scene.object, None)
    if scene.relation is not None:
        other = _noun_phrase(1, str(scene.second_colour), str(scene.second_object), None)
        thing = f"{thing} {_RELATIONS[scene.relation][0]} {other}"
    return f"{thing} {_PLACES[scene.place][0]}"


def tell(scene: Scene) -> str:
    """Everything about a scene, in the usual words."""
    return _clause(scene, None, _forms(scene, short=True)[:1])


def noun(thing: str, count: int, rng: random.Random) -> str:
    """A thing's name alone: "boat", or "boats" for a count above 1."""
    return str(usually(_OBJECTS[thing], rng)[count > 1])


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def colour_word(colour: str, rng: random.Random | None) -> str:
    return str(usually(_COLOURS[colour], rng))


def count_word(count: int, rng: random.Random) -> str:
    return str(usually(_COUNTS[count], rng))


def where(place: str, rng: random.Random) -> str:
    """A place as the end of a sentence: "on the beach"."""
    return str(usually(_PLACES[place], rng))


def place_name(place: str, rng: random.Random) -> str:
    """A place as a noun: "the beach"."""
    return str(usually(_PLACE_NAMES[place], rng))


def doing(motion: str, rng: random.Random) -> str:
    """A motion as a participle: "moving to the left"."""
    verb, rest = usually(_MOTIONS[motion], rng)
    return f"{_VERBS[verb][2]} {rest}".strip()


def ways_to_say(kind: str, value: str) -> tuple[str, ...]:
    """Every short answer that means an attribute's value, the usual one first.

    Args:
        kind: object, colour, count, motion or place, with values as in `attributes_in`.
    """
    match kind:
        case "object":
            ways = [form for nouns in _OBJECTS[value] for form in nouns]
        case "colour":
            ways = _COLOURS[value]
        case "count":
            number = {name: number for number, name in COUNT_NAMES.items()}[value]
            ways = [value, *_COUNTS[number]]
        case "place":
            ways = [*_PLACES[value], *_PLACE_NAMES[value], value]
        case "motion":
            ways = [
                f"{verb_form} {rest}".strip()
                for form in (2, 0, 1)
                for verb, rest in _MOTIONS[value]
                for verb_form in [_VERBS[verb][form]]
            ]
        case _:
            raise ValueError(f"{kind!r} is no kind of short answer")
    return tuple(dict.fromkeys(ways))


def attributes_of(scenes: Sequence[Scene]) -> dict[str, set[str]]:
    """What a caption of these scenes should state, in the form of `attributes_in`."""
    found = _nothing()
    for scene in scenes:
        for colour, thing in scene.things:
            found["colour"].add(colour)
            found["object"].add(thing)
        found["count"].add(COUNT_NAMES[scene.count])
        found["motion"].add(scene.motion)
        found["place"].add(scene.place)
        if scene.relation is not None:
            found["relation"].add(scene.relation)
    return found


def attributes_in(caption: str) -> dict[str, set[str]]:
    """The attributes that a caption states, whichever synonyms it uses.

    Keys are object, colour, count, motion, relation and place; values are the world's names
    ("box" for "crates"), counts "one", "two", "three". What is not stated is an empty set.
    The longest known phrase wins at each word, so "to the left of" is never a motion.
    """
    words = re.findall(r"[a-z]+", caption.lower())
    found = _nothing()
    count = ""
    at = 0
    while at < len(words):
        phrase = _phrase_at(words, at)
        if phrase is None:
            at += 1
            continue
        kind, value = _LEXICON[phrase]
        if kind == "number":
            count = value
        else:
            found[kind].add(value)
        if kind == "object":
            # A number belongs to the thing it precedes; a bare "a" elsewhere counts nothing.
            if count:
                found["count"].add(count)
            count = ""
        at += len(phrase)
    return found


def vocabulary() -> set[str]:
    """Every word that `describe` can use."""
    phrases = [*_all(_OBJECTS), *_all(_COLOURS), *_all(_COUNTS), *_all(_PLACES), *_all(_RELATIONS)]
    phrases += [*_ONE_FORMS, *_TWO_FORMS, *_JOINS, "an is are"]
    for verb, rest in _all(_MOTIONS):
        phrases += [*_VERBS[verb], rest]
    flat = " ".join(p if isinstance(p, str) else " ".join(p) for p in phrases)
    return set(re.sub(r"\{\w+\}", " ", flat).split())


def _all(table: dict[Any, list[Any]]) -> list[Any]:
    return [way for ways in table.values() for way in ways]


def usually(ways: Sequence[Any], rng: random.Random | None) -> Any:
    """The first way with chance _USUAL, any of the others otherwise; always it without chance."""
    if rng is None or len(ways) == 1 or rng.random() < _USUAL:
        return ways[0]
    return rng.choice(ways[1:])


def _forms(scene: Scene, *, short: bool) -> Sequence[str]:
    related = scene.relation is not None
    if short:
        return _SHORT_FORMS[related]
    return _TWO_FORMS if related else _ONE_FORMS


def _clause(scene: Scene, rng: random.Random | None, forms: Sequence[str]) -> str:
    related = scene.relation is not None
    verb, rest = usually(_MOTIONS[scene.motion], rng)
    third, plural, participle = _VERBS[verb]
    alone = scene.count == 1
    are = "is" if alone else "are"
    parts = {
        "n": _noun_phrase(scene.count, scene.colour, scene.object, rng),
        "f": f"{third if alone else plural} {rest}",
        "b": f"{are} {participle} {rest}",
        "i": f"{participle} {rest}",
        "p": usually(_PLACES[scene.place], rng),
        "are": are,
    }
    if related:
        parts["r"] = usually(_RELATIONS[str(scene.relation)], rng)
        parts["m"] = _noun_phrase(1, str(scene.second_colour), str(scene.second_object), rng)
    return " ".join(usually(forms, rng).format(**parts).split())


def _noun_phrase(count: int, colour: str, thing: str, rng: random.Random | None) -> str:
    number, adjective = usually(_COUNTS[count], rng), colour_word(colour, rng)
    noun = usually(_OBJECTS[thing], rng)[count > 1]
    if number == "a" and adjective[0] in "aeiou":
        number = "an"
    return f"{number} {adjective} {noun}"


def _nothing() -> dict[str, set[str]]:
    return {kind: set() for kind in ("object", "colour", "count", "motion", "relation", "place")}


def _lexicon() -> dict[tuple[str, ...], tuple[str, str]]:
    """Phrases and what they state."""
    known: dict[str, tuple[str, str]] = {"an": ("number", "one")}
    for thing, nouns in _OBJECTS.items():
        known |= {form: ("object", thing) for noun in nouns for form in noun}
    for colour, adjectives in _COLOURS.items():
        known |= dict.fromkeys(adjectives, ("colour", colour))
    for number, ways in _COUNTS.items():
        known |= dict.fromkeys(ways, ("number", COUNT_NAMES[number]))
    for place, ways in _PLACES.items():
        known |= dict.fromkeys(ways, ("place", place))
    for relation in RELATIONS:
        known |= dict.fromkeys(_RELATIONS[relation], ("relation", relation))
    for motion, phrases in _MOTIONS.items():
        for verb, rest in phrases:
            if verb not in _PLAIN:
                known |= dict.fromkeys(_VERBS[verb], ("motion", motion))
            if rest not in ("", "around", "away"):
                known[rest] = ("motion", motion)
    return {tuple(phrase.split()): stated for phrase, stated in known.items()}


_LEXICON = _lexicon()
_LONGEST = max(len(phrase) for phrase in _LEXICON)


def _phrase_at(words: Sequence[str], at: int) -> tuple[str, ...] | None:
    for length in range(min(_LONGEST, len(words) - at), 0, -1):
        phrase = tuple(words[at : at + length])
        if phrase in _LEXICON:
            return phrase
    return None
