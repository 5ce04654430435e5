"""Training batches are functions of seed and step, so a resumed run sees the same ones."""

import numpy as np
import pytest

from atom_repro.data.augmentation import none, shift
from atom_repro.data.batches import CaptionBatches, FrameBank, token_rarity
from atom_repro.data.frames import read_frames
from atom_repro.data.video_file import write_video
from atom_repro.datatypes import AtomError, Clip

CAPTIONS = [[[10 + i, 5, 2], [10 + i, 6, 7, 2]] for i in range(5)]


@pytest.fixture
def bank(tmp_path):
    clips = []
    for i in range(5):
        pixels = np.full((12, 32, 32, 3), 40 * i + 20, np.uint8)
        pixels[:, 8:16, 8:16] = 255  # something to see moving
        write_video(tmp_path / f"{i}.mp4", pixels, 4)
        clips.append(Clip("toy", "train", str(i), tmp_path / f"{i}.mp4"))
    return FrameBank(
        clips, frames=3, per_segment=4, size=32, folder=tmp_path / "bank", name="f" * 20
    )


def batches(bank, **changes):
    settings = {
        "batch_size": 2, "captions_per_clip": 1, "augmentation": none.build(), "pad_id": 0,
        "seed": 0,
    }  # fmt: skip
    return CaptionBatches(bank, CAPTIONS, **(settings | changes))


def test_a_step_is_a_function_of_seed_and_step(bank):
    first, again = batches(bank), batches(bank)
    for step in (7, 0, 3):
        for a, b in zip(first(step), again(step), strict=True):
            assert np.array_equal(a, b)
    other = batches(bank, seed=1)
    assert any(not np.array_equal(first(s)[1], other(s)[1]) for s in range(5))


def test_every_epoch_shows_every_clip_once(bank):
    made = batches(bank)
    seen = [int(ids[0, 0] - 10) for step in range(5) for ids in made(step)[1]]
    assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]
    assert seen[:5] != seen[5:]


def test_shapes_and_padding(bank):
    frames, ids = batches(bank, captions_per_clip=2)(0)
    assert frames.shape == (2, 3, 3, 32, 32)
    assert frames.dtype == np.uint8
    assert ids.shape == (2, 2, 4)
    for ways in ids:
        assert sorted(int((w != 0).sum()) for w in ways) == [3, 4]
        assert all(w[(w != 0).sum() - 1] == 2 for w in ways)


def test_a_shift_moves_all_frames_of_a_clip_alike(bank):
    still, moved = batches(bank)(0)[0], batches(bank, augmentation=shift.build(pixels=3))(0)[0]
    assert not np.array_equal(still, moved)

    def corner(frame):
        rows, columns = np.nonzero(frame[0] > 230)
        return rows.min(), columns.min()

    for clip, plain in zip(moved, still, strict=True):
        places = {corner(frame) for frame in clip}
        assert len(places) == 1
        (down, right), (row, column) = next(iter(places)), corner(plain[0])
        assert max(abs(int(down) - int(row)), abs(int(right) - int(column))) <= 3


def test_the_bank_is_kept_for_the_next_run(bank, tmp_path):
    again = FrameBank([], frames=3, per_segment=4, size=32, folder=tmp_path / "bank", name="f" * 20)
    assert np.array_equal(again.pixels, bank.pixels)


def test_decoding_goes_on_where_it_was_cut_off(bank, tmp_path, monkeypatch):
    clips = [Clip("toy", "train", str(i), tmp_path / f"{i}.mp4") for i in range(5)]
    real, read, broken = read_frames, [], {"3"}

    def reading(path, **how):
        if path.stem in broken:
            raise AtomError(f"{path} is cut short")
        read.append(path.stem)
        return real(path, **how)

    monkeypatch.setattr("atom_repro.data.batches.read_frames", reading)
    asked = []

    def decode():
        return FrameBank(
            clips, frames=3, per_segment=4, size=32, folder=tmp_path / "other", name="f" * 20,
            make_room=lambda folder, needed: asked.append(needed),
        )  # fmt: skip

    with pytest.raises(AtomError, match=r"3\.mp4 is cut short"):
        decode()
    broken.clear()
    assert np.array_equal(decode().pixels, bank.pixels)
    assert read == ["0", "1", "2", "3", "4"]
    assert asked == [bank.pixels.nbytes]
    assert [f.name for f in (tmp_path / "other").iterdir()] == [f"{'f' * 16}-3x4-32px.npy"]


def test_too_many_captions_are_refused_by_key(bank):
    with pytest.raises(AtomError, match=r"train\.captions_per_clip=3 exceeds a clip's 2"):
        batches(bank, captions_per_clip=3)


def test_rarity_is_zero_for_special_tokens_and_grows_with_rareness():
    rarity = token_rarity(CAPTIONS, 20, special=(2,))
    assert rarity[2] == 0
    assert rarity[5] == pytest.approx(0)  # in every clip
    assert rarity[10] == pytest.approx(np.log(6 / 2))
