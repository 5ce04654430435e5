"""Footage: clips with captions and the captions' vectors, which every pipeline works on.

The first half of every pipeline of the paper (appendices A and B): caption each clip, embed each
caption. What comes after it, a search, a script, a summary or an answer, is a `Task`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from atom_repro.datatypes import Clip, Failure, Prediction
from atom_repro.runtime.runtime import Runtime

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Footage:
    """Clips that have a caption, their captions, and unit vectors (n, 384) of these, in one order.

    `failures` are clips without one: they cannot be found, shown or asked about.
    """

    clips: tuple[Clip, ...]
    predictions: tuple[Prediction, ...]
    vectors: Tensor
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True)
class Hit:
    """A clip that was found, with its caption's cosine similarity to what was looked for."""

    clip: Clip
    caption: str
    similarity: float


@dataclass(frozen=True)
class Reply:
    """What a task made of footage and a prompt: the clips it found, best first, the texts that the
    decoder wrote, and the task's own result."""

    hits: tuple[Hit, ...]
    texts: tuple[str, ...]
    result: Any


@dataclass(frozen=True)
class Delivery:
    """A reply as a person gets it: a sentence, a table, the same as JSON, and a movie's name."""

    said: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: Mapping[str, Any]
    movie: str = ""


class Task(Protocol):
    """One use of footage. `name` is the pipeline's."""

    @property
    def name(self) -> str: ...

    def respond(self, runtime: Runtime, footage: Footage, prompt: str, item: str) -> Reply:
        """Serve one prompt; `item` names it on the timeline."""
        ...

    def deliver(self, reply: Reply, folder: Path, progress: Progress) -> Delivery:
        """Say what came of it, and write what belongs to it into `folder`."""
        ...


def at_time(start_s: float, end_s: float | None) -> str:
    """A stretch of a video as people write it."""

    def minutes(at_s: float) -> str:
        return f"{int(at_s // 60)}:{at_s % 60:04.1f}"

    return f"{minutes(start_s)} to {'the end' if end_s is None else minutes(end_s)}"


def nothing(least_similarity: float) -> str:
    """Said instead of a bad match."""
    return (
        f"nothing found: no caption is as similar as pipeline.least_similarity={least_similarity:g}"
    )


def listed(hits: Sequence[Hit]) -> tuple[tuple[str, ...], ...]:
    """Hits as rows of video, time, caption, similarity."""
    return tuple(
        (
            hit.clip.source_id,
            at_time(hit.clip.start_s, hit.clip.end_s),
            hit.caption,
            f"{hit.similarity:.2f}",
        )
        for hit in hits
    )


HIT_COLUMNS = ("video", "time", "caption", "similarity")


def hit_data(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Hits as JSON has them; times in seconds."""
    return [
        {
            "video": hit.clip.source_id,
            "start_s": hit.clip.start_s,
            "end_s": hit.clip.end_s,
            "caption": hit.caption,
            "similarity": round(hit.similarity, 6),
        }
        for hit in hits
    ]


def watch(runtime: Runtime, clips: Sequence[Clip], item: str) -> Footage:
    """Caption clips under the runtime's arm, then embed the captions."""
    outcomes = list(runtime.caption(clips))
    seen = [
        (clip, outcome)
        for clip, outcome in zip(clips, outcomes, strict=True)
        if isinstance(outcome, Prediction) and outcome.caption.strip()
    ]
    vectors = runtime.embed([said.caption for _, said in seen], item)
    return Footage(
        clips=tuple(clip for clip, _ in seen),
        predictions=tuple(said for _, said in seen),
        vectors=vectors,
        failures=tuple(o for o in outcomes if isinstance(o, Failure)),
    )


def find(
    runtime: Runtime,
    footage: Footage,
    text: str,
    item: str,
    *,
    most: int,
    least_similarity: float,
    same_similarity: float = 1.0,
) -> list[Hit]:
    """The clips whose captions are nearest to a text, best first; of equals the earlier.

    Args:
        most: hits at the most.
        least_similarity: what is less similar than this is no match.
        same_similarity: of clips whose captions are more alike than this, or whose windows overlap
            by half, the best is kept and the others pass for the same footage.
    """
    if not len(footage):
        return []
    (wanted,) = runtime.embed([text], item)
    with runtime.timeline.span("rank", "host", item):
        similarity = (footage.vectors @ wanted).tolist()
        kept: list[int] = []
        for i in sorted(range(len(footage)), key=lambda i: (-similarity[i], i)):
            if len(kept) == most or similarity[i] < least_similarity:
                break
            if same_similarity < 1.0 and any(_same(footage, i, j, same_similarity) for j in kept):
                continue
            kept.append(i)
    return [
        Hit(footage.clips[i], footage.predictions[i].caption, float(similarity[i])) for i in kept
    ]


def _same(footage: Footage, i: int, j: int, least: float) -> bool:
    if float(footage.vectors[i] @ footage.vectors[j]) > least:
        return True
    return _overlap(footage.clips[i], footage.clips[j])


def _overlap(a: Clip, b: Clip) -> bool:
    """Whether two windows of one video share half of the shorter one."""
    if a.path != b.path or a.end_s is None or b.end_s is None:
        return a.path == b.path
    shared = min(a.end_s, b.end_s) - max(a.start_s, b.start_s)
    return shared >= 0.5 * min(a.end_s - a.start_s, b.end_s - b.start_s)
