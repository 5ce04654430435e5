"""Requests and questions have one meaning, and it is the truth."""

import random

import pytest

from atom_repro.data.toy.grammar import accepted_phrases, attributes_in
from atom_repro.data.toy.requests import (
    QUESTION_KINDS,
    SceneFilter,
    filter_phrase,
    question_about,
    request_text,
    sample_filter,
    with_wrong_attribute,
)
from atom_repro.data.toy.world import COLOURS, MOTIONS, OBJECTS, PLACES, Scene

BOATS = Scene("beach", "boat", "red", 2, "left")
STAR = Scene("night sky", "star", "white", 1, "up")
PAIR = Scene("snow", "car", "blue", 1, "up", "left of", "tree", "green")


def any_scene(rng: random.Random) -> Scene:
    return Scene(
        rng.choice(PLACES),
        rng.choice(OBJECTS),
        rng.choice(tuple(COLOURS)),
        rng.choice((1, 2, 3)),
        rng.choice(MOTIONS),
    )


@pytest.mark.parametrize(
    ("wish", "boats", "pair"),
    [
        (SceneFilter(place="beach"), True, False),
        (SceneFilter(object="boat", count=2), True, False),
        (SceneFilter(object="boat", count=3), False, False),
        (SceneFilter(object="boat", colour="blue"), False, False),
        (SceneFilter(object="tree", colour="green", place="snow"), False, True),
        (SceneFilter(object="tree", colour="blue"), False, False),  # the car is the blue one
        (SceneFilter(object="car", motion="up"), False, True),
    ],
)
def test_fitting(wish, boats, pair):
    assert (wish.matches(BOATS), wish.matches(PAIR)) == (boats, pair)


def test_a_wish_is_fulfilled_by_its_scene_and_says_what_it_asks():
    rng = random.Random(0)
    texts = set()
    for _ in range(500):
        scene = rng.choice([any_scene(rng), BOATS, PAIR])
        wish = sample_filter(scene, rng)
        assert wish.matches(scene)
        text = filter_phrase(wish, rng)
        texts.add(text)
        stated = attributes_in(text)
        for kind in ("object", "colour", "motion"):
            assert stated[kind] == wish.attributes.get(kind, set()), text
        assert stated["count"] >= wish.attributes.get("count", set())
    assert len(texts) > 120


def test_requests_tell_an_order_from_none():
    rng = random.Random(1)
    wishes = [
        SceneFilter(place="beach"),
        SceneFilter(object="star"),
        SceneFilter(object="car", colour="blue"),
    ]
    for count in (2, 3):
        ordered = {request_text(wishes[:count], ordered=True, rng=rng) for _ in range(300)}
        free = {request_text(wishes[:count], ordered=False, rng=rng) for _ in range(300)}
        assert len(ordered) > 30
        assert len(free) > 30
        assert all("then" in text or "end with" in text for text in ordered)
        assert not any("then" in text or "end with" in text for text in free)
        for text in ordered:
            assert text.rindex("star") > text.index("sea" if "sea" in text else "beach")


def test_questions_have_the_true_answer():
    rng = random.Random(2)
    answers = {
        kind: question.answer
        for kind in QUESTION_KINDS
        if (question := question_about(BOATS, [STAR], kind, rng)) is not None
    }
    assert answers.pop("yes_no") in ("yes", "no")
    assert answers == {
        "object": "boat",
        "colour": "red",
        "count": "two",
        "place": "on the beach",
        "motion": "moving to the left",
    }


def test_ambiguous_questions_are_not_asked():
    rng = random.Random(3)
    same_thing = Scene("city", "boat", "blue", 1, "up")
    assert question_about(BOATS, [same_thing], "colour", rng) is None
    assert question_about(BOATS, [same_thing], "place", rng) is None
    assert question_about(BOATS, [same_thing], "object", rng) is not None
    assert question_about(BOATS, [any_scene(rng), BOATS], "object", rng) is None
    assert question_about(PAIR, [], "count", rng) is None
    assert question_about(PAIR, [], "object", rng) is None


def test_yes_and_no_are_true_and_about_as_frequent():
    rng = random.Random(4)
    said = []
    for _ in range(400):
        scenes = [any_scene(rng), any_scene(rng)]
        question = question_about(scenes[0], scenes[1:], "yes_no", rng)
        said.append(question.answer)
        asked = attributes_in(question.text)
        there = any(
            asked["object"] <= {scene.object}
            and asked["colour"] <= {scene.colour}
            and asked["place"] <= {scene.place}
            for scene in scenes
        )
        assert (question.answer == "yes") == there, (question, scenes)
    assert 150 < said.count("yes") < 250


def test_misreading_changes_one_attribute():
    rng = random.Random(5)
    changed = set()
    for _ in range(300):
        scene = rng.choice([BOATS, STAR, PAIR])
        wrong = with_wrong_attribute(scene, rng)
        before, after = scene.as_meta(), wrong.as_meta()
        different = [kind for kind in before if before[kind] != after[kind]]
        assert len(different) == 1
        assert len(set(wrong.things)) == len(wrong.things)
        changed |= {*different}
    assert changed == {"object", "colour", "motion", "count"}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("object", OBJECTS),
        ("colour", tuple(COLOURS)),
        ("motion", MOTIONS),
        ("count", ("one", "two", "three")),
        ("place", PLACES),
    ],
)
def test_no_answer_means_two_things(kind, values):
    ways = [way for value in values for way in accepted_phrases(kind, value)]
    assert len(set(ways)) == len(ways)
    assert len(ways) > len(values)


def test_only_kinds_with_short_answers():
    with pytest.raises(ValueError, match="'relation'"):
        accepted_phrases("relation", "above")
