"""Pictures: the same for the same chance, and different where the attributes differ."""

from dataclasses import replace

import numpy as np
import pytest

from atom_repro.data.toy.world import COLOURS, INVISIBLE, MOTIONS, OBJECTS, PLACES, Scene, render

SIXTH = [2, 7, 12, 17, 22, 27]  # centres of six segments of 30 frames
BALL = Scene("city", "ball", "red", 1, "still")


def draw(scene: Scene, frames: int = 30, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return render(scene, frames=frames, size=64, flash_frames=5, rng=rng)


def red_pixels(pictures: np.ndarray) -> list[np.ndarray]:
    """(N, 2) row and column of the pixels of a red thing, frame by frame."""
    values = pictures.astype(int)
    red = (values[..., 0] > 170) & (values[..., 1] < 90) & (values[..., 2] < 90)
    return [np.argwhere(mask) for mask in red]


def track(motion: str, frames: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Centre (row, column) and area of a red ball at every frame."""
    spots = red_pixels(draw(replace(BALL, motion=motion), frames, seed))
    return np.array([s.mean(axis=0) for s in spots]), np.array([len(s) for s in spots])


def test_the_same_chance_gives_the_same_bytes():
    for motion in MOTIONS:
        scene = replace(BALL, motion=motion, count=2)
        np.testing.assert_array_equal(draw(scene), draw(scene))
    assert (draw(BALL) != draw(BALL, seed=1)).any()


@pytest.mark.parametrize("frames", [30, 15])
def test_straight_motions_go_their_way(frames):
    for motion, axis, sign in [("right", 1, 1), ("left", 1, -1), ("down", 0, 1), ("up", 0, -1)]:
        centres, _ = track(motion, frames)
        steps = np.diff(centres, axis=0)
        assert (steps[:, axis] * sign > 0).all()
        assert np.ptp(centres[:, axis]) > 16
        assert np.ptp(centres[:, 1 - axis]) < 2


@pytest.mark.parametrize("seed", range(4))
def test_sizes_change(seed):
    _, grown = track("grow", seed=seed)
    _, shrunk = track("shrink", seed=seed)
    assert grown[-1] > 3 * grown[0]
    assert shrunk[0] > 3 * shrunk[-1]
    _, still = track("still", seed=seed)
    assert np.ptp(still) < 0.1 * still.mean()


def test_a_circle_turns_and_a_bounce_goes_up_and_down():
    circle, _ = track("circle")
    assert np.ptp(circle, axis=0) == pytest.approx([38, 38], abs=10)
    assert np.linalg.norm(circle[0] - circle[-1]) < 8
    bounce, _ = track("bounce")
    assert np.ptp(bounce[:, 1]) < 2
    heights = bounce[SIXTH, 0]
    assert heights[1] < heights[0] - 5
    assert heights[1] < heights[2] - 5


def test_flash_is_seen_by_any_frame_of_a_segment():
    areas = [len(spots) for spots in red_pixels(draw(replace(BALL, motion="flash")))]
    seen = np.array(areas).reshape(6, 5) > 50
    assert seen.all(axis=1).tolist() == [True, False] * 3
    assert seen.any(axis=1).tolist() == [True, False] * 3


@pytest.mark.parametrize("thing", OBJECTS)
def test_things_are_large(thing):
    """At least a fifth of the frame from the middle to the rim, along the longer axis."""
    shown = replace(BALL, object=thing, motion="flash")
    pictures = draw(shown, frames=10).astype(int)  # in sight for five frames, then out of it
    changed = np.argwhere(np.abs(pictures[0] - pictures[9]).max(axis=-1) > 40)
    assert max(np.ptp(changed, axis=0)) + 1 >= 0.4 * 64


def test_more_things_cover_more():
    single = replace(BALL, object="star")
    areas = [
        len(red_pixels(draw(replace(single, count=count), frames=1))[0])
        / len(red_pixels(draw(replace(single, count=1), frames=1))[0])
        for count in (2, 3)
    ]
    assert 1 < areas[0] < areas[1]


@pytest.mark.parametrize(
    ("relation", "axis", "sign"),
    [("left of", 1, -1), ("right of", 1, 1), ("above", 0, -1), ("below", 0, 1)],
)
def test_relations_stand_as_said(relation, axis, sign):
    scene = Scene("snow", "ball", "red", 1, "still", relation, "box", "blue")
    pictures = draw(scene, frames=1)
    first = red_pixels(pictures)[0].mean(axis=0)
    second = red_pixels(pictures[..., ::-1])[0].mean(axis=0)  # blue read as red
    assert (first[axis] - second[axis]) * sign > 20


def test_every_visible_colour_differs_from_its_place():
    for place in PLACES:
        bare = draw(Scene(place, "ball", "red", 1, "flash"), frames=10)[7].astype(int)
        for colour, rgb in COLOURS.items():
            if (colour, place) not in INVISIBLE:
                away = np.abs(bare[16:48, 16:48] - np.array(rgb)).sum(axis=-1)
                assert np.median(away) > 90, (colour, place)
