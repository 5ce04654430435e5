"""Persistent index of a folder of videos: captions and their embeddings in one SQLite file.

Paper A.1 and appendix B: a clip is a window of 10 s, one every 5 s. Videos are indexed once and
searched many times: a video whose file has not changed is never captioned again, and neither is
a clip that could not be decoded. The file stores the provenance of its captions (weights, prompt,
embedder, …), and opening it with another provenance is an error.

A rollback journal keeps it one file, and a batch of clips is one transaction: a kill at any point
leaves an index that the next update completes. A batch is always the same windows of one video,
so that a resumed index is bit-identical to an uninterrupted one.

    with ClipIndex.open(Path("videos.index"), provenance) as index:
        index.update(runtime, Path("videos"))
        rank_clips(runtime, index.captioned_clips(Path("videos")), "a red ball", …)
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
from atom_repro.pipelines.captioned_clips import CaptionedClips
from atom_repro.records.provenance import file_hash
from atom_repro.runtime.captioning import CaptionOutcome
from atom_repro.runtime.runtime import Runtime
from atom_repro.video.file import VideoError
from atom_repro.video.folder import video_files
from atom_repro.video.sampling import probe, sliding_windows

FORMAT = 1  # raise it with any change to the tables, or to what a caption depends on
_BATCH = 8  # clips per transaction
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
    """Settings that produced every caption and embedding of an index."""

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
        """File name of a folder's index; each provenance has its own."""
        text = f"{videos.resolve()}\n{self}"
        return f"{videos.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.index"


@dataclass(frozen=True)
class IndexedClip:
    """A window of a video and its caption. `path` is relative to the folder; `status` is ok or
    corrupt, and `detail` says why there is no caption."""

    path: str
    start_s: float
    end_s: float | None
    status: str
    detail: str
    caption: str
    token_ids: tuple[int, ...]
    log_prob: float


@dataclass(frozen=True)
class UpdateCounts:
    """Counts of an update: videos by change, and clips that were captioned or failed."""

    added: int
    changed: int
    removed: int
    unchanged: int
    captioned: int
    failed: int


