"""Persistent index of a folder of videos: captions and their embeddings in one SQLite file.

Paper A.1 and appendix B: a clip is a window of 10 s, one every 5 s. Videos are indexed once and
searched many times: a video whose file has not changed is never captioned again, and neither is
a clip that could not be decoded. Captions follow a file by its content, under another name too, and
those of files that are away are kept. The index stores the provenance of its captions (weights,
prompt, embedder, …), and opening it with another provenance is an error.

A rollback journal keeps it one file, and a batch of clips is one transaction: a kill at any point
leaves an index that the next update completes. A batch is always the same windows of one video,
so that a resumed index is bit-identical to an uninterrupted one.

    with ClipIndex.open(Path("videos.index"), provenance) as index:
        index.update(runtime, Path("videos"))
        rank_clips(runtime, index.captioned_clips(Path("videos")), "a red ball", …)
"""

import errno
import hashlib
import json
import os
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
from av.error import FFmpegError

from atom_repro.datatypes import AtomError, Clip, Failure, Prediction
from atom_repro.pipelines.captioned_clips import CaptionedClips, counted, time_range
from atom_repro.records.lock import Lock, hold
from atom_repro.records.provenance import file_hash
from atom_repro.runtime.captioning import CaptionOutcome
from atom_repro.runtime.runtime import Runtime
from atom_repro.video.file import VideoError, error_text
from atom_repro.video.folder import FolderListing, list_videos
from atom_repro.video.sampling import DECODING, probe, sliding_windows

FORMAT = 2  # raise it with any change to the tables
_BATCH = 8  # clips per transaction
_REPLACED = "\n"  # begins the path of a changed video's rows during an update; no path does

