"""Examples of the text tasks: functions of seed and step, never held out, true to captions."""

import random
import re

import pytest

from atom_repro import prompts
from atom_repro.data.toy.grammar import attributes_in, vocabulary
from atom_repro.data.toy.requests import SceneFilter
from atom_repro.data.toy.training_tasks import (
    TEXT_TASKS,
    ToyTasks,
    clips_to_show,
    join_in_order,
    same_scene,
    task_texts,
)
from atom_repro.data.toy.world import Scene
from atom_repro.datatypes import AtomError

BOATS = Scene("beach", "boat", "red", 2, "left")
BOATS_AGAIN = Scene("beach", "boat", "red", 3, "still")
STAR = Scene("night sky", "star", "white", 1, "up")
CAR = Scene("city", "car", "blue", 1, "up")


def tasks(planned, **changed):
    settings = {
        "mix": dict.fromkeys(TEXT_TASKS, 1.0),
        "row_words": 150,
        "max_captions": 5,
        "curriculum_steps": 0,
        "seed": 0,
    }
    return ToyTasks(planned, **(settings | changed))


@pytest.fixture(scope="module")
def rows(planned):
    return [row for step in range(25) for row in tasks(planned).rows(step, 16)]


def captions_of(example):
    return re.findall(r"^ \d+\. (.+)$", example.context, flags=re.MULTILINE)


def test_a_step_is_a_function_of_seed_and_step(planned):
    one, again = tasks(planned), tasks(planned)
    later = one.rows(7, 8)
    one.rows(0, 8)
    assert again.rows(7, 8) == later == one.rows(7, 8)
    assert tasks(planned, seed=1).rows(7, 8) != later
    assert one.rows(8, 8) != later
    assert again.visual_rows(3, 4) == one.visual_rows(3, 4) != one.visual_rows(4, 4)


def test_a_row_shares_its_captions(rows):
    for row in rows:
        words = row[0].context.split()
        words += " ".join(f"{example.ask} {example.target}" for example in row).split()
        assert 150 <= len(words) < 220
        assert len({example.context for example in row}) == 1
        assert all(example.prompt.startswith("captions:\n 1. ") for example in row)
        assert 1 <= len(captions_of(row[0])) <= 5
        assert len({example.ask for example in row}) == len(row)
        assert all(example.target and example.clip is None for example in row)


def test_every_task_is_there_and_varied(rows):
    by_task = {task: [e for row in rows for e in row if e.task == task] for task in TEXT_TASKS}
    for examples in by_task.values():
        assert len(examples) > 50
        assert len({example.prompt for example in examples}) > 0.95 * len(examples)
    starts = {e.ask.split()[5] for e in by_task["script"]}
    assert len(starts) >= 5
    assert len({e.target.split(",")[0].split(" a ")[0] for e in by_task["video_summary"]}) >= 3


def test_nothing_held_out_is_shown(planned, rows):
    """Whatever a caption pairs, training may show; evaluation's scenes are not drawn."""
    rng = random.Random(0)
    evaluated = {
        Scene.from_meta(entry)
        for clip in [*planned.clips("test"), *planned.clips("validation"), *planned.videos()]
        for entry in clip.meta["scenes"]
    }
    drawn = {planned.training_scene(rng) for _ in range(3000)}
    assert drawn.isdisjoint(evaluated)
    held = {
        pair
        for clip in planned.clips("test")
        if clip.meta["combination"] == "held_out"
        for scene in [Scene.from_meta(entry) for entry in clip.meta["scenes"]]
        for pair in scene.things
    } - {
        pair
        for clip in planned.clips("train")
        for scene in [Scene.from_meta(entry) for entry in clip.meta["scenes"]]
        for pair in scene.things
    }
    assert len(held) > 5
    shown = set()
    for row in rows:
        for caption in captions_of(row[0]):
            stated = attributes_in(caption)
            if len(stated["object"]) == len(stated["colour"]) == 1:
                shown.add((*stated["colour"], *stated["object"]))
    assert len(shown) > 50
    assert shown.isdisjoint(held)


def test_scripts_are_read_back_and_repeat_the_captions(rows):
    scripts = [e for row in rows for e in row if e.task == "script"]
    for example in scripts:
        captions = captions_of(example)
        lines = prompts.read_script(example.target, len(captions))
        assert 1 <= len(lines) <= len(captions)
        assert prompts.script_text(lines) == example.target
        for line in lines:
            stated, said = attributes_in(captions[line.number - 1]), attributes_in(line.narration)
            for kind in ("object", "colour", "count", "place", "relation"):
                assert said[kind] == stated[kind], example
    shorter = [e for e in scripts if len(prompts.read_script(e.target, 9)) < len(captions_of(e))]
    assert len(shorter) > len(scripts) / 3


