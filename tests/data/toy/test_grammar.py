"""Sentences state what the scene is, in many ways, and are read back exactly."""

import random

import pytest

from atom_repro.data.toy.grammar import (
    MAX_WORDS,
    attributes_in,
    attributes_of,
    describe,
    describe_differently,
    vocabulary,
)
from atom_repro.data.toy.world import COLOURS, MOTIONS, OBJECTS, PLACES, RELATION_MOTIONS, Scene

BALL = Scene("beach", "ball", "red", 1, "right")
FISH = Scene("city", "fish", "orange", 3, "flash")
PAIR = Scene("snow", "car", "blue", 1, "up", "left of", "tree", "green")


def every_scene() -> list[Scene]:
    """Each attribute value at least once, in single scenes and in relations."""
    rng = random.Random(0)
    scenes = [
        Scene(rng.choice(PLACES), thing, colour, rng.choice((1, 2, 3)), motion)
        for thing in OBJECTS
        for colour in COLOURS
        for motion in rng.sample(MOTIONS, 3)
    ]
    scenes += [
        Scene(place, "box", "white", 1, motion, relation, "rocket", "black")
        for place in PLACES
        for relation, motions in RELATION_MOTIONS.items()
        for motion in motions
    ]
    return scenes


def test_what_is_stated_is_read_back():
    rng = random.Random(1)
    scenes = every_scene()
    for scene in scenes:
        for _ in range(6):
            sentence = describe([scene], rng)
            assert attributes_in(sentence) == attributes_of([scene]), sentence
    singles = [scene for scene in scenes if scene.relation is None]
    for _ in range(600):
        pair = [rng.choice(scenes), rng.choice(singles)]
        sentence = describe(pair, rng)
        assert len(sentence.split()) <= MAX_WORDS
        assert attributes_in(sentence) == attributes_of(pair), sentence


def test_the_vocabulary_is_what_sentences_use():
    rng = random.Random(2)
    used = {
        word
        for scene in every_scene()
        for sentence in describe_differently([scene], 12, rng)
        for word in sentence.split()
    }
    used |= {word for _ in range(200) for word in describe([BALL, FISH], rng).split()}
    assert used <= vocabulary()
    assert len(used) > 0.95 * len(vocabulary())
    assert 120 <= len(vocabulary()) <= 190


@pytest.mark.parametrize(
    ("caption", "kind", "values"),
    [
        ("A red ball moves to the left of a blue box.", "relation", {"left of"}),
        ("a red ball moves to the left of a blue box", "motion", set()),
        ("a ball moves to the left", "motion", {"left"}),
        ("a ball travels from left to right", "motion", {"right"}),
        ("three crates jump up and down", "motion", {"bounce"}),
        ("a ball goes down", "motion", {"down"}),
        ("a pair of violet cottages", "count", {"two"}),
        ("a pair of violet cottages", "colour", {"purple"}),
        ("a pair of violet cottages", "object", {"house"}),
        ("a group of three fish", "count", {"three"}),
        ("fish on a snowy day", "count", set()),
        ("an orange star moves in a circle", "count", {"one"}),
        ("on a city street", "place", {"city"}),
        ("two ships sail across the pond", "object", set()),
        ("", "object", set()),
    ],
)
def test_reading(caption, kind, values):
    assert attributes_in(caption)[kind] == values


def test_sentences_differ_and_not_by_one_template():
    sentences = describe_differently([BALL], 200, random.Random(3))
    assert len(set(sentences)) == 200
    assert len({sentence.split()[0] for sentence in sentences}) >= 6
    assert all(sentence == " ".join(sentence.lower().split()) for sentence in sentences)


def test_the_choice_of_words_is_chance_alone():
    """The same chance gives the same ways, whatever is shown."""
    for seed in range(50):
        red = describe([BALL], random.Random(seed))
        blue = describe([Scene("beach", "ball", "blue", 1, "right")], random.Random(seed))
        assert red.replace("red", "blue") == blue


def test_articles():
    rng = random.Random(4)
    orange = Scene("beach", "ball", "orange", 1, "still")
    text = " ".join(describe([orange], rng) for _ in range(100))
    assert "an orange" in text
    assert "a orange" not in text


def test_three_scenes_do_not_fit_one_sentence():
    with pytest.raises(ValueError, match="one scene or two"):
        describe([BALL, FISH, PAIR], random.Random(0))