# A longer video is one whose timestamps are wrong: one stray packet makes it last years.
_LONGEST_S = 48 * 3600.0
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE videos (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
    windows TEXT NOT NULL, fault TEXT NOT NULL
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
    decoding: int = field(default=DECODING, init=False)

    def file_name(self, videos: Path) -> str:
        """File name of a folder's index; each provenance has its own."""
        folder = videos.resolve()
        text = os.fsencode(folder) + f"\n{self}".encode()
        return f"{folder.name[:40]}-{hashlib.sha256(text).hexdigest()[:12]}.index"


@dataclass(frozen=True)
class IndexedClip:
    """A window of a video and its caption. `path` is relative to the folder, as in `list_videos`.
    `status` is ok, partial (`detail` says what of it could not be seen) or corrupt (`detail` says
    why there is no caption)."""

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
    """Counts of an update: videos by change, and clips that were captioned or failed.

    `moved` videos have the content of one that was indexed under another name, `away` ones are in
    the index and not in the folder, `dropped` ones are no longer in the index. `remarks` has a line
    for each file or folder that could not be read.
    """

    added: int
    changed: int
    moved: int
    away: int
    dropped: int
    unchanged: int
    captioned: int
    failed: int
    remarks: tuple[str, ...]

    def summary(self, captioned: CaptionedClips) -> str:
        """The counts in words; `captioned` is what the index then has of the folder."""
        videos = [f"{counted(self.unchanged, 'video')} unchanged"] if self.unchanged else []
        videos += [f"{counted(self.moved, 'video')} known by content"] if self.moved else []
        known = ", ".join(videos)
        text = (
            f"{counted(self.captioned, 'clip')} captioned, {len(captioned):,} in the index"
            f"{f' ({known})' if known else ''}"
        )
        failures = len(captioned.failures)
        text += f", {failures:,} without a caption" if failures else ""
        if self.away:
            text += (
                f"\n{counted(self.away, 'indexed video')} not in the folder now: kept in the "
                "index, not used; drop_missing=true deletes what is known of them"
            )
        return text


class ClipIndex:
    """An open clip index. Single writer process; use from one thread."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        provenance: IndexProvenance,
        lock: Lock,
    ) -> None:
        self.path, self.provenance = path, provenance
        self._connection, self._lock = connection, lock
        self._files: Mapping[str, Path] = {}
        self._captioned: CaptionedClips | None = None
        self._lost: dict[str, bool] = {}

    @classmethod
    def open(cls, path: Path, provenance: IndexProvenance) -> "ClipIndex":
        """Open the index at `path`, or create it.

        Raises:
            AtomError: the file is no index, is damaged, has another provenance, or is in use.
        """
        lock = hold(path.with_name(f".{path.name}.lock"), path, "name another index=")
        try:
            with _explained_sqlite_errors(path):
                connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        except AtomError:
            lock.close()
            raise
        index = cls(path, connection, provenance, lock)
        try:
            with _explained_sqlite_errors(path):
                index._check_or_create()
        except BaseException:
            index.close()
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
        self._lock.close()

    def update(
        self,
        runtime: Runtime,
        folder: Path,
        progress: Progress | None = None,
        *,
        looked: Progress | None = None,
        drop_missing: bool = False,
    ) -> UpdateCounts:
        """Bring the index up to date with the videos in `folder`.

        Finished batches are kept if it is interrupted.

        Args:
            runtime: must run the model of `provenance`.
            progress: called with (clips done, clips to do), first with none done.
            looked: called with (bytes read, bytes to read) while new files are looked at.
            drop_missing: delete what is indexed of videos that are not in the folder.

        Raises:
            AtomError: no video in the folder: more likely a wrong path than an emptied folder.
        """
        listing = list_videos(folder)
        self._lost = {}
        with _explained_sqlite_errors(self.path):
            counts, remarks = self._sync_videos(listing, looked, drop_missing=drop_missing)
            todo = list(self._uncaptioned_clips())
            if progress is not None:
                progress(0, len(todo))
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
        remarks += [
            f"{name}: went away or changed while it was read; the next run captions the rest of it"
            for name, is_lost in self._lost.items()
            if is_lost
        ]
        return UpdateCounts(
            **counts, captioned=captioned, failed=failed, remarks=(*listing.remarks, *remarks)
        )

    def rows(self) -> list[IndexedClip]:
        """All clips, ordered by video path and start time."""
        with _explained_sqlite_errors(self.path):
            return [clip for clip, _ in self._select_clips()]

    def captioned_clips(self) -> CaptionedClips:
        """Captioned clips of the videos that the last update found, in the order of `rows`, with
        embeddings, and the others as failures. The result is cached until the index changes."""
        if self._captioned is None:
            with _explained_sqlite_errors(self.path):
                rows = [
                    (row, blob) for row, blob in self._select_clips() if row.path in self._files
                ]
            captioned = [(row, blob) for row, blob in rows if blob is not None]
            matrix = np.array([np.frombuffer(blob, "<f4") for _, blob in captioned], np.float32)
            self._captioned = CaptionedClips(
                clips=tuple(self._as_clip(row) for row, _ in captioned),
                predictions=tuple(
                    Prediction(
                        _clip_id(row.path, row.start_s), row.caption, row.token_ids, row.log_prob
                    )
                    for row, _ in captioned
                ),
                vectors=torch.from_numpy(matrix),
                failures=tuple(
                    Failure(_clip_id(row.path, row.start_s), "decode_video", row.detail)
                    for row, blob in rows
                    if blob is None
                ),
            )
        return self._captioned

    def faults(self) -> list[str]:
        """What could not be seen of the videos that the last update found: a line for each video
        and reason, with the first window that it concerns and how many more."""
        with _explained_sqlite_errors(self.path):
            videos = self._connection.execute("SELECT path, fault FROM videos ORDER BY path")
            lines = [f"{name}: {fault}" for name, fault in videos if fault and name in self._files]
            grouped: dict[tuple[str, str], list[IndexedClip]] = {}
            for row, _ in self._select_clips():
                if row.detail and row.path in self._files:
                    grouped.setdefault((row.path, row.detail), []).append(row)
        for (name, detail), (first, *more) in grouped.items():
            where = "" if first.end_s is None else f", {time_range(first.start_s, first.end_s)}"
            others = f" (and {len(more)} more of its clips)" if more else ""
            lines.append(f"{name}{where}: {detail}{others}")
        return sorted(lines)

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
                    "name another index="
                )

    def _sync_videos(
        self, listing: FolderListing, looked: Progress | None, *, drop_missing: bool
    ) -> tuple[dict[str, int], list[str]]:
        """Update the table `videos`, and delete the clips of changed videos; returns the counts of
        an `UpdateCounts`, and a line for each file that cannot be read."""
        self._captioned = None
        stored = {
            path: (size, mtime_ns, sha256)
            for path, size, mtime_ns, sha256 in self._connection.execute(
                "SELECT path, size, mtime_ns, sha256 FROM videos"
            )
        }
        counts = dict.fromkeys(("added", "changed", "moved", "away", "dropped", "unchanged"), 0)
        readable, states, remarks = _readable_files(listing.names)
        self._files = readable
        new = [name for name in readable if stored.get(name, ())[:2] != states[name]]
        counts["unchanged"] = len(readable) - len(new)
        total, read = sum(states[name][0] for name in new), 0

        def advance(count: int) -> None:
            nonlocal read
            read += count
            if looked is not None:
                looked(read, total)

        for name in new:
            try:
                sha256 = file_hash(readable[name], advance)
                state = (*states[name], sha256)
                with self._transaction():
                    change = self._sync_video(name, readable[name], state, listing)
            except OSError as error:
                remarks.append(f"{name}: cannot be read ({error.strerror})")
                self._files = {key: file for key, file in self._files.items() if key != name}
                continue
            counts[change] += 1
        counts |= self._sync_missing(listing, drop_missing=drop_missing)
        return counts, remarks

    def _sync_video(
        self, name: str, file: Path, state: tuple[int, int, str], listing: FolderListing
    ) -> str:
        """Update a new or touched video, and return which count of an `UpdateCounts` it is."""
        same = [
            path
            for (path,) in self._connection.execute(
                "SELECT path FROM videos WHERE sha256 = ? ORDER BY path", (state[2],)
            )
        ]
        known = self._connection.execute("SELECT 1 FROM videos WHERE path = ?", (name,)).fetchone()
        if name in same:  # touched, not changed
            self._connection.execute(
                "UPDATE videos SET size = ?, mtime_ns = ? WHERE path = ?", (*state[:2], name)
            )
            return "unchanged"
        if known:  # its rows may be those of another file by now, as where two names are swapped
            self._rename_video(name, _REPLACED + name)
        if not same:
            self._insert_video(name, file, state)
            return "changed" if known else "added"
        # A copy, or the same film under another name.
        self._connection.execute(
            "INSERT INTO videos SELECT ?, ?, ?, sha256, windows, fault FROM videos WHERE path = ?",
            (name, *state[:2], same[0]),
        )
        self._connection.execute(
            "INSERT INTO clips SELECT ?, start_s, end_s, status, detail, caption, token_ids, "
            "log_prob, embedding FROM clips WHERE path = ?",
            (name, same[0]),
        )
        for path in same:
            if path not in listing.names:
                self._delete_video(path)
        return "moved"

    def _sync_missing(self, listing: FolderListing, *, drop_missing: bool) -> dict[str, int]:
        """Count the indexed videos that are not in the folder, and delete them if asked to, and
        what is left of replaced ones."""
        paths = [path for (path,) in self._connection.execute("SELECT path FROM videos")]
        missing = [path for path in paths if path not in listing.names]
        away = [path for path in missing if not path.startswith(_REPLACED)]
        with self._transaction():
            for path in missing:
                if drop_missing or path.startswith(_REPLACED):
                    self._delete_video(path)
        return {"dropped" if drop_missing else "away": len(away)}

    def _rename_video(self, name: str, new_name: str) -> None:
        self._delete_video(new_name)
        self._connection.execute("UPDATE clips SET path = ? WHERE path = ?", (new_name, name))
        self._connection.execute("UPDATE videos SET path = ? WHERE path = ?", (new_name, name))

    def _delete_video(self, name: str) -> None:
        self._connection.execute("DELETE FROM clips WHERE path = ?", (name,))
        self._connection.execute("DELETE FROM videos WHERE path = ?", (name,))

    def _insert_video(self, name: str, file: Path, state: tuple[int, int, str]) -> None:
        windows: list[tuple[float, float]] = []
        fault = ""
        try:
            info = probe(file)
            if info.duration_s > _LONGEST_S:
                raise VideoError(
                    file,
                    f"by its timestamps it lasts {info.duration_s / 3600:,.0f} hours; more than "
                    f"{_LONGEST_S / 3600:.0f} are not captioned: write it anew or cut it",
                )
            windows = sliding_windows(
                info.duration_s, self.provenance.window_s, self.provenance.stride_s
            )
            fault = info.fault
        except (VideoError, FFmpegError, ValueError, OSError) as error:
            # ValueError: a duration of zero. A damaged file can break a demuxer in any way.
            if file_hash(file) != state[2]:
                raise OSError(errno.ESTALE, "it changes while it is read", str(file)) from error
            reason = error.reason if isinstance(error, VideoError) else error_text(error)
            self._insert(name, 0.0, None, Failure(name, "decode_video", reason), None)
        self._connection.execute(
            "INSERT INTO videos VALUES (?, ?, ?, ?, ?, ?)",
            (name, *state, json.dumps(windows), fault),
        )

    def _uncaptioned_clips(self) -> Iterator[Clip]:
        """Windows of the present videos without a row in `clips`, in order; `meta` holds their
        batch number."""
        indexed = set(self._connection.execute("SELECT path, start_s FROM clips").fetchall())
        videos = self._connection.execute("SELECT path, windows FROM videos ORDER BY path")
        for name, windows in videos.fetchall():
            for number, (start_s, end_s) in enumerate(json.loads(windows)):
                if (name, start_s) not in indexed and name in self._files:
                    yield Clip(
                        "folder", "", _clip_id(name, start_s), self._files[name], name, start_s,
                        end_s, meta={"batch": number // _BATCH},
                    )  # fmt: skip

    def _store_batch(self, runtime: Runtime, batch: Sequence[tuple[Clip, CaptionOutcome]]) -> None:
        captions = [o.caption for _, o in batch if isinstance(o, Prediction) and o.caption.strip()]
        vectors = iter(runtime.embed(captions, batch[0][0].video_id).numpy() if captions else ())
        with self._transaction():
            for clip, outcome in batch:
                if isinstance(outcome, Failure) and self._is_lost(clip.source_id):
                    continue
                has_caption = isinstance(outcome, Prediction) and outcome.caption.strip()
                vector = next(vectors) if has_caption else None
                self._insert(clip.source_id, clip.start_s, clip.end_s, outcome, vector)
        self._captioned = None

    def _is_lost(self, name: str) -> bool:
        """Whether a file is no longer the one that is indexed, as where its drive is pulled out: a
        failure to read it then says nothing about its content."""
        if name not in self._lost:
            (sha256,) = self._connection.execute(
                "SELECT sha256 FROM videos WHERE path = ?", (name,)
            ).fetchone()
            try:
                self._lost[name] = file_hash(self._files[name]) != sha256
            except OSError:
                self._lost[name] = True
        return self._lost[name]

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
            reason = outcome.detail.removeprefix(f"{self._files[name]}: ")
            values = ("corrupt", reason, "", "[]", 0.0)
        else:
            said = "" if vector is not None else "the decoder said nothing"
            detail = "; ".join(text for text in (outcome.fault, said) if text)
            ids = json.dumps(outcome.token_ids)
            status = "partial" if outcome.fault else "ok"
            values = (status, detail, outcome.caption, ids, outcome.log_prob)
        blob = None if vector is None else np.ascontiguousarray(vector, "<f4").tobytes()
        self._connection.execute(
            "INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (name, start_s, end_s, *values, blob),
        )

    def _as_clip(self, row: IndexedClip) -> Clip:
        name = _clip_id(row.path, row.start_s)
        return Clip("folder", "", name, self._files[row.path], row.path, row.start_s, row.end_s)

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


def _readable_files(
    names: Mapping[str, Path],
) -> tuple[dict[str, Path], dict[str, tuple[int, int]], list[str]]:
    """The files that can be opened, their sizes and modification times, and a line for each that
    cannot."""
    readable: dict[str, Path] = {}
    states: dict[str, tuple[int, int]] = {}
    remarks = []
    for name, file in names.items():
        try:
            stat = file.stat()
            with file.open("rb"):
                pass
        except OSError as error:
            remarks.append(f"{name}: cannot be read ({error.strerror})")
            continue
        readable[name], states[name] = file, (stat.st_size, stat.st_mtime_ns)
    return readable, states, remarks


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
    except sqlite3.IntegrityError:
        raise  # a fault of ours: the index is sound
    except sqlite3.DatabaseError as error:
        raise AtomError(
            f"{path} is damaged or no index ({str(error).splitlines()[0]}); delete it to "
            "rebuild it, or name another file"
        ) from error
