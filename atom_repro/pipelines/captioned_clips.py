"""Captioned clips: captions and their embeddings, the common input of every pipeline.

The first half of every pipeline of the paper (appendices A and B): caption each clip, embed each
caption. The second half, a search, a script, a summary or an answer, is a `Task`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from atom_repro.datatypes import Clip, Failure, Prediction
from atom_repro.runtime.runtime import Runtime
from atom_repro.video.folder import printable

Progress = Callable[[float], None]


@dataclass(frozen=True)
class CaptionedClips:
    """Clips, their captions and the captions' unit embeddings `vectors` (n, 384), in one order.

    `failures` are clips without a caption: no task can use them.
    """

    clips: tuple[Clip, ...]
    predictions: tuple[Prediction, ...]
    vectors: Tensor
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True)
class Hit:
    """A retrieved clip with its caption's cosine similarity to the query."""

    clip: Clip
    caption: str
    similarity: float


@dataclass(frozen=True)
class TaskResult:
    """A task's response to a prompt: the retrieved clips, best first, the texts that the decoder
    generated, and the task's own result."""

    hits: tuple[Hit, ...]
    texts: tuple[str, ...]
    result: Any


@dataclass(frozen=True)
class Delivery:
    """A reply for display: a sentence, a table, the same as JSON, a movie's file name, and a line
    for everything that is missing or damaged in it."""

    summary: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: Mapping[str, Any]
    movie: str = ""
    faults: tuple[str, ...] = ()


class Task(Protocol):
    """The second half of a pipeline; `name` is the pipeline's."""

    @property
    def name(self) -> str: ...

    def respond(
        self, runtime: Runtime, captioned: CaptionedClips, prompt: str, item: str
    ) -> TaskResult:
        """Answer one prompt; `item` names it on the timeline."""
        ...

    def deliver(self, reply: TaskResult, folder: Path, progress: Progress) -> Delivery:
        """Describe a reply for display, and write the task's own files into `folder`."""
        ...


def time_range(start_s: float, end_s: float | None) -> str:
    """Format a time span of a video, as `0:05.0 to 0:15.0` or `1:59:58.0 to 2:00:08.0`."""

    def clock_time(at_s: float) -> str:
        tenths = round(10 * at_s)
        minutes, tenths = divmod(tenths, 600)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}" if hours else f"{minutes}"
        return f"{clock}:{tenths // 10:02}.{tenths % 10}"

    return f"{clock_time(start_s)} to {'the end' if end_s is None else clock_time(end_s)}"


def source_name(clip: Clip) -> str:
    """Name of a clip's video for display: in a folder its path there, so that two differ."""
    return clip.source_id or printable(clip.path.name)


def counted(count: int, noun: str) -> str:
    """A count with its noun, as `1 clip` or `2 clips`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def no_match_message(least_similarity: float) -> str:
    """Text shown where no clip reaches the similarity threshold."""
    return (
        f"nothing found: no caption is as similar as pipeline.least_similarity={least_similarity:g}"
    )


def hit_rows(hits: Sequence[Hit]) -> tuple[tuple[str, ...], ...]:
    """Hits as table rows with the columns `HIT_COLUMNS`."""
    return tuple(
        (
            source_name(hit.clip),
            time_range(hit.clip.start_s, hit.clip.end_s),
            hit.caption,
            f"{hit.similarity:.2f}",
        )
        for hit in hits
    )


HIT_COLUMNS = ("video", "time", "caption", "similarity")


def hit_data(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Hits as JSON objects; times in seconds."""
    return [
        {
            "video": source_name(hit.clip),
            "start_s": hit.clip.start_s,
            "end_s": hit.clip.end_s,
            "caption": hit.caption,
            "similarity": round(hit.similarity, 6),
        }
        for hit in hits
    ]


def caption_and_embed(runtime: Runtime, clips: Sequence[Clip], item: str) -> CaptionedClips:
    """Caption clips with the runtime, then embed the captions."""
    outcomes = list(runtime.caption(clips))
    captioned = [
        (clip, outcome)
        for clip, outcome in zip(clips, outcomes, strict=True)
        if isinstance(outcome, Prediction) and outcome.caption.strip()
    ]
    vectors = runtime.embed([prediction.caption for _, prediction in captioned], item)
    return CaptionedClips(
        clips=tuple(clip for clip, _ in captioned),
        predictions=tuple(prediction for _, prediction in captioned),
        vectors=vectors,
        failures=tuple(o for o in outcomes if isinstance(o, Failure)),
    )


def rank_clips(
    runtime: Runtime,
    captioned: CaptionedClips,
    text: str,
    item: str,
    *,
    max_hits: int,
    least_similarity: float,
    same_similarity: float = 1.0,
) -> list[Hit]:
    """Rank clips by the cosine of caption and text, best first; ties keep clip order.

    Args:
        max_hits: maximum number of hits.
        least_similarity: cosine below which a clip is no match.
        same_similarity: cosine of two captions above which their clips are duplicates, as are clips
            whose windows overlap by half; the best of them is kept. 1.0 keeps duplicates.
    """
    if not len(captioned):
        return []
    (query_vector,) = runtime.embed([text], item)
    with runtime.timeline.span("rank", "host", item):
        similarity = (captioned.vectors @ query_vector).tolist()
        selected: list[int] = []
        for i in sorted(range(len(captioned)), key=lambda i: (-similarity[i], i)):
            if len(selected) == max_hits or similarity[i] < least_similarity:
                break
            if same_similarity < 1.0 and any(
                _are_duplicates(captioned, i, j, same_similarity) for j in selected
            ):
                continue
            selected.append(i)
    return [
        Hit(captioned.clips[i], captioned.predictions[i].caption, float(similarity[i]))
        for i in selected
    ]


def _are_duplicates(captioned: CaptionedClips, i: int, j: int, same_similarity: float) -> bool:
    if float(captioned.vectors[i] @ captioned.vectors[j]) > same_similarity:
        return True
    return _overlap(captioned.clips[i], captioned.clips[j])


def _overlap(a: Clip, b: Clip) -> bool:
    """Whether two windows of one video share half of the shorter one."""
    if a.path != b.path or a.end_s is None or b.end_s is None:
        return a.path == b.path
    shared = min(a.end_s, b.end_s) - max(a.start_s, b.start_s)
    return shared >= 0.5 * min(a.end_s - a.start_s, b.end_s - b.start_s)
