"""Training batches: which clips, which captions and which frames a step sees.

Every draw is a function of (seed, step) alone, so a run that resumes at step n sees what the
uninterrupted one would have seen. Frames of small clips are decoded once and kept: each of the T
segments holds several candidates, of which a step takes one at random.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atom_repro.data.frames import read_frames
from atom_repro.datatypes import AtomError, Clip

ALL = slice(None)


class Augmentation(Protocol):
    """What a step changes in a clip, all its frames alike. Drawing and doing are apart: a process
    draws for every clip of a batch, and changes those that it reads."""

    def draw(self, rng: np.random.Generator, size: int) -> Any:
        """What to do to one clip of `size` pixels a side; the only use of `rng`."""

    def apply(self, pixels: NDArray[np.uint8], drawn: Any) -> NDArray[np.uint8]:
        """Do it: (T, S, S, 3) to the same shape; the input is left as it is."""


class FrameBank:
    """Candidate frames of clips in memory: (clips, T * per_segment, S, S, 3) uint8.

    A complete bank is kept in `folder`, under the data set's fingerprint `name`, for the next run.
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
        if path.is_file():
            self.pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r")
            return
        shape = (len(clips), frames * per_segment, size, size, 3)
        pixels = np.empty(shape, np.uint8)
        for i, clip in enumerate(clips):
            read = read_frames(
                clip.path,
                frames=frames * per_segment,
                size=size,
                sampling="centre",
                start_s=clip.start_s,
                end_s=clip.end_s,
            )
            pixels[i] = read.pixels
            progress(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, pixels)
        partial.replace(path)
        self.pixels = np.load(path, mmap_mode="r")

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