class ClipIndex:
    """An open clip index. Single writer process; use from one thread."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, provenance: IndexProvenance
    ) -> None:
        self.path, self.provenance = path, provenance
        self._connection = connection
        self._captioned: tuple[Path, CaptionedClips] | None = None

    @classmethod
    def open(cls, path: Path, provenance: IndexProvenance) -> "ClipIndex":
        """Open the index at `path`, or create it.

        Raises:
            AtomError: the file is no index, is damaged, or has another provenance.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with _explained_sqlite_errors(path):
            connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        index = cls(path, connection, provenance)
        try:
            with _explained_sqlite_errors(path):
                index._check_or_create()
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

    def update(
        self, runtime: Runtime, folder: Path, progress: Progress | None = None
    ) -> UpdateCounts:
        """Bring the index up to date with the videos in `folder`.

        Finished batches are kept if it is interrupted.

        Args:
            runtime: must run the model of `provenance`.
            progress: called with (clips done, clips to do) after every clip.

        Raises:
            AtomError: no video in the folder: more likely a wrong path than an emptied folder.
        """
        files = video_files(folder)
        if not files:
            raise AtomError(f"{folder} contains no videos; name the folder that holds the videos")
        with _explained_sqlite_errors(self.path):
            counts = self._sync_videos(folder, files)
            todo = list(self._uncaptioned_clips(folder))
            captioned = failed = 0
            batch: list[tuple[Clip, CaptionOutcome]] = []
            stage = runtime.caption(todo)
            try:
                for done, (clip, outcome) in enumerate(zip(todo, stage, strict=True), 1):
                    batch.append((clip, outcome))
                    captioned += isinstance(outcome, Prediction)
                    failed += isinstance(outcome, Failure)
                    if done == len(todo) or _batch_id(todo[done]) != _batch_id(clip):
                        self._store_batch(runtime, batch)
                        batch = []
                    if progress is not None:
                        progress(done, len(todo))
            finally:
                stage.close()
        return UpdateCounts(**counts, captioned=captioned, failed=failed)

    def rows(self) -> list[IndexedClip]:
        """All clips, ordered by video path and start time."""
        with _explained_sqlite_errors(self.path):
            return [clip for clip, _ in self._select_clips()]

    def captioned_clips(self, folder: Path) -> CaptionedClips:
        """Captioned clips in the order of `rows`, with embeddings, and the others as failures.

        The result is cached until the index changes.

        Args:
            folder: the folder of the videos, as in `update`.
        """
        if self._captioned is None or self._captioned[0] != folder:
            with _explained_sqlite_errors(self.path):
                rows = list(self._select_clips())
            captioned = [(row, blob) for row, blob in rows if blob is not None]
            matrix = np.array([np.frombuffer(blob, "<f4") for _, blob in captioned], np.float32)
            self._captioned = (
                folder,
                CaptionedClips(
                    clips=tuple(_as_clip(folder, row) for row, _ in captioned),
                    predictions=tuple(
                        Prediction(
                            _clip_id(row.path, row.start_s),
                            row.caption,
                            row.token_ids,
                            row.log_prob,
                        )
                        for row, _ in captioned
                    ),
                    vectors=torch.from_numpy(matrix),
                    failures=tuple(
                        Failure(_clip_id(row.path, row.start_s), "decode_video", row.detail)
                        for row, blob in rows
                        if blob is None
                    ),
                ),
            )
        return self._captioned[1]

    def _check_or_create(self) -> None:
        check = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if check != "ok":
            raise sqlite3.DatabaseError(check)
        tables = {n for (n,) in self._connection.execute("SELECT name FROM sqlite_master")}
        provenance = {k: json.dumps(v) for k, v in asdict(self.provenance).items()}
        if not tables:
            with self._transaction():
                for statement in _TABLES.split(";")[:-1]:
                    self._connection.execute(statement)
                self._connection.executemany("INSERT INTO about VALUES (?, ?)", provenance.items())
        elif not tables >= {"about", "videos", "clips"}:
            raise AtomError(
                f"{self.path} is an SQLite database but no clip index; name another file"
            )
        stored = dict(self._connection.execute("SELECT key, value FROM about").fetchall())
        for key, value in provenance.items():
            if stored.get(key) != value:
                raise AtomError(
                    f"{self.path} was built with {key}={stored.get(key)}, this run has {value}; "
                    "delete it to rebuild it, or name another file"
                )

    def _sync_videos(self, folder: Path, files: Sequence[Path]) -> dict[str, int]:
        """Update the table `videos`, and delete the clips of changed and removed videos."""
        stored = {
            path: (size, mtime_ns, sha256)
            for path, size, mtime_ns, sha256 in self._connection.execute(
                "SELECT path, size, mtime_ns, sha256 FROM videos"
            )
        }
        names = {file.relative_to(folder).as_posix(): file for file in files}
        counts = {"added": 0, "changed": 0, "removed": 0, "unchanged": 0}
        for name in sorted(stored.keys() - names.keys()):
            with self._transaction():
                self._delete_video(name)
            counts["removed"] += 1
        for name, file in names.items():
            stat = file.stat()
            before = stored.get(name)
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
                self._delete_video(name)
                self._insert_video(name, file, (stat.st_size, stat.st_mtime_ns, sha256))
            counts["added" if before is None else "changed"] += 1
        return counts

    def _delete_video(self, name: str) -> None:
        self._captioned = None
        self._connection.execute("DELETE FROM clips WHERE path = ?", (name,))
        self._connection.execute("DELETE FROM videos WHERE path = ?", (name,))

    def _insert_video(self, name: str, file: Path, file_state: tuple[int, int, str]) -> None:
        try:
            duration_s = probe(file).duration_s
            windows = sliding_windows(
                duration_s, self.provenance.window_s, self.provenance.stride_s
            )
        except (VideoError, ValueError) as error:  # ValueError: a duration of zero
            windows = []
            self._insert(name, 0.0, None, Failure(name, "decode_video", str(error)), None)
        self._connection.execute(
            "INSERT INTO videos VALUES (?, ?, ?, ?, ?)", (name, *file_state, json.dumps(windows))
        )

    def _uncaptioned_clips(self, folder: Path) -> Iterator[Clip]:
        """Windows without a row in `clips`, in order; `meta` holds their batch number."""
        indexed = set(self._connection.execute("SELECT path, start_s FROM clips").fetchall())
        videos = self._connection.execute("SELECT path, windows FROM videos ORDER BY path")
        for name, windows in videos.fetchall():
            for number, (start_s, end_s) in enumerate(json.loads(windows)):
                if (name, start_s) not in indexed:
                    yield Clip(
                        "folder", "", _clip_id(name, start_s), folder / name, name, start_s, end_s,
                        meta={"batch": number // _BATCH},
                    )  # fmt: skip

    def _store_batch(self, runtime: Runtime, batch: Sequence[tuple[Clip, CaptionOutcome]]) -> None:
        captions = [o.caption for _, o in batch if isinstance(o, Prediction) and o.caption.strip()]
        vectors = iter(runtime.embed(captions, batch[0][0].video_id).numpy() if captions else ())
        with self._transaction():
            for clip, outcome in batch:
                has_caption = isinstance(outcome, Prediction) and outcome.caption.strip()
                vector = next(vectors) if has_caption else None
                self._insert(clip.source_id, clip.start_s, clip.end_s, outcome, vector)
        self._captioned = None

    def _insert(
        self,
        name: str,
        start_s: float,
        end_s: float | None,
        outcome: CaptionOutcome,
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

    def _select_clips(self) -> Iterator[tuple[IndexedClip, bytes | None]]:
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


def _clip_id(path: str, start_s: float) -> str:
    return f"{path}@{start_s:g}"


def _as_clip(folder: Path, row: IndexedClip) -> Clip:
    name = _clip_id(row.path, row.start_s)
    return Clip("folder", "", name, folder / row.path, row.path, row.start_s, row.end_s)


def _batch_id(clip: Clip) -> tuple[str, int]:
    return clip.source_id, clip.meta["batch"]


@contextmanager
def _explained_sqlite_errors(path: Path) -> Iterator[None]:
    """Convert SQLite errors into an `AtomError` that names the file and a remedy."""
    try:
        yield
    except sqlite3.OperationalError as error:
        remedies = {
            "locked": "another process writes to it; wait for it or stop it",
            "full": "free some disk space and run the same command again",
        }
        remedy = next(
            (text for key, text in remedies.items() if key in str(error)),
            "name a file that can be created",
        )
        raise AtomError(f"{path}: {error}; {remedy}") from error
    except sqlite3.DatabaseError as error:
        raise AtomError(
            f"{path} is damaged or no index ({str(error).splitlines()[0]}); delete it to "
            "rebuild it, or name another file"
        ) from error
