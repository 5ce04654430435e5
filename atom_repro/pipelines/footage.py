"""Footage: clips with captions and the captions' vectors, which every pipeline works on.

The first half of every pipeline of the paper (appendices A and B): caption each clip, embed each
caption. What comes after it, a search, a script, a summary or an answer, is a `Task`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from atom_repro.datatypes import Clip, Failure, Prediction
from atom_repro.runtime.runtime import Runtime


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


class Task(Protocol):
    """One use of footage. `name` is the pipeline's."""

    @property
    def name(self) -> str: ...

    def respond(self, runtime: Runtime, footage: Footage, prompt: str, item: str) -> Reply:
        """Serve one prompt; `item` names it on the timeline."""
        ...


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
    (wanted,) = runtime.embed([text], item)
    with runtime.timeline.span("rank", "host", item):
        similarity = (footage.vectors @ wanted).tolist()
        alike = footage.vectors @ footage.vectors.T
        kept: list[int] = []
        for i in sorted(range(len(footage)), key=lambda i: (-similarity[i], i)):
            if len(kept) == most or similarity[i] < least_similarity:
                break
            if same_similarity < 1.0 and any(
                float(alike[i, j]) > same_similarity or _overlap(footage.clips[i], footage.clips[j])
                for j in kept
            ):
                continue
            kept.append(i)
    return [
        Hit(footage.clips[i], footage.predictions[i].caption, float(similarity[i])) for i in kept
    ]


def _overlap(a: Clip, b: Clip) -> bool:
    """Whether two windows of one video share half of the shorter one."""
    if a.path != b.path or a.end_s is None or b.end_s is None:
        return a.path == b.path
    shared = min(a.end_s, b.end_s) - max(a.start_s, b.start_s)
    return shared >= 0.5 * min(a.end_s - a.start_s, b.end_s - b.start_s)
