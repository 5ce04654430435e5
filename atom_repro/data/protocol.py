"""Named evaluations: which split of which data set, and how much of it there must be.

A figure is comparable only with figures over the same videos, captions and queries, so a
protocol asserts its counts before anything is computed; a data set with a few clips lost does
not quietly become an easier one. It holds no metric and reads no video.
"""

import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from atom_repro.datatypes import AtomError, Clip, QueryKind

ANY = -1  # a count that the protocol leaves open


class ClipSource(typing.Protocol):
    """What a data set must offer."""

    @property
    def name(self) -> str: ...

    def clips(self, split: str) -> list[Clip]: ...


@dataclass(frozen=True)
class Protocol:
    """One evaluation's name and the counts that it is about; ANY (-1) leaves a count open."""

    name: str
    dataset: str
    split: str
    videos: int
    captions: int
    captions_per_video: int
    queries: int
    query_kind: QueryKind

    def select(self, dataset: ClipSource) -> list[Clip]:
        """The clips to evaluate, in the data set's order.

        Raises:
            AtomError: another data set, or counts other than the protocol's: what was
                expected and what was found.
        """
        if dataset.name != self.dataset:
            raise AtomError(
                f"protocol {self.name} is about the data set {self.dataset}, not {dataset.name}; "
                f"set dataset={self.dataset} or choose another protocol"
            )
        clips = dataset.clips(self.split)
        self._check("videos", self.videos, len({clip.video_id for clip in clips}))
        self._check("captions", self.captions, sum(len(clip.references) for clip in clips))
        self._check("queries", self.queries, sum(len(clip.queries) for clip in clips))
        self._check_each(clips)
        return clips

    def _check(self, what: str, expected: int, found: int) -> None:
        if expected not in (ANY, found):
            raise AtomError(
                f"protocol {self.name} expects {expected} {what} in {self.dataset}/{self.split}, "
                f"found {found}"
            )

    def _check_each(self, clips: Sequence[Clip]) -> None:
        repeated = [name for name, n in Counter(clip.video_id for clip in clips).items() if n > 1]
        if repeated:
            raise AtomError(f"protocol {self.name}: {repeated[0]} stands twice in the split")
        for clip in clips:
            if self.captions_per_video not in (ANY, len(clip.references)):
                raise AtomError(
                    f"protocol {self.name} expects {self.captions_per_video} captions a video, "
                    f"found {len(clip.references)} for {clip.video_id}"
                )
            kinds = {query.kind for query in clip.queries} - {self.query_kind}
            if kinds and self.queries != ANY:
                raise AtomError(
                    f"protocol {self.name} expects {self.query_kind} queries, found "
                    f"{kinds.pop()} for {clip.video_id}"
                )


def build(
    *,
    name: str,
    dataset: str,
    split: str,
    videos: int,
    captions: int,
    captions_per_video: int,
    queries: int,
    query_kind: str,
) -> Protocol:
    """A protocol from its configuration; counts of -1 are left open.

    Raises:
        AtomError: `query_kind` is neither "sentence" nor "paragraph", or a count is below -1.
    """
    if query_kind not in ("sentence", "paragraph"):
        raise AtomError(f"protocol.query_kind={query_kind}: choose sentence or paragraph")
    counts = {
        "videos": videos,
        "captions": captions,
        "captions_per_video": captions_per_video,
        "queries": queries,
    }
    for key, value in counts.items():
        if value < ANY:
            raise AtomError(f"protocol.{key}={value}: a count, or -1 for any")
    kind: QueryKind = "paragraph" if query_kind == "paragraph" else "sentence"
    return Protocol(name, dataset, split, videos, captions, captions_per_video, queries, kind)
