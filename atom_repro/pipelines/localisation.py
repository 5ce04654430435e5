"""Event localisation (paper appendix B): the stretch of a video that a sentence is about.

Each moment of a video is as similar to the sentence as the captions of the windows that cover it
are on average; a moment's neighbours belong to the event as long as they are nearly as similar.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from atom_repro.datatypes import AtomError, Clip
from atom_repro.pipelines.captioned_clips import (
    HIT_COLUMNS,
    Delivery,
    Footage,
    Hit,
    Progress,
    Reply,
    at_time,
    find,
    nothing,
)
from atom_repro.pipelines.session import Session, at_least_one, session_of, share
from atom_repro.runtime.runtime import Runtime


@dataclass(frozen=True)
class Moment:
    """A stretch of one video, in seconds since its first frame."""

    video: Path
    start_s: float
    end_s: float
    similarity: float
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Localisation:
    name: str
    most: int
    least_similarity: float
    margin: float

    def respond(self, runtime: Runtime, footage: Footage, prompt: str, item: str) -> Reply:
        hits = find(runtime, footage, prompt, item, most=len(footage), least_similarity=-1.0)
        with runtime.timeline.span("rank", "host", item):
            by_video: dict[Path, list[Hit]] = {}
            for hit in hits:
                by_video.setdefault(hit.clip.path, []).append(hit)
            moments = sorted(
                (best_moment(found, self.margin) for found in by_video.values()),
                key=lambda moment: -moment.similarity,
            )
        fitting = [m for m in moments if m.similarity >= self.least_similarity][: self.most]
        shown = {m.video for m in fitting}
        kept = tuple(hit for hit in hits if hit.clip.path in shown)
        return Reply(kept, (), tuple(fitting))

    def deliver(self, reply: Reply, folder: Path, progress: Progress) -> Delivery:
        moments: tuple[Moment, ...] = reply.result
        said = f"{len(moments)} moments" if moments else nothing(self.least_similarity)
        rows = tuple(
            (
                moment.video.name,
                at_time(moment.start_s, moment.end_s),
                "; ".join(moment.captions),
                f"{moment.similarity:.2f}",
            )
            for moment in moments
        )
        data = {
            "moments": [
                {
                    "video": moment.video.name,
                    "start_s": moment.start_s,
                    "end_s": moment.end_s,
                    "similarity": round(moment.similarity, 6),
                    "captions": list(moment.captions),
                }
                for moment in moments
            ]
        }
        return Delivery(said, HIT_COLUMNS, rows, data)


def best_moment(hits: Sequence[Hit], margin: float) -> Moment:
    """The stretch of one video around its most similar moment.

    Args:
        hits: all windows of the video, in any order, with their similarities.
        margin: how much less similar than the best a neighbouring moment may be.
    """
    windows = [(hit.clip.start_s, _end(hit.clip), hit.similarity) for hit in hits]
    edges = sorted({edge for start, end, _ in windows for edge in (start, end)})
    pieces = []
    for start, end in pairwise(edges):
        cover = [s for a, b, s in windows if a <= start and end <= b]
        if cover:
            pieces.append((start, end, sum(cover) / len(cover)))
    best = max(range(len(pieces)), key=lambda i: (pieces[i][2], -i))
    first = last = best
    bound = pieces[best][2] - margin
    while first > 0 and pieces[first - 1][2] >= bound and pieces[first - 1][1] == pieces[first][0]:
        first -= 1
    while (
        last + 1 < len(pieces)
        and pieces[last + 1][2] >= bound
        and pieces[last + 1][0] == pieces[last][1]
    ):
        last += 1
    start_s, end_s = pieces[first][0], pieces[last][1]
    inside = sorted(
        (hit for hit in hits if hit.clip.start_s < end_s and _end(hit.clip) > start_s),
        key=lambda hit: hit.clip.start_s,
    )
    captions = tuple(dict.fromkeys(hit.caption for hit in inside))
    return Moment(hits[0].clip.path, start_s, end_s, pieces[best][2], captions)


def _end(clip: Clip) -> float:
    if clip.end_s is None:
        raise AtomError(f"{clip.path}: its length is unknown, so no moment of it can be named")
    return clip.end_s


def build(
    *,
    name: str,
    session: str,
    prompts: list[str],
    most: int,
    least_similarity: float,
    margin: float,
) -> Session:
    """The pipeline of a `conf/pipeline` file; see `session_of` for session and prompts.

    Args:
        most: moments an answer lists at the most, one a video.
        least_similarity: cosine below which nothing in a video fits.
        margin: cosine by which a moment's neighbours may be less similar than it.
    """
    if margin < 0:
        raise AtomError(f"pipeline.margin={margin}: cannot be negative")
    task = Localisation(
        name, at_least_one("most", most), share("least_similarity", least_similarity), margin
    )
    return session_of(task, session=session, prompts=prompts)