def test_an_order_is_followed_and_a_scene_shown_once():
    clips = [CAR, BOATS, STAR, BOATS_AGAIN]
    wishes = [SceneFilter(object="star"), SceneFilter(place="beach")]
    assert same_scene(BOATS, BOATS_AGAIN)
    assert clips_to_show(clips, wishes, ordered=True) == [2, 1]
    assert clips_to_show(clips, wishes, ordered=False) == [1, 2]
    assert clips_to_show(clips, [SceneFilter(object="tree")], ordered=True) == []
    blue = Scene("beach", "boat", "blue", 2, "left")
    assert clips_to_show([BOATS, blue], [SceneFilter(object="boat")], ordered=True) == [0, 1]


def test_a_scene_summary_states_the_majority(rows):
    disagreeing = 0
    for row in rows:
        if row[0].task != "scene_summary":
            continue
        views = [attributes_in(caption) for caption in captions_of(row[0])]
        disagreeing += any(view != views[0] for view in views)
        said = attributes_in(row[0].target)
        for kind in ("object", "colour", "count", "motion", "place"):
            most = [
                value
                for value in said[kind]
                if sum(value in v[kind] for v in views) * 2 > len(views)
            ]
            assert set(most) == said[kind], row[0]
    assert disagreeing > 10


def test_a_video_summary_says_every_scene_in_order(rows):
    for row in rows:
        if row[0].task != "video_summary":
            continue
        parts = re.split(
            r", (?:then|next|after that|finally|and at last|in the end) ", row[0].target
        )
        captions = captions_of(row[0])
        assert len(parts) == len(captions)
        for part, caption in zip(parts, captions, strict=True):
            assert attributes_in(part)["object"] == attributes_in(caption)["object"]
            assert attributes_in(part)["place"] == attributes_in(caption)["place"]


def test_joining_varies():
    joined = {join_in_order(["a", "b", "c"], random.Random(seed)) for seed in range(200)}
    assert "first a, then b, finally c" in joined
    assert len(joined) > 10


def test_answers_are_in_the_captions(rows):
    checked = 0
    for row in rows:
        for example in row:
            if example.task != "answer" or example.target in ("yes", "no"):
                continue
            said = attributes_in(example.target)
            stated = [attributes_in(caption) for caption in captions_of(example)]
            for kind, values in said.items():
                checked += len(values)
                assert values <= set().union(*(s[kind] for s in stated)), example
    assert checked > 200


def test_visual_questions_are_true_of_their_clip(planned):
    clips = planned.clips("train")
    checked = 0
    for row in tasks(planned).visual_rows(0, 60):
        assert len({example.clip for example in row}) == 1
        truth = planned.truth(clips[row[0].clip])
        for example in row:
            assert (example.task, example.context) == ("visual_answer", "")
            said = attributes_in(example.target)
            checked += sum(map(len, said.values()))
            assert all(values <= truth[kind] for kind, values in said.items())
    assert checked > 60


def test_prompts_grow_over_the_easy_steps(planned):
    growing = tasks(planned, max_captions=4, curriculum_steps=40)
    longest = [
        max(len(captions_of(row[0])) for row in growing.rows(step, 40))
        for step in (9, 10, 25, 30, 90)
    ]
    assert longest == [1, 2, 3, 4, 4]


def test_a_long_example_is_a_row_of_its_own(planned):
    assert {len(row) for row in tasks(planned, row_words=1).rows(0, 20)} == {1}


def test_captions_and_task_texts_hold_every_word_of_the_tasks(planned, rows):
    texts = task_texts(planned, rows=500, seed=5)
    assert texts == task_texts(planned, rows=500, seed=5)
    known = set(re.findall(r"\w+", " ".join(texts)))
    used = {w for row in rows for e in row for w in re.findall(r"\w+", e.prompt + " " + e.target)}
    assert len(used) > 150
    assert used <= known | vocabulary()
    assert {"question", "script", "sum", "answer", "finally"} <= known


@pytest.mark.parametrize("mix", [{}, {"poem": 1.0}, {"script": 0.0}])
def test_a_mix_must_name_tasks(planned, mix):
    with pytest.raises(AtomError, match="mix of text tasks"):
        tasks(planned, mix=mix)


def test_a_mix_is_kept(planned):
    only = tasks(planned, mix={"script": 2.0}).rows(0, 20)
    assert {example.task for row in only for example in row} == {"script"}
