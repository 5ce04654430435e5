"""Caption batches: the clips, captions and frames of each training step.

Every draw is a function of (seed, step) alone, so a resumed run sees the batches of an
uninterrupted one. Frames of clips are decoded once and cached: each of the T segments has several
candidates, of which a step takes one at random.
"""

import fcntl
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import AtomError, Clip
from atom_repro.records.atomic import atomic_write
from atom_repro.video.sampling import DECODING, read_frames

ALL_ROWS = slice(None)
_FLUSH_EVERY_CLIPS = 50  # a killed run decodes at most these again


class Augmentation(Protocol):
    """Random transform of a clip, the same for all its frames. `draw` and `apply` are separate: a
    process draws for every clip of a batch, and transforms those that it reads."""

    def draw(self, rng: np.random.Generator, size: int) -> Any:
        """Draw the parameters for a clip of `size` pixels a side; the only use of `rng`."""

    def apply(self, pixels: NDArray[np.uint8], parameters: Any) -> NDArray[np.uint8]:
        """Transform a clip (T, S, S, 3) to the same shape; the input is not modified."""


class FrameBank:
    """Memory-mapped cache of candidate frames: (clips, T * per_segment, S, S, 3) uint8.

    Clips are decoded once and written one by one, so that a data set may be larger than memory.
    The file is kept in `folder`, named by the data set's fingerprint `name`, for the next run; an
    interrupted run goes on after the last clip that was flushed. Frames of an older `DECODING` are
    deleted. `faults` has what could not be seen of clips that were read in part, by their id.

    Raises:
        AtomError: the disk is full, or a clip cannot be read.
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
        older = f"{name[:16]}-{frames}x{per_segment}-{size}px"
        path = folder / f"{older}-v{DECODING}.npy"
        if not _is_whole(path):
            folder.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # another training may be decoding the same clips
                if not _is_whole(path):
                    for stale in folder.glob(f"{older}*.npy"):
                        if not stale.name.startswith(path.stem):
                            stale.unlink()
                    partial = path.with_suffix(".partial.npy")
                    shape = (len(clips), frames * per_segment, size, size, 3)
                    for _ in _decode(clips, shape, partial):
                        progress(1)
                    _state_file(partial).replace(_state_file(path))
                    partial.replace(path)
        self.faults: Mapping[str, str] = json.loads(_state_file(path).read_text())["faults"]
        self.pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r")

    def draw(
        self,
        clips: NDArray[np.int64],
        rng: np.random.Generator,
        augmentation: Augmentation,
        rows: slice = ALL_ROWS,
    ) -> NDArray[np.uint8]:
        """One random frame of each segment, augmented: (B, T, 3, S, S).

        Args:
            rows: which of `clips` to read; random numbers are drawn for all of them.
        """
        start = np.arange(self.frames) * self.per_segment
        picks = start + rng.integers(0, self.per_segment, (len(clips), self.frames))
        pixels = self.pixels[clips[rows, None], picks[rows]]
        size = pixels.shape[2]
        drawn = [augmentation.draw(rng, size) for _ in clips]
        for row, parameters in enumerate(drawn[rows]):
            pixels[row] = augmentation.apply(pixels[row], parameters)
        return np.ascontiguousarray(pixels.transpose(0, 1, 4, 2, 3))


def _is_whole(bank: Path) -> bool:
    return bank.is_file() and _state_file(bank).is_file()


def _state_file(bank: Path) -> Path:
    """Path of the JSON file beside a bank: how many clips it has (`decoded`), and `faults`."""
    return bank.with_suffix(".json")


def _decode(clips: Sequence[Clip], shape: tuple[int, ...], bank: Path) -> Iterator[None]:
    """Write the frames of clips to the file `bank`, resuming an interrupted call."""
    file, done = _state_file(bank), 0
    faults: dict[str, str] = {}
    if bank.is_file() and file.is_file():
        state = json.loads(file.read_text())
        done, faults = state["decoded"], state["faults"]
    else:
        file.unlink(missing_ok=True)
        _allocate(bank, shape)
    pixels = np.lib.format.open_memmap(bank, mode="r+")
    try:
        for index, clip in enumerate(clips):
            if index >= done:
                decoded = read_frames(
                    clip.path,
                    frames=shape[1],
                    size=shape[2],
                    sampling="centre",
                    start_s=clip.start_s,
                    end_s=clip.end_s,
                )
                pixels[index], done = decoded.pixels, index + 1
                if decoded.detail:
                    faults[clip.video_id] = decoded.detail
                if done % _FLUSH_EVERY_CLIPS == 0:
                    _flush(pixels, file, done, faults)
            yield
    finally:
        _flush(pixels, file, done, faults)


def _allocate(bank: Path, shape: tuple[int, ...]) -> None:
    """Create the file with all its disk space: a mapped file that runs out of it later kills the
    process by a signal."""
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


def _flush(pixels: Any, file: Path, decoded: int, faults: Mapping[str, str]) -> None:
    """Flush the written frames to the bank, then write its state to `file`."""
    pixels.flush()
    with atomic_write(file) as building:
        building.write_text(json.dumps({"decoded": decoded, "faults": faults}))


class CaptionBatches:
    """Batches by step number: frames and R captions for each clip.

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
        min_captions = min((len(c) for c in captions), default=0)
        if captions_per_clip > min_captions:
            raise AtomError(
                f"train.captions_per_clip={captions_per_clip} exceeds a clip's "
                f"{min_captions} captions"
            )
        self.bank, self.captions = bank, captions
        self.batch_size, self.captions_per_clip = batch_size, captions_per_clip
        self.augmentation, self.pad_id, self.seed = augmentation, pad_id, seed

    def _clip_indices(self, step: int) -> NDArray[np.int64]:
        count = len(self.captions)
        first = step * self.batch_size
        indices = np.empty(self.batch_size, np.int64)
        order, epoch = np.empty(0, np.int64), -1
        for i in range(self.batch_size):
            clip_epoch, position = divmod(first + i, count)
            if clip_epoch != epoch:
                order = np.random.default_rng((self.seed, 1, clip_epoch)).permutation(count)
                epoch = clip_epoch
            indices[i] = order[position]
        return indices

    def frames(self, step: int, clips: NDArray[np.int64], rows: slice) -> NDArray[np.uint8]:
        """Frames of the clips that the step's questions are about: (B, T, 3, S, S) uint8."""
        rng = np.random.default_rng((self.seed, 3, step))
        return self.bank.draw(clips, rng, self.augmentation, rows)

    def __call__(
        self, step: int, rows: slice = ALL_ROWS
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Frames (B, T, 3, S, S) uint8 and caption ids (B, R, L), padded on the right.

        Args:
            rows: clips whose frames to read; the ids are always those of the whole batch.
        """
        clips = self._clip_indices(step)
        rng = np.random.default_rng((self.seed, 2, step))
        frames = self.bank.draw(clips, rng, self.augmentation, rows)
        drawn = []
        for clip in clips:
            clip_captions = self.captions[clip]
            picks = rng.permutation(len(clip_captions))[: self.captions_per_clip]
            drawn.append([clip_captions[i] for i in picks])
        longest = max(len(ids) for clip_captions in drawn for ids in clip_captions)
        ids = np.full((len(clips), self.captions_per_clip, longest), self.pad_id, np.int64)
        for b, clip_captions in enumerate(drawn):
            for r, caption in enumerate(clip_captions):
                ids[b, r, : len(caption)] = caption
        return frames, ids


def token_rarity(
    captions: Sequence[Sequence[Sequence[int]]], vocabulary: int, special: Sequence[int]
) -> list[float]:
    """Inverse document frequency: log((clips + 1) / (clips with the token + 1)), 0 for special
    tokens."""
    clips_with_token = np.zeros(vocabulary)
    for clip_captions in captions:
        clips_with_token[sorted({token for caption in clip_captions for token in caption})] += 1
    rarity = np.log((len(captions) + 1) / (clips_with_token + 1))
    rarity[list(special)] = 0.0
    return [float(r) for r in rarity]
