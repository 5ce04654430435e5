"""Training batches are functions of seed and step, so a resumed run sees the same ones."""

import errno
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import atom_repro.training.batches
from atom_repro.datatypes import AtomError, Clip
from atom_repro.training.augmentation import none, shift
from atom_repro.training.batches import CaptionBatches, FrameBank, token_rarity
from atom_repro.video.file import write_video
from atom_repro.video.sampling import DECODING, read_frames

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


def test_frames_of_an_older_decoding_are_made_again(bank, tmp_path, reading, monkeypatch):
    read, _ = reading
    (old,) = (tmp_path / "bank").glob("*.npy")
    unversioned = old.with_name(old.name.replace(f"-v{DECODING}", ""))
    unversioned.write_bytes(old.read_bytes())
    monkeypatch.setattr("atom_repro.training.batches.DECODING", DECODING + 1)
    clips = [Clip("toy", "train", str(i), tmp_path / f"{i}.mp4") for i in range(5)]
    FrameBank(clips, frames=3, per_segment=4, size=32, folder=old.parent, name="f" * 20)
    assert len(read) == 5
    assert not old.exists()
    assert not unversioned.exists()


def decoded(folder):
    """A bank of the clips of `bank`, in a folder of its own."""
    clips = [Clip("toy", "train", str(i), folder / f"{i}.mp4") for i in range(5)]
    return FrameBank(
        clips, frames=3, per_segment=4, size=32, folder=folder / "other", name="f" * 20
    )


@pytest.fixture
def reading(monkeypatch):
    """Which clips were read, of which some are broken; every second one is flushed."""
    real, read, broken = read_frames, [], set()

    def recorded(path, **how):
        if path.stem in broken:
            raise AtomError(f"{path} is cut short")
        read.append(path.stem)
        return real(path, **how)

    monkeypatch.setattr("atom_repro.training.batches.read_frames", recorded)
    monkeypatch.setattr("atom_repro.training.batches._FLUSH_EVERY_CLIPS", 2)
    return read, broken


def test_decoding_goes_on_behind_a_broken_clip_that_was_mended(bank, tmp_path, reading):
    read, broken = reading
    broken.add("3")
    with pytest.raises(AtomError, match=r"3\.mp4 is cut short"):
        decoded(tmp_path)
    broken.clear()
    assert np.array_equal(decoded(tmp_path).pixels, bank.pixels)
    assert read == ["0", "1", "2", "3", "4"]
    left = sorted(f.suffix for f in (tmp_path / "other").iterdir())
    assert left == [".json", ".lock", ".npy"]


def test_decoding_goes_on_after_a_kill(bank, tmp_path, reading, monkeypatch):
    read, _ = reading
    child = os.fork()
    if child == 0:
        real = atom_repro.training.batches.read_frames

        def killed(path, **how):
            if path.stem == "3":
                os.kill(os.getpid(), signal.SIGKILL)
            return real(path, **how)

        monkeypatch.setattr("atom_repro.training.batches.read_frames", killed)
        try:
            decoded(tmp_path)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert np.array_equal(decoded(tmp_path).pixels, bank.pixels)
    assert read == ["2", "3", "4"]  # 0 and 1 were flushed


def test_two_trainings_that_need_the_same_frames_decode_them_once(bank, tmp_path, reading):
    read, _ = reading
    with ThreadPoolExecutor() as pool:
        banks = list(pool.map(decoded, [tmp_path] * 3))
    assert sorted(read) == ["0", "1", "2", "3", "4"]
    assert all(np.array_equal(b.pixels, bank.pixels) for b in banks)


def test_frames_without_room_on_the_disk_are_one_line(bank, tmp_path, monkeypatch):
    def full(file, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(AtomError, match=r"0 MiB of disk at .*/other \(No space left on device\)"):
        decoded(tmp_path)
    assert [f.suffix for f in (tmp_path / "other").iterdir()] == [".lock"]


def test_too_many_captions_are_refused_by_key(bank):
    with pytest.raises(AtomError, match=r"train\.captions_per_clip=3 exceeds a clip's 2"):
        batches(bank, captions_per_clip=3)


def test_rarity_is_zero_for_special_tokens_and_grows_with_rareness():
    rarity = token_rarity(CAPTIONS, 20, special=(2,))
    assert rarity[2] == 0
    assert rarity[5] == pytest.approx(0)  # in every clip
    assert rarity[10] == pytest.approx(np.log(6 / 2))
