"""Training batches: which clips, which captions and which frames a step sees.

Every draw is a function of (seed, step) alone, so a run that resumes at step n sees what the
uninterrupted one would have seen. Frames of clips are decoded once and kept: each of the T
segments holds several candidates, of which a step takes one at random.
"""

import fcntl
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import AtomError, Clip
from atom_repro.video.sampling import read_frames

ALL = slice(None)
_FLUSH_EVERY = 50  # clips; how many a kill may cost


class Augmentation(Protocol):
    """What a step changes in a clip, all its frames alike. Drawing and doing are apart: a process
    draws for every clip of a batch, and changes those that it reads."""

    def draw(self, rng: np.random.Generator, size: int) -> Any:
        """What to do to one clip of `size` pixels a side; the only use of `rng`."""

    def apply(self, pixels: NDArray[np.uint8], drawn: Any) -> NDArray[np.uint8]:
        """Do it: (T, S, S, 3) to the same shape; the input is left as it is."""


class FrameBank:
    """Candidate frames of clips, in a mapped file: (clips, T * per_segment, S, S, 3) uint8.

    They are decoded once and written as they come, so that a data set may be larger than memory.
    The file lies in `folder`, under the data set's fingerprint `name`, for the next run; one that
    was interrupted goes on behind the last clip that is surely in it.

    Raises:
        AtomError: no room on the disk, or a clip that cannot be read.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        frames: int,
        per_segment: int,
        size: int,
        folder: Path,
        name: str,
        progress: Callable[[int], object] = lambda decoded: None,
    ) -> None:
        self.frames, self.per_segment = frames, per_segment
        path = folder / f"{name[:16]}-{frames}x{per_segment}-{size}px.npy"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # another training may be decoding the same
                if not path.is_file():
                    partial = path.with_suffix(".partial.npy")
                    shape = (len(clips), frames * per_segment, size, size, 3)
                    for _ in _decode(clips, shape, partial):
                        progress(1)
                    partial.replace(path)
                    _count_file(partial).unlink(missing_ok=True)
        self.pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r")

    def draw(
        self,
        clips: NDArray[np.int64],
        rng: np.random.Generator,
        augmentation: Augmentation,
        rows: slice = ALL,
    ) -> NDArray[np.uint8]:
        """One random frame of each segment, augmented: (B, T, 3, S, S).

        Args:
            rows: which of `clips` to read; draws are made for all of them.
        """
        start = np.arange(self.frames) * self.per_segment
        picks = start + rng.integers(0, self.per_segment, (len(clips), self.frames))
        pixels = self.pixels[clips[rows, None], picks[rows]]
        size = pixels.shape[2]
        drawn = [augmentation.draw(rng, size) for _ in clips]
        for clip, change in enumerate(drawn[rows]):
            pixels[clip] = augmentation.apply(pixels[clip], change)
        return np.ascontiguousarray(pixels.transpose(0, 1, 4, 2, 3))


def _count_file(bank: Path) -> Path:
    """Says how many clips are surely in an unfinished bank."""
    return bank.with_suffix(".count")


def _decode(clips: Sequence[Clip], shape: tuple[int, ...], bank: Path) -> Iterator[None]:
    """Write the frames of clips to the file `bank`, from where an earlier call was cut off."""
    count, done = _count_file(bank), 0
    if bank.is_file() and count.is_file():
        done = int(count.read_text())
    else:
        count.unlink(missing_ok=True)
        _reserve(bank, shape)
    pixels = np.lib.format.open_memmap(bank, mode="r+")
    try:
        for at, clip in enumerate(clips):
            if at >= done:
                read = read_frames(
                    clip.path,
                    frames=shape[1],
                    size=shape[2],
                    sampling="centre",
                    start_s=clip.start_s,
                    end_s=clip.end_s,
                )
                pixels[at], done = read.pixels, at + 1
                if done % _FLUSH_EVERY == 0:
                    _keep(pixels, count, done)
            yield
    finally:
        _keep(pixels, count, done)


def _reserve(bank: Path, shape: tuple[int, ...]) -> None:
    """Make the file with all the disk that it will take: a mapped file that finds none later
    ends the process by a signal."""
    np.lib.format.open_memmap(bank, mode="w+", dtype=np.uint8, shape=shape)
    try:
        with bank.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, bank.stat().st_size)
    except OSError as error:
        bank.unlink()
        raise AtomError(
            f"the frames of training clips need {math.prod(shape) / 2**20:,.0f} MiB of disk at "
            f"{bank.parent} ({error.strerror}); free some, or set paths.work to another disk"
        ) from error


def _keep(pixels: Any, count: Path, done: int) -> None:
    """Let the file have what was written, and then let `count` say so."""
    pixels.flush()
    replacement = count.with_suffix(".new")
    replacement.write_text(str(done))
    replacement.replace(count)


class CaptionBatches:
    """Batch number `step` of a run: frames and R captions a clip.

    Each epoch is a permutation of the clips; a last short batch is filled from the next epoch.
    """

    def __init__(
        self,
        bank: FrameBank,
        captions: Sequence[Sequence[Sequence[int]]],
        *,
        batch_size: int,
        captions_per_clip: int,
        augmentation: Augmentation,
        pad_id: int,
        seed: int,
    ) -> None:
        fewest = min((len(c) for c in captions), default=0)
        if captions_per_clip > fewest:
            raise AtomError(
                f"train.captions_per_clip={captions_per_clip} exceeds a clip's {fewest} captions"
            )
        self.bank, self.captions = bank, captions
        self.batch_size, self.captions_per_clip = batch_size, captions_per_clip
        self.augmentation, self.pad_id, self.seed = augmentation, pad_id, seed

    def _clips(self, step: int) -> NDArray[np.int64]:
        count = len(self.captions)
        first = step * self.batch_size
        chosen = np.empty(self.batch_size, np.int64)
        order, epoch = np.empty(0, np.int64), -1
        for i in range(self.batch_size):
            wanted, place = divmod(first + i, count)
            if wanted != epoch:
                order = np.random.default_rng((self.seed, 1, wanted)).permutation(count)
                epoch = wanted
            chosen[i] = order[place]
        return chosen

    def frames(self, step: int, clips: NDArray[np.int64], rows: slice) -> NDArray[np.uint8]:
        """Frames of some of the clips that the step's questions are about."""
        rng = np.random.default_rng((self.seed, 3, step))
        return self.bank.draw(clips, rng, self.augmentation, rows)

    def __call__(self, step: int, rows: slice = ALL) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Frames (B, T, 3, S, S) uint8 and caption ids (B, R, L), padded on the right.

        Args:
            rows: whose frames to read; the ids are always those of the whole batch.
        """
        clips = self._clips(step)
        rng = np.random.default_rng((self.seed, 2, step))
        frames = self.bank.draw(clips, rng, self.augmentation, rows)
        drawn = []
        for clip in clips:
            ways = self.captions[clip]
            picks = rng.permutation(len(ways))[: self.captions_per_clip]
            drawn.append([ways[i] for i in picks])
        longest = max(len(ids) for ways in drawn for ids in ways)
        ids = np.full((len(clips), self.captions_per_clip, longest), self.pad_id, np.int64)
        for b, ways in enumerate(drawn):
            for r, caption in enumerate(ways):
                ids[b, r, : len(caption)] = caption
        return frames, ids


def token_rarity(
    captions: Sequence[Sequence[Sequence[int]]], vocabulary: int, special: Sequence[int]
) -> list[float]:
    """log((clips + 1) / (clips with the token + 1)) a token, 0 for special ones: its idf."""
    held = np.zeros(vocabulary)
    for ways in captions:
        held[sorted({token for caption in ways for token in caption})] += 1
    rarity = np.log((len(captions) + 1) / (held + 1))
    rarity[list(special)] = 0.0
    return [float(r) for r in rarity]
