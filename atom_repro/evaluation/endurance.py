"""Many clips through one session: is every clip answered for, and does memory stay level?

Outcomes are handed on and forgotten, and so are the session's spans; what is left of a clip when
it is done is what memory grows by.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import Clip, Failure
from atom_repro.device.memory import anonymous_bytes
from atom_repro.runtime.runtime import Outcome, Runtime


@dataclass(frozen=True)
class Endured:
    """`at` (S,) clips that were done when `memory_bytes` (S,) was read; `failed` names clips."""

    captioned: int
    failed: tuple[str, ...]
    seconds: float
    at: NDArray[np.int64]
    memory_bytes: NDArray[np.int64]


def many_clips(
    originals: Sequence[Clip], count: int, *, broken_every: int, folder: Path
) -> tuple[list[Clip], tuple[str, ...]]:
    """`count` clips, the originals over and over under names of their own, and the broken ones'
    names: every `broken_every`th is a copy in `folder` that ends after a third of its bytes."""
    clips, broken = [], []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        original = originals[i % len(originals)]
        clip = replace(original, video_id=f"{original.video_id}#{i}")
        if i % broken_every == broken_every - 1:
            path = folder / f"{i}{original.path.suffix}"
            shutil.copyfile(original.path, path)
            with path.open("r+b") as stream:
                stream.truncate(original.path.stat().st_size // 3)
            clip = replace(clip, path=path)
            broken.append(clip.video_id)
        clips.append(clip)
    return clips, tuple(broken)


def endure(
    runtime: Runtime,
    clips: Sequence[Clip],
    *,
    sample_every: int,
    keep: Callable[[Outcome], object],
) -> Endured:
    """Caption clips, giving each outcome to `keep` as soon as it is there."""
    count = len(clips) // sample_every
    at, memory = np.zeros(count, np.int64), np.zeros(count, np.int64)
    captioned, failed = 0, []
    began = time.perf_counter()
    for done, outcome in enumerate(runtime.caption(clips), 1):
        keep(outcome)
        runtime.timeline.drain()
        if isinstance(outcome, Failure):
            failed.append(outcome.video_id)
        else:
            captioned += 1
        if done % sample_every == 0:
            at[done // sample_every - 1] = done
            memory[done // sample_every - 1] = anonymous_bytes()
    return Endured(captioned, tuple(failed), time.perf_counter() - began, at, memory)
