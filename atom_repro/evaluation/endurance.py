"""Endurance run: many clips through one session, with failures counted and memory sampled.

Outcomes are passed on and the timeline is drained after every clip, so a growth of memory is a
leak of the runtime.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from atom_repro.datatypes import Clip, Failure
from atom_repro.device.memory import anonymous_bytes
from atom_repro.records.journal import Journal
from atom_repro.runtime.runtime import Runtime


@dataclass(frozen=True)
class EnduranceResult:
    """Result of an endurance run: `failed` clip ids, and `memory_bytes` (S,), anonymous memory
    sampled when `at` (S,) clips were done."""

    captioned: int
    failed: tuple[str, ...]
    seconds: float
    at: NDArray[np.int64]
    memory_bytes: NDArray[np.int64]


def repeat_clips(
    originals: Sequence[Clip], count: int, *, broken_every: int, folder: Path
) -> tuple[list[Clip], tuple[str, ...]]:
    """Repeat clips under new ids up to `count`; return them and the ids of the broken ones.

    Every `broken_every`th clip is broken: a copy in `folder` truncated to a third of its bytes.
    """
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


@dataclass(frozen=True)
class Endurance:
    """The pipeline of an endurance run: caption clips one by one, wherever a host runs it.

    Attributes:
        sample_every: clips from one sample of memory to the next.
        journal: file to which each outcome is written as soon as it is there.
    """

    sample_every: int
    journal: Path

    def run(self, runtime: Runtime, clips: Sequence[Clip]) -> list[EnduranceResult]:
        """Caption all clips; one result."""
        count = len(clips) // self.sample_every
        clips_done, memory = np.zeros(count, np.int64), np.zeros(count, np.int64)
        captioned, failed = 0, []
        start = time.perf_counter()
        with (
            Journal(self.journal) as journal,
            tqdm(total=len(clips), desc="endurance", unit="clip", mininterval=1) as bar,
        ):
            journal.rewrite([])  # a session is measured whole: nothing of an earlier one counts
            for done, outcome in enumerate(runtime.caption(clips), 1):
                journal.add(asdict(outcome))
                bar.update()
                runtime.timeline.drain()
                if isinstance(outcome, Failure):
                    failed.append(outcome.video_id)
                else:
                    captioned += 1
                if done % self.sample_every == 0:
                    clips_done[done // self.sample_every - 1] = done
                    memory[done // self.sample_every - 1] = anonymous_bytes()
        seconds = time.perf_counter() - start
        return [EnduranceResult(captioned, tuple(failed), seconds, clips_done, memory)]
