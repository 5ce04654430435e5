"""Any data set of one's own: a JSON object a line, a clip each.

    {"video_id": "a", "split": "test", "references": ["a cat sleeps"], "queries": ["a cat"]}

`video_id` and `split` are needed. `file` (below the video folder) names the file where it is not
the id; `start_s` and `end_s` bound a window of it. A query is text, or an object with `query_id`,
`text` and `kind` (sentence or paragraph). `source_id` and `meta` are kept as they are.
"""

import json
from pathlib import Path
from typing import Any, get_args

from atom_repro.data.annotations import (
    AnnotatedDataset,
    SourceFile,
    clean,
    field,
    read_lines,
    unique,
)
from atom_repro.datatypes import AtomError, Clip, Query, QueryKind
from atom_repro.video.folder import checked_id

_KEYS = {
    "video_id", "split", "file", "source_id", "start_s", "end_s", "references", "queries", "meta",
}  # fmt: skip


class JsonLines(AnnotatedDataset):
    """See the module; made by `build`."""

    videos_at = "your own"

    def __init__(self, name: str, file: str, videos: str) -> None:
        path = Path(file)
        super().__init__(str(path.parent), videos)
        self.name = name
        self.path = path
        self.files = (SourceFile((path.name,), "all splits", "set dataset.file to your own"),)

    @property
    def splits(self) -> tuple[str, ...]:  # type: ignore[override]
        """The splits that the file has, in its order."""
        return tuple(self._by_split)

    def _load(self, split: str) -> list[Clip]:
        return self._by_split[split]

    @property
    def _by_split(self) -> dict[str, list[Clip]]:
        if not self._clips:
            for where, line in read_lines(self.files[0].require(self.annotations)):
                clip = self._clip(line, where)
                self._clips.setdefault(clip.split, []).append(clip)
            for split, clips in self._clips.items():
                unique((c.video_id for c in clips), f"{self.path}: split {split}, video_id")
                unique(
                    (q.query_id for c in clips for q in c.queries),
                    f"{self.path}: split {split}, query_id",
                )
        return self._clips

    def _clip(self, line: str, where: str) -> Clip:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise AtomError(f"{where}: broken JSON ({error})") from error
        video_id = checked_id(field(row, "video_id", where), where)
        if odd := sorted(set(row) - _KEYS):
            raise AtomError(f"{where}: unknown key {odd[0]!r}; known are {sorted(_KEYS)}")
        split = field(row, "split", where)
        start_s, end_s = row.get("start_s", 0.0), row.get("end_s")
        if not isinstance(split, str) or not split:
            raise AtomError(f"{where}: split {split!r} is not a name")
        if not _window(start_s, end_s):
            raise AtomError(f"{where}: the window {start_s!r}-{end_s!r} s is empty or no number")
        return Clip(
            dataset=self.name,
            split=split,
            video_id=video_id,
            path=self.videos.inside(str(row["file"]), where)
            if "file" in row
            else self.videos.path(video_id),
            source_id=str(row.get("source_id", "")),
            start_s=float(start_s),
            end_s=None if end_s is None else float(end_s),
            references=tuple(clean(t, where) for t in _list(row, "references", where)),
            queries=tuple(
                _query(q, f"{video_id}#{i}", where)
                for i, q in enumerate(_list(row, "queries", where))
            ),
            meta=row.get("meta", {}),
        )


def _window(start_s: Any, end_s: Any) -> bool:
    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    if not number(start_s) or start_s < 0:
        return False
    return end_s is None or (number(end_s) and end_s > start_s)


def _list(row: dict[str, Any], key: str, where: str) -> list[Any]:
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
    """The data set's handle; no file is touched.

    Args:
        name: the data set's name, which a protocol names.
        file: the jsonl file.
        videos: folder of the videos.
    """
    return JsonLines(name, file, videos)
