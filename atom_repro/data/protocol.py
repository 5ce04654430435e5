"""Evaluation protocols: a data set's split and its expected numbers of videos and captions.

A figure is comparable only with figures over the same videos, captions and queries, so a
protocol asserts its counts before anything is computed: a data set that lacks a few clips would
silently be an easier one. Metrics and videos are not handled here.
"""

import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from atom_repro.datatypes import AtomError, Clip, QueryKind

ANY = -1  # a count that the protocol does not check
ANY_DATASET = "any"


class ClipSource(typing.Protocol):
    """Interface of a data set: its name and the clips of a split."""

    @property
    def name(self) -> str: ...

    def clips(self, split: str) -> list[Clip]: ...


@dataclass(frozen=True)
class EvaluationProtocol:
    """An evaluation's data set, split and expected counts; ANY (-1) leaves a count unchecked, and
    ANY_DATASET the data set."""

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
            AtomError: another data set, or counts other than the protocol's; names the expected
                and the actual value.
        """
        if self.dataset not in (dataset.name, ANY_DATASET):
            raise AtomError(
                f"protocol {self.name} is about the data set {self.dataset}, not {dataset.name}; "
                f"set dataset={self.dataset} or choose another protocol, protocol=own for data of "
                "your own"
            )
        clips = dataset.clips(self.split)
        self._check("videos", self.videos, len({clip.video_id for clip in clips}))
        self._check("captions", self.captions, sum(len(clip.references) for clip in clips))
        self._check("queries", self.queries, sum(len(clip.queries) for clip in clips))
        self._check_clips(clips)
        return clips

    def _check(self, counted: str, expected: int, actual: int) -> None:
        if expected not in (ANY, actual):
            raise AtomError(
                f"protocol {self.name} expects {expected} {counted} in "
                f"{self.dataset}/{self.split}, found {actual}"
            )

    def _check_clips(self, clips: Sequence[Clip]) -> None:
        repeated = [name for name, n in Counter(clip.video_id for clip in clips).items() if n > 1]
        if repeated:
            raise AtomError(
                f"protocol {self.name}: {repeated[0]} occurs twice in {self.dataset}/{self.split}"
            )
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
) -> EvaluationProtocol:
    """Create a protocol from its configuration; counts of -1 are not checked.

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
            raise AtomError(f"protocol.{key}={value}: must be a count, or -1 for any")
    kind: QueryKind = "paragraph" if query_kind == "paragraph" else "sentence"
    return EvaluationProtocol(
        name, dataset, split, videos, captions, captions_per_video, queries, kind
    )
