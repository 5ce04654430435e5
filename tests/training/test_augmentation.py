"""All frames of a clip are changed alike, by the released geometry, and shifted as they were."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from atom_repro.datatypes import AtomError
from atom_repro.training.augmentation import mplug2, none, shift
from atom_repro.training.batches import FrameBank

RELEASED = {
    "scale": [0.5, 1.0], "ratio": [3 / 4, 4 / 3], "flip": 0.5, "operations": 2, "magnitude": 5,
}  # fmt: skip
SIZE = 32


@pytest.fixture
def bank(tmp_path):
    made = FrameBank([], frames=3, per_segment=2, size=16, folder=tmp_path, name="name")
    made.pixels = np.random.default_rng(0).integers(0, 256, (7, 6, 16, 16, 3), np.uint8)
    return made


@pytest.fixture
def clip():
    return np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


def moved_at_once(bank, clips, rng, largest, rows):
    """The frames as they were drawn when shifts of a batch came from one draw (commit 3b2917d)."""
    start = np.arange(bank.frames) * bank.per_segment
    picks = start + rng.integers(0, bank.per_segment, (len(clips), bank.frames))
    pixels = bank.pixels[clips[rows, None], picks[rows]]
    size = pixels.shape[2]
    if largest:
        for i, (down, right) in enumerate(
            rng.integers(-largest, largest + 1, (len(clips), 2))[rows]
        ):
            across = np.clip(np.arange(size) - right, 0, size - 1)
            along = np.clip(np.arange(size) - down, 0, size - 1)
            pixels[i] = pixels[i][:, along][:, :, across]
    return pixels.transpose(0, 1, 4, 2, 3)


@pytest.mark.parametrize("largest", [0, 1, 2, 5])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 5)])
def test_a_shift_draws_and_moves_what_it_always_did(bank, largest, rows):
    clips = np.array([4, 0, 6, 2, 2, 5, 1])
    augmentation = shift.build(pixels=largest) if largest else none.build()
    for seed in range(8):
        old, new = (np.random.default_rng((seed, 2, 9)) for _ in range(2))
        expected = moved_at_once(bank, clips, old, largest, rows)
        assert np.array_equal(bank.draw(clips, new, augmentation, rows), expected)
        # What is drawn next, a clip's captions, is the same too.
        assert np.array_equal(old.permutation(9), new.permutation(9))


@pytest.mark.parametrize(
    "augmentation", [none.build(), shift.build(pixels=3), mplug2.build(**RELEASED)]
)
def test_it_is_a_function_of_frames_and_draws(clip, augmentation):
    before, states = clip.copy(), []
    made = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        made.append(augmentation.apply(clip, augmentation.draw(rng, SIZE)))
        states.append(rng.random())
    assert np.array_equal(*made)
    assert states[0] == states[1]
    assert np.array_equal(clip, before)
    assert made[0].shape == clip.shape
    assert made[0].dtype == np.uint8


def test_all_frames_of_a_clip_are_changed_alike(clip):
    augmentation, rng = mplug2.build(**RELEASED), np.random.default_rng(0)
    still = np.repeat(clip[:1], 3, axis=0)
    for _ in range(20):
        first, *others = augmentation.apply(still, augmentation.draw(rng, SIZE))
        assert all(np.array_equal(first, other) for other in others)


def test_draws_follow_the_released_settings():
    augmentation, rng = mplug2.build(**RELEASED), np.random.default_rng(0)
    changes = [augmentation.draw(rng, 224) for _ in range(2000)]
    shares = [c.width * c.height / 224**2 for c in changes]
    ratios = [c.width / c.height for c in changes]
    assert 0.49 < min(shares) < 0.52
    assert 0.95 < max(shares) <= 1
    assert 0.73 < min(ratios) < 0.77
    assert 1.3 < max(ratios) < 1.36
    assert all(c.left + c.width <= 224 and c.top + c.height <= 224 for c in changes)
    assert np.mean([c.flip for c in changes]) == pytest.approx(0.5, abs=0.04)
    assert all(len(set(c.operations)) == 2 for c in changes)
    counts = Counter(name for c in changes for name in c.operations)
    assert set(counts) == set(mplug2.OPERATIONS)
    assert all(n / 2000 == pytest.approx(2 / 9, abs=0.04) for n in counts.values())


@pytest.mark.parametrize("name", ["identity", "contrast", "brightness", "sharpness"])
def test_four_of_nine_do_nothing_at_magnitude_5(clip, name):
    picture = Image.fromarray(clip[0])
    assert np.array_equal(np.asarray(mplug2.apply_operation(picture, name, 5)), clip[0])
    if name != "identity":
        assert not np.array_equal(np.asarray(mplug2.apply_operation(picture, name, 9)), clip[0])


def moved(name, row, column):
    """Where a bright spot at (row, column) of a 101 pixel picture is after an operation."""
    pixels = np.zeros((101, 101, 3), np.uint8)
    pixels[row - 1 : row + 2, column - 1 : column + 2] = 255
    after = np.asarray(mplug2.apply_operation(Image.fromarray(pixels), name, 5))[:, :, 0].astype(
        float
    )
    after[after == 128] = 0  # uncovered
    rows, columns = np.nonzero(after)
    weight = after[rows, columns]
    return np.average(rows, weights=weight), np.average(columns, weights=weight)


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("translate_x", 40, 55),
        ("translate_y", 35, 60),
        ("shear_x", 40, 60 + 0.15 * 40),
        ("shear_y", 40 + 0.15 * 60, 60),
        # About the centre (50, 50), against the clock: 10 up and 10 right of it.
        ("rotate", 50 - 10 * np.cos(np.pi / 12) - 10 * np.sin(np.pi / 12),
         50 + 10 * np.cos(np.pi / 12) - 10 * np.sin(np.pi / 12)),
    ],
)  # fmt: skip
def test_moves_are_the_released_ones(name, row, column):
    assert moved(name, 40, 60) == pytest.approx((row, column), abs=0.1)


def test_what_a_move_uncovers_is_grey(clip):
    after = np.asarray(mplug2.apply_operation(Image.fromarray(clip[0]), "translate_x", 5))
    assert np.all(after[:, -5:] == 128)
    assert np.array_equal(after[:, :-5], clip[0][:, 5:])


def test_overshoot_is_clamped():
    """A bicubic edge overshoots both ends; wrapped around, black would turn white beside it."""
    pixels = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    pixels[:, :, SIZE // 2 :] = 255
    still = mplug2.build(**RELEASED | {"operations": 0})
    row = still.apply(pixels, mplug2.ClipTransform(5, 5, 23, 23, False, ()))[0, 0, :, 0].astype(int)
    assert np.all(np.diff(row) >= 0)
    assert (row[0], row[-1]) == (0, 255)


def test_a_flip_is_left_to_right(clip):
    plain = mplug2.build(**RELEASED | {"operations": 0})
    change = mplug2.ClipTransform(0, 0, SIZE, SIZE, True, ())
    assert np.array_equal(plain.apply(clip, change), clip[:, :, ::-1])


@pytest.mark.parametrize(
    ("key", "value"),
    [("scale", [0.5, 1.5]), ("ratio", [2.0, 1.0]), ("flip", 2.0), ("operations", 10),
     ("magnitude", 11)],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_key(key, value):
    with pytest.raises(AtomError, match=rf"augmentation\.{key} takes"):
        mplug2.build(**RELEASED | {key: value})
    with pytest.raises(AtomError, match=r"augmentation\.pixels=-1"):
        shift.build(pixels=-1)
