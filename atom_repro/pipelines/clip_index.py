"""The persistent index of a folder of videos: captions and their embeddings in one SQLite file.

Paper A.1 and appendix B: a clip is a window of 10 s, one every 5 s. Videos are indexed once and
searched many times: a video whose file has not changed is never captioned again, and neither is
a clip that could not be read. The file says what its captions were made with, and captions of
other weights, another prompt or another embedder are not mixed in.

It is kept with a rollback journal, so that it is one file, and a batch of clips is a transaction:
a kill at any point leaves an index that the next update completes. A batch is always the same
windows of one video, so that a completed index equals an unbroken one to the last bit.

    with ClipIndex.open(Path("videos.index"), provenance) as index:
        index.update(runtime, Path("videos"))
        find(runtime, index.footage(Path("videos")), "a red ball", …)
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from atom_repro.datatypes import AtomError, Clip, Failure, Prediction
from atom_repro.pipelines.captioned_clips import Footage
from atom_repro.records.provenance import file_hash
from atom_repro.runtime.runtime import Outcome, Runtime
from atom_repro.video.file import VideoError
from atom_repro.video.folder import video_files
from atom_repro.video.sampling import probe, segment

FORMAT = 1  # raise it with any change to the tables, or to what a caption depends on
_BATCH = 8  # clips a transaction
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE videos (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
    windows TEXT NOT NULL
);
CREATE TABLE clips (
    path TEXT NOT NULL REFERENCES videos, start_s REAL NOT NULL, end_s REAL, status TEXT NOT NULL,
    detail TEXT NOT NULL, caption TEXT NOT NULL, token_ids TEXT NOT NULL, log_prob REAL NOT NULL,
    embedding BLOB, PRIMARY KEY (path, start_s)
);
"""

Progress = Callable[[int, int], object]


@dataclass(frozen=True, kw_only=True)
class IndexProvenance:
    """What every caption and vector of an index was made with."""

    model: str
    weights: str
    precision: str
    prompt: str
    generation: Mapping[str, Any]
    embedder: str
    window_s: float = 10.0
    stride_s: float = 5.0
    format: int = field(default=FORMAT, init=False)

    def file_name(self, videos: Path) -> str:
        """That of the index of a folder of videos: one for each way to make captions of it."""
        text = f"{videos.resolve()}\n{self}"
        return f"{videos.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.index"


@dataclass(frozen=True)
class IndexedClip:
    """A window of a video. `path` is below the folder; `status` is ok or corrupt, and `detail`
    says why there is no caption."""

    path: str
    start_s: float
    end_s: float | None
    status: str
    detail: str
    caption: str
    token_ids: tuple[int, ...]
    log_prob: float


@dataclass(frozen=True)
class Update:
    """What an update did, in videos, and in clips that were captioned or found broken by it."""

    added: int
    changed: int
    removed: int
    unchanged: int
    captioned: int
    failed: int


