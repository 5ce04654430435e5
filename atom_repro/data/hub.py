"""Data sets from the Hugging Face hub: annotations through `datasets`, videos from a folder.

A column map says which column holds what, as no two copies agree. Video columns are never
touched: only mapped columns are read, and the files are matched by stem like everywhere else.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from atom_repro.data.annotations import Progress, clean
from atom_repro.datatypes import AtomError, Clip, Query, QueryKind
from atom_repro.video.folder import VideoFolder, checked_id, stem

_COLUMNS = ("video_id", "captions", "query", "source_id")


def load_rows(
    hub_id: str, config: str, split: str, columns: Sequence[str], *, revision: str
) -> list[tuple[str, dict[str, Any]]]:
    """(place, row) of every row of a split, with these columns only.

    Args:
        hub_id: a hub id, or a local folder that `datasets` can read.
        config: empty for the default one.
        split: as the hub calls it.
        columns: what to read; video columns that are not named are not decoded.
        revision: empty for the newest.

    Raises:
        AtomError: the hub cannot be reached, there is no such data set, split or column.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    had = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(
            hub_id, config or None, split=split, revision=revision or None
        )
    except (OSError, ValueError, HTTPError, DatasetNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AtomError(
            f"hub data set {hub_id} ({config or 'default'}/{split}) cannot be loaded: {reason}; "
            "download the annotation files and use dataset=msrvtt, msvd, didemo or jsonl instead"
        ) from error
    finally:
        if had:
            datasets.enable_progress_bars()
    absent = [c for c in columns if c not in table.column_names]
    if absent:
        raise AtomError(
            f"{hub_id} has no column {absent[0]!r}; map the columns in dataset.columns, "
            f"there are {table.column_names}"
        )
    kept = table.select_columns(list(dict.fromkeys(columns)))
    return [(f"{hub_id}/{split} row {i}", dict(row)) for i, row in enumerate(kept)]


class HubDataset:
    """See the module; made by `build`."""

    videos_at = "the data set's page on the hub"

    def __init__(
        self,
        name: str,
        hub_id: str,
        revision: str,
        splits: Mapping[str, tuple[str, str]],
        columns: Mapping[str, str],
        query_kind: QueryKind,
        videos: str,
    ) -> None:
        self.name = name
        self.hub_id = hub_id
        self.splits = tuple(splits)
        self.videos = VideoFolder(Path(videos))
        self._revision = revision
        self._named = splits
        self._columns = columns
        self._kind = query_kind
        self._clips: dict[str, list[Clip]] = {}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the texts and ids of every split, and names and sizes of the videos."""
        content = [
            [s, c.video_id, c.references, [(q.query_id, q.text) for q in c.queries]]
            for s in self.splits
            for c in self.clips(s)
        ]
        text = json.dumps([self.name, content, self.videos.listing()])
        return hashlib.sha256(text.encode()).hexdigest()

    def prepare(self, progress: Progress | None = None) -> None:
        """Fetch the annotations into `datasets`' own cache; videos are the user's to fetch.

        Raises:
            AtomError: as `load_rows`.
        """
        for i, split in enumerate(self.splits, 1):
            self.clips(split)
            if progress is not None:
                progress(i, len(self.splits))

    def clips(self, split: str) -> list[Clip]:
        """The clips of a split. Rows of one video are one clip with all their captions.

        Raises:
            AtomError: an unknown split, or as `load_rows`.
        """
        if split not in self._named:
            raise AtomError(f"{self.name} has no split {split!r}; choose of {self.splits}")
        if split not in self._clips:
            self._clips[split] = self._load(split)
        return list(self._clips[split])

    def _load(self, split: str) -> list[Clip]:
        config, hub_split = self._named[split]
        wanted = [c for c in self._columns.values() if c]
        captions: dict[str, list[str]] = {}
        queries: dict[str, list[str]] = {}
        sources: dict[str, str] = {}
        for where, row in load_rows(
            self.hub_id, config, hub_split, wanted, revision=self._revision
        ):
            # Several copies put the file's name where the id is due.
            video_id = stem(checked_id(row[self._columns["video_id"]], where))
            said = [clean(t, where) for t in _texts(row, self._columns["captions"])]
            asked = [clean(t, where) for t in _texts(row, self._columns["query"])]
            captions.setdefault(video_id, []).extend(said)
            queries.setdefault(video_id, []).extend(asked or said)
            if self._columns["source_id"]:
                sources[video_id] = str(row[self._columns["source_id"]])
        return [
            Clip(
                dataset=self.name,
                split=split,
                video_id=video_id,
                path=self.videos.path(video_id),
                source_id=sources.get(video_id, ""),
                references=tuple(texts),
                queries=tuple(
                    Query(f"{video_id}#{i}", text, self._kind)
                    for i, text in enumerate(queries[video_id])
                ),
            )
            for video_id, texts in captions.items()
        ]


def _texts(row: Mapping[str, Any], column: str) -> list[Any]:
    """A column that holds one text, or a list of them; none for a column that is not mapped."""
    if not column:
        return []
    value = row[column]
    return list(value) if isinstance(value, list | tuple) else [value]


def build(
    *,
    name: str,
    hub_id: str,
    revision: str,
    splits: dict[str, str],
    columns: dict[str, str],
    query_kind: str,
    videos: str,
) -> HubDataset:
    """The data set's handle; the hub is not asked before `prepare` or `clips`.

    Args:
        name: what a protocol calls the data set, such as `msrvtt`.
        hub_id: a hub id, or a local folder.
        revision: empty for the newest; name a commit for a run that can be repeated.
        splits: our name of a split to the hub's, as `config/split` or `split`.
        columns: `video_id`, `captions`, `query`, `source_id` to a column; empty for none. A data
            set without a query column has its captions as queries.
        query_kind: sentence or paragraph.
        videos: folder of the videos.

    Raises:
        AtomError: an unknown key of `columns`, one that is needed and empty, or another kind.
    """
    unknown = sorted(set(columns) - set(_COLUMNS))
    if unknown:
        raise AtomError(f"dataset.columns has no {unknown[0]!r}; it maps {_COLUMNS}")
    if not columns.get("video_id") or not columns.get("captions"):
        raise AtomError("dataset.columns must name a column for video_id and one for captions")
    if query_kind not in ("sentence", "paragraph"):
        raise AtomError(f"dataset.query_kind={query_kind}: choose sentence or paragraph")
    kind: QueryKind = "paragraph" if query_kind == "paragraph" else "sentence"
    named = {}
    for ours, theirs in splits.items():
        config, _, split = theirs.rpartition("/")
        named[ours] = (config, split)
    mapped = {key: columns.get(key, "") for key in _COLUMNS}
    return HubDataset(name, hub_id, revision, named, mapped, kind, videos)
