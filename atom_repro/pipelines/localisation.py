"""Event localisation (paper appendix B): the time span of a video that a sentence describes.

A point in time scores the mean caption similarity of the windows that cover it. The span grows
from the best point while its neighbours score within a margin of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from atom_repro.datatypes import AtomError, Clip
from atom_repro.pipelines.captioned_clips import (
    HIT_COLUMNS,
    CaptionedClips,
    Delivery,
    Hit,
    Progress,
    TaskResult,
    counted,
    no_match_message,
    rank_clips,
    source_name,
    time_range,
)
from atom_repro.pipelines.session import Session, checked_count, checked_similarity, session_of
from atom_repro.runtime.runtime import Runtime
from atom_repro.video.sampling import probe


@dataclass(frozen=True)
class Moment:
    """A time span of one video, in seconds since its first frame."""

    video: Path
    name: str
    start_s: float
    end_s: float
    similarity: float
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Localisation:
    """The event localisation task; see `build` for its fields."""

    name: str
    most: int
    least_similarity: float
    margin: float

    def respond(
        self, runtime: Runtime, captioned: CaptionedClips, prompt: str, item: str
    ) -> TaskResult:
        hits = rank_clips(
            runtime, captioned, prompt, item, max_hits=len(captioned), least_similarity=-1.0
        )
        with runtime.timeline.span("rank", "host", item):
            by_video: dict[Path, list[Hit]] = {}
            for hit in hits:
                by_video.setdefault(hit.clip.path, []).append(hit)
            moments = sorted(
                (best_moment(video_hits, self.margin) for video_hits in by_video.values()),
                key=lambda moment: -moment.similarity,
            )
        matches = [m for m in moments if m.similarity >= self.least_similarity][: self.most]
        matched_videos = {m.video for m in matches}
        kept = tuple(hit for hit in hits if hit.clip.path in matched_videos)
        return TaskResult(kept, (), tuple(matches))

    def deliver(self, reply: TaskResult, folder: Path, progress: Progress) -> Delivery:
        moments: tuple[Moment, ...] = reply.result
        found = counted(len(moments), "moment")
        summary = found if moments else no_match_message(self.least_similarity)
        rows = tuple(
            (
                moment.name,
                time_range(moment.start_s, moment.end_s),
                "; ".join(moment.captions),
                f"{moment.similarity:.2f}",
            )
            for moment in moments
        )
        data = {
            "moments": [
                {
                    "video": moment.name,
                    "start_s": moment.start_s,
                    "end_s": moment.end_s,
                    "similarity": round(moment.similarity, 6),
                    "captions": list(moment.captions),
                }
                for moment in moments
            ]
        }
        return Delivery(summary, HIT_COLUMNS, rows, data)


def best_moment(hits: Sequence[Hit], margin: float) -> Moment:
    """Time span of one video around its most similar point.

    Args:
        hits: all windows of the video, in any order, with their similarities.
        margin: how far below the best similarity a neighbour in the span may be.
    """
    ends = [_end_s(hit.clip) for hit in hits]
    windows = [(hit.clip.start_s, end, hit.similarity) for hit, end in zip(hits, ends, strict=True)]
    edges = sorted({edge for start, end, _ in windows for edge in (start, end)})
    segments = []
    for start, end in pairwise(edges):
        covering = [s for a, b, s in windows if a <= start and end <= b]
        if covering:
            segments.append((start, end, sum(covering) / len(covering)))
    best = max(range(len(segments)), key=lambda i: (segments[i][2], -i))
    first = last = best
    threshold = segments[best][2] - margin
    while (
        first > 0
        and segments[first - 1][2] >= threshold
        and segments[first - 1][1] == segments[first][0]
    ):
        first -= 1
    while (
        last + 1 < len(segments)
        and segments[last + 1][2] >= threshold
        and segments[last + 1][0] == segments[last][1]
    ):
        last += 1
    start_s, end_s = segments[first][0], segments[last][1]
    overlapping = sorted(
        (
            hit
            for hit, end in zip(hits, ends, strict=True)
            if hit.clip.start_s < end_s and end > start_s
        ),
        key=lambda hit: hit.clip.start_s,
    )
    captions = tuple(dict.fromkeys(hit.caption for hit in overlapping))
    clip = hits[0].clip
    return Moment(clip.path, source_name(clip), start_s, end_s, segments[best][2], captions)


def _end_s(clip: Clip) -> float:
    """End of a window; that of the file where the clip is all of it."""
    return probe(clip.path).duration_s if clip.end_s is None else clip.end_s


def build(
    *,
    name: str,
    session: str,
    prompts: list[str],
    most: int,
    least_similarity: float,
    margin: float,
) -> Session:
    """Build the pipeline of a `conf/pipeline` file; see `session_of` for session and prompts.

    Args:
        most: maximum number of moments listed, one per video.
        least_similarity: cosine below which a video has no match.
        margin: how far below the best cosine a neighbour in the span may be.
    """
    if margin < 0:
        raise AtomError(f"pipeline.margin={margin}: cannot be negative")
    task = Localisation(
        name,
        checked_count("most", most),
        checked_similarity("least_similarity", least_similarity),
        margin,
    )
    return session_of(task, session=session, prompts=prompts)