class ClipIndex:
    """An open index; see the module. One process writes at a time; use from one thread."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, provenance: IndexProvenance
    ) -> None:
        self.path, self.provenance = path, provenance
        self._connection = connection
        self._footage: tuple[Path, Footage] | None = None

    @classmethod
    def open(cls, path: Path, provenance: IndexProvenance) -> "ClipIndex":
        """Open the index at `path`, or begin one there.

        Raises:
            AtomError: the file is no index, is damaged, or was made with something else.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with _said(path):
            connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        index = cls(path, connection, provenance)
        try:
            with _said(path):
                index._check_or_begin()
        except BaseException:
            connection.close()
            raise
        return index

    def __enter__(self) -> "ClipIndex":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def update(self, runtime: Runtime, folder: Path, progress: Progress | None = None) -> Update:
        """Make the index that of the videos now in `folder`.

        Finished batches survive whatever ends this early.

        Args:
            runtime: must run what `provenance` names.
            progress: told (clips done, clips to do) after every clip.

        Raises:
            AtomError: no video in the folder, which is rather a wrong path than an emptied one.
        """
        found = video_files(folder)
        if not found:
            raise AtomError(f"{folder}: no videos there; name the folder of the videos")
        with _said(self.path):
            counts = self._meet_files(folder, found)
            todo = list(self._todo(folder))
            captioned = failed = 0
            batch: list[tuple[Clip, Outcome]] = []
            stage = runtime.caption(todo)
            try:
                for done, (clip, outcome) in enumerate(zip(todo, stage, strict=True), 1):
                    batch.append((clip, outcome))
                    captioned += isinstance(outcome, Prediction)
                    failed += isinstance(outcome, Failure)
                    if done == len(todo) or _batch_of(todo[done]) != _batch_of(clip):
                        self._keep(runtime, batch)
                        batch = []
                    if progress is not None:
                        progress(done, len(todo))
            finally:
                stage.close()
        return Update(**counts, captioned=captioned, failed=failed)

    def rows(self) -> list[IndexedClip]:
        """All clips, videos by path and windows by time."""
        with _said(self.path):
            return [clip for clip, _ in self._read()]

    def footage(self, folder: Path) -> Footage:
        """What a pipeline works on: the clips that have a caption, in the order of `rows`, with
        vectors, and the others as failures. Kept in memory until the index changes.

        Args:
            folder: where the videos lie; as in `update`.
        """
        if self._footage is None or self._footage[0] != folder:
            with _said(self.path):
                rows = list(self._read())
            found = [(row, blob) for row, blob in rows if blob is not None]
            matrix = np.array([np.frombuffer(blob, "<f4") for _, blob in found], np.float32)
            self._footage = (
                folder,
                Footage(
                    clips=tuple(_clip(folder, row) for row, _ in found),
                    predictions=tuple(
                        Prediction(
                            _name(row.path, row.start_s), row.caption, row.token_ids, row.log_prob
                        )
                        for row, _ in found
                    ),
                    vectors=torch.from_numpy(matrix),
                    failures=tuple(
                        Failure(_name(row.path, row.start_s), "decode_video", row.detail)
                        for row, blob in rows
                        if blob is None
                    ),
                ),
            )
        return self._footage[1]

    def _check_or_begin(self) -> None:
        sound = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if sound != "ok":
            raise sqlite3.DatabaseError(sound)
        tables = {n for (n,) in self._connection.execute("SELECT name FROM sqlite_master")}
        made_with = {k: json.dumps(v) for k, v in asdict(self.provenance).items()}
        if not tables:
            with self._transaction():
                for statement in _TABLES.split(";")[:-1]:
                    self._connection.execute(statement)
                self._connection.executemany("INSERT INTO about VALUES (?, ?)", made_with.items())
        elif not tables >= {"about", "videos", "clips"}:
            raise AtomError(f"{self.path} is a database and no clip index; name another file")
        held = dict(self._connection.execute("SELECT key, value FROM about").fetchall())
        for key, value in made_with.items():
            if held.get(key) != value:
                raise AtomError(
                    f"{self.path} was built with {key}={held.get(key)}, this run has {value}; "
                    "delete it to have it built again, or name another file"
                )

    def _meet_files(self, folder: Path, found: Sequence[Path]) -> dict[str, int]:
        """Bring `videos` up to date; what no longer holds loses its clips."""
        held = {
            path: (size, mtime_ns, sha256)
            for path, size, mtime_ns, sha256 in self._connection.execute(
                "SELECT path, size, mtime_ns, sha256 FROM videos"
            )
        }
        names = {file.relative_to(folder).as_posix(): file for file in found}
        counts = {"added": 0, "changed": 0, "removed": 0, "unchanged": 0}
        for name in sorted(held.keys() - names.keys()):
            with self._transaction():
                self._forget(name)
            counts["removed"] += 1
        for name, file in names.items():
            stat = file.stat()
            before = held.get(name)
            if before is not None and before[:2] == (stat.st_size, stat.st_mtime_ns):
                counts["unchanged"] += 1
                continue
            sha256 = file_hash(file)
            with self._transaction():
                if before is not None and before[2] == sha256:  # touched or copied, not changed
                    self._connection.execute(
                        "UPDATE videos SET mtime_ns = ? WHERE path = ?", (stat.st_mtime_ns, name)
                    )
                    counts["unchanged"] += 1
                    continue
                self._forget(name)
                self._begin_video(name, file, (stat.st_size, stat.st_mtime_ns, sha256))
            counts["added" if before is None else "changed"] += 1
        return counts

    def _forget(self, name: str) -> None:
        self._footage = None
        self._connection.execute("DELETE FROM clips WHERE path = ?", (name,))
        self._connection.execute("DELETE FROM videos WHERE path = ?", (name,))

    def _begin_video(self, name: str, file: Path, print_: tuple[int, int, str]) -> None:
        try:
            duration_s = probe(file).duration_s
            windows = segment(duration_s, self.provenance.window_s, self.provenance.stride_s)
        except (VideoError, ValueError) as error:  # ValueError: a duration of nothing
            windows = []
            self._insert(name, 0.0, None, Failure(name, "decode_video", str(error)), None)
        self._connection.execute(
            "INSERT INTO videos VALUES (?, ?, ?, ?, ?)", (name, *print_, json.dumps(windows))
        )

    def _todo(self, folder: Path) -> Iterator[Clip]:
        """The windows that have no row yet, in order; `meta` holds the video and its batch."""
        held = set(self._connection.execute("SELECT path, start_s FROM clips").fetchall())
        videos = self._connection.execute("SELECT path, windows FROM videos ORDER BY path")
        for name, windows in videos.fetchall():
            for number, (start_s, end_s) in enumerate(json.loads(windows)):
                if (name, start_s) not in held:
                    yield Clip(
                        "folder", "", _name(name, start_s), folder / name, name, start_s, end_s,
                        meta={"batch": number // _BATCH},
                    )  # fmt: skip

    def _keep(self, runtime: Runtime, batch: Sequence[tuple[Clip, Outcome]]) -> None:
        said = [o.caption for _, o in batch if isinstance(o, Prediction) and o.caption.strip()]
        vectors = iter(runtime.embed(said, batch[0][0].video_id).numpy() if said else ())
        with self._transaction():
            for clip, outcome in batch:
                speaks = isinstance(outcome, Prediction) and outcome.caption.strip()
                vector = next(vectors) if speaks else None
                self._insert(clip.source_id, clip.start_s, clip.end_s, outcome, vector)
        self._footage = None

    def _insert(
        self,
        name: str,
        start_s: float,
        end_s: float | None,
        outcome: Outcome,
        vector: npt.NDArray[np.float32] | None,
    ) -> None:
        values: tuple[Any, ...]
        if isinstance(outcome, Failure):
            values = ("corrupt", outcome.detail, "", "[]", 0.0)
        else:
            detail = "" if vector is not None else "the decoder said nothing"
            ids = json.dumps(outcome.token_ids)
            values = ("ok", detail, outcome.caption, ids, outcome.log_prob)
        blob = None if vector is None else np.ascontiguousarray(vector, "<f4").tobytes()
        self._connection.execute(
            "INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (name, start_s, end_s, *values, blob),
        )

    def _read(self) -> Iterator[tuple[IndexedClip, bytes | None]]:
        rows = self._connection.execute(
            "SELECT path, start_s, end_s, status, detail, caption, token_ids, log_prob, embedding "
            "FROM clips ORDER BY path, start_s"
        )
        for path, start_s, end_s, status, detail, caption, token_ids, log_prob, blob in rows:
            ids = tuple(json.loads(token_ids))
            yield IndexedClip(path, start_s, end_s, status, detail, caption, ids, log_prob), blob

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _name(path: str, start_s: float) -> str:
    return f"{path}@{start_s:g}"


def _clip(folder: Path, row: IndexedClip) -> Clip:
    name = _name(row.path, row.start_s)
    return Clip("folder", "", name, folder / row.path, row.path, row.start_s, row.end_s)


def _batch_of(clip: Clip) -> tuple[str, int]:
    return clip.source_id, clip.meta["batch"]


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """What SQLite says of the file becomes one line with the way out."""
    try:
        yield
    except sqlite3.OperationalError as error:
        way = {
            "locked": "another process writes to it; wait for it or end it",
            "full": "free some of the disk and run the same command again",
        }
        said = next((w for k, w in way.items() if k in str(error)), "name a file that can be made")
        raise AtomError(f"{path}: {error}; {said}") from error
    except sqlite3.DatabaseError as error:
        raise AtomError(
            f"{path} is damaged or no index ({str(error).splitlines()[0]}); delete it to have it "
            "built again, or name another file"
        ) from error
