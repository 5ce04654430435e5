"""Data sets from the Hugging Face hub: annotations through `datasets`, videos from a folder.

Copies of a data set differ in their columns, so a column map names the column of each field. Video
columns are never decoded: only mapped columns are read, and video files are matched by stem.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from atom_repro.data.annotations import Progress, clean
from atom_repro.datatypes import AtomError, Clip, Query, QueryKind
from atom_repro.video.folder import VideoFolder, stem, validated_video_id

_COLUMNS = ("video_id", "captions", "query", "source_id")


def load_rows(
    hub_id: str, config: str, split: str, columns: Sequence[str], *, revision: str
) -> list[tuple[str, dict[str, Any]]]:
    """Rows of a split as (location, row), with the given columns only.

    Args:
        hub_id: a hub id, or a local folder that `datasets` can read.
        config: empty for the default one.
        split: the hub's name of it.
        columns: to read; video columns that are not among them are not decoded.
        revision: empty for the newest.

    Raises:
        AtomError: the hub cannot be reached, or the data set, split or column does not exist.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    bars_were_enabled = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(
            hub_id, config or None, split=split, revision=revision or None
        )
    except (OSError, ValueError, HTTPError, DatasetNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AtomError(
            f"hub data set {hub_id} ({config or 'default'}/{split}) cannot be loaded: {reason}; "
            "download the annotation files and use them instead (`make data-check` says where from)"
        ) from error
    finally:
        if bars_were_enabled:
            datasets.enable_progress_bars()
    missing = [c for c in columns if c not in table.column_names]
    if missing:
        raise AtomError(
            f"{hub_id} has no column {missing[0]!r}; map the columns in dataset.columns, "
            f"it has {table.column_names}"
        )
    selected = table.select_columns(list(dict.fromkeys(columns)))
    return [(f"{hub_id}/{split} row {i}", dict(row)) for i, row in enumerate(selected)]


class HubDataset:
    """Data set of the Hugging Face hub; created by `build`."""

    videos_source = "the data set's page on the hub"

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
        self._hub_splits = splits
        self._columns = columns
        self._query_kind = query_kind
        self._clips: dict[str, list[Clip]] = {}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the texts and ids of every split and the names and sizes of the videos."""
        content = [
            [s, c.video_id, c.references, [(q.query_id, q.text) for q in c.queries]]
            for s in self.splits
            for c in self.clips(s)
        ]
        text = json.dumps([self.name, content, self.videos.listing()])
        return hashlib.sha256(text.encode()).hexdigest()

    def prepare(self, progress: Progress | None = None) -> None:
        """Download the annotations to the cache of `datasets`; videos are not downloaded.

        Raises:
            AtomError: as `load_rows`.
        """
        for i, split in enumerate(self.splits, 1):
            self.clips(split)
            if progress is not None:
                progress(i, len(self.splits))

    def clips(self, split: str) -> list[Clip]:
        """The clips of a split; rows of one video become one clip with all their captions.

        Raises:
            AtomError: an unknown split, or as `load_rows`.
        """
        if split not in self._hub_splits:
            raise AtomError(f"{self.name} has no split {split!r}; choose one of {self.splits}")
        if split not in self._clips:
            self._clips[split] = self._load(split)
        return list(self._clips[split])

    def _load(self, split: str) -> list[Clip]:
        config, hub_split = self._hub_splits[split]
        columns = [c for c in self._columns.values() if c]
        captions: dict[str, list[str]] = {}
        queries: dict[str, list[str]] = {}
        source_ids: dict[str, str] = {}
        for where, row in load_rows(
            self.hub_id, config, hub_split, columns, revision=self._revision
        ):
            # Some copies hold the file's name in the id column.
            video_id = stem(validated_video_id(row[self._columns["video_id"]], where))
            row_captions = [clean(t, where) for t in _texts(row, self._columns["captions"])]
            row_queries = [clean(t, where) for t in _texts(row, self._columns["query"])]
            captions.setdefault(video_id, []).extend(row_captions)
            queries.setdefault(video_id, []).extend(row_queries or row_captions)
            if self._columns["source_id"]:
                source_ids[video_id] = str(row[self._columns["source_id"]])
        return [
            Clip(
                dataset=self.name,
                split=split,
                video_id=video_id,
                path=self.videos.path(video_id),
                source_id=source_ids.get(video_id, ""),
                references=tuple(texts),
                queries=tuple(
                    Query(f"{video_id}#{i}", text, self._query_kind)
                    for i, text in enumerate(queries[video_id])
                ),
            )
            for video_id, texts in captions.items()
        ]


def _texts(row: Mapping[str, Any], column: str) -> list[Any]:
    """Texts of a column that holds one text or a list of them; empty if `column` is empty."""
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
    """Create the data set; the hub is not contacted before `prepare` or `clips`.

    Args:
        name: the data set's name, to which a protocol refers, such as `msrvtt`.
        hub_id: a hub id, or a local folder.
        revision: empty for the newest; a commit makes a run repeatable.
        splits: a split's name here to the hub's, as `config/split` or `split`.
        columns: `video_id`, `captions`, `query`, `source_id` to a column; empty for none. Without
            a query column the captions are the queries.
        query_kind: sentence or paragraph.
        videos: folder of the videos.

    Raises:
        AtomError: an unknown or missing key of `columns`, or an unknown `query_kind`.
    """
    unknown = sorted(set(columns) - set(_COLUMNS))
    if unknown:
        raise AtomError(f"dataset.columns has no {unknown[0]!r}; its keys are {_COLUMNS}")
    if not columns.get("video_id") or not columns.get("captions"):
        raise AtomError("dataset.columns must name a column for video_id and one for captions")
    if query_kind not in ("sentence", "paragraph"):
        raise AtomError(f"dataset.query_kind={query_kind}: choose sentence or paragraph")
    kind: QueryKind = "paragraph" if query_kind == "paragraph" else "sentence"
    hub_splits = {}
    for split, hub_name in splits.items():
        config, _, hub_split = hub_name.rpartition("/")
        hub_splits[split] = (config, hub_split)
    column_map = {key: columns.get(key, "") for key in _COLUMNS}
    return HubDataset(name, hub_id, revision, hub_splits, column_map, kind, videos)
