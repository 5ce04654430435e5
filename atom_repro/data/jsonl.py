"""Loader of custom data sets in JSON Lines format: one JSON object per clip.

    {"video_id": "a", "split": "test", "references": ["a cat sleeps"], "queries": ["a cat"]}

`video_id` and `split` are required. `file` (relative to the video folder) is needed where its stem
is not the id; `start_s` and `end_s` bound a window of it. A query is text, or an object with
`query_id`, `text` and `kind` (sentence or paragraph). `source_id` and `meta` are copied unchanged.
"""

import json
import math
from pathlib import Path
from typing import Any, get_args

from atom_repro.data.annotations import (
    AnnotatedDataset,
    SourceFile,
    clean,
    field,
    read_lines,
    require_unique,
)
from atom_repro.datatypes import AtomError, Clip, Query, QueryKind
from atom_repro.video.folder import validated_video_id

_KEYS = {
    "video_id", "split", "file", "source_id", "start_s", "end_s", "references", "queries", "meta",
}  # fmt: skip


class JsonLines(AnnotatedDataset):
    """Data set of one JSON Lines file, in the module's format; created by `build`."""

    videos_source = "your own"

    def __init__(self, name: str, file: str, videos: str) -> None:
        path = Path(file)
        super().__init__(str(path.parent), videos)
        self.name = name
        self.path = path
        self.files = (SourceFile((path.name,), "all splits", "set dataset.file to your own"),)

    @property
    def splits(self) -> tuple[str, ...]:  # type: ignore[override]
        """The splits that occur in the file, in its order."""
        return tuple(self._clips_by_split)

    def _load(self, split: str) -> list[Clip]:
        return self._clips_by_split[split]

    @property
    def _clips_by_split(self) -> dict[str, list[Clip]]:
        if not self._clips:
            for where, line in read_lines(self.files[0].require(self.annotations)):
                clip = self._clip(line, where)
                self._clips.setdefault(clip.split, []).append(clip)
            for split, clips in self._clips.items():
                require_unique((c.video_id for c in clips), f"{self.path}: split {split}, video_id")
                require_unique(
                    (q.query_id for c in clips for q in c.queries),
                    f"{self.path}: split {split}, query_id",
                )
        return self._clips

    def _clip(self, line: str, where: str) -> Clip:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise AtomError(f"{where}: broken JSON ({error})") from error
        video_id = validated_video_id(field(row, "video_id", where), where)
        if unknown := sorted(set(row) - _KEYS):
            raise AtomError(f"{where}: unknown key {unknown[0]!r}; known are {sorted(_KEYS)}")
        split = field(row, "split", where)
        start_s, end_s = row.get("start_s", 0.0), row.get("end_s")
        if not isinstance(split, str) or not split:
            raise AtomError(f"{where}: split {split!r} is not a name")
        if not _valid_window(start_s, end_s):
            raise AtomError(f"{where}: the window {start_s!r}-{end_s!r} s is empty or not a number")
        return Clip(
            dataset=self.name,
            split=split,
            video_id=video_id,
            path=self.videos.resolve(str(row["file"]), where)
            if "file" in row
            else self.videos.path(video_id),
            source_id=str(row.get("source_id", "")),
            start_s=float(start_s),
            end_s=None if end_s is None else float(end_s),
            references=tuple(clean(t, where) for t in _list_field(row, "references", where)),
            queries=tuple(
                _query(q, f"{video_id}#{i}", where)
                for i, q in enumerate(_list_field(row, "queries", where))
            ),
            meta=row.get("meta", {}),
        )


def _valid_window(start_s: Any, end_s: Any) -> bool:
    def is_number(value: Any) -> bool:
        is_real = isinstance(value, int | float) and not isinstance(value, bool)
        return is_real and math.isfinite(value)  # JSON as Python reads it has NaN and Infinity

    if not is_number(start_s) or start_s < 0:
        return False
    return end_s is None or (is_number(end_s) and end_s > start_s)


def _list_field(row: dict[str, Any], key: str, where: str) -> list[Any]:
    value = row.get(key, [])
    if not isinstance(value, list):
        raise AtomError(f"{where}: {key} is not a list")
    return value


def _query(value: Any, default_id: str, where: str) -> Query:
    if isinstance(value, str):
        return Query(default_id, clean(value, where))
    kind: QueryKind = value.get("kind", "sentence") if isinstance(value, dict) else "sentence"
    if kind not in get_args(QueryKind):
        raise AtomError(f"{where}: query kind {kind!r}; choose sentence or paragraph")
    text = clean(field(value, "text", where), where)
    return Query(str(value.get("query_id", default_id)), text, kind)


def build(*, name: str, file: str, videos: str) -> JsonLines:
    """Create the data set; no file is read yet.

    Args:
        name: the data set's name, to which a protocol refers.
        file: the jsonl file.
        videos: folder of the videos.
    """
    return JsonLines(name, file, videos)
