"""Base class and helpers of the data set loaders: annotation files, caption cleaning, checks.

Formats of single data sets are in their own modules. Here: file names and download sources, JSON
that may be zipped, captions without line separators, unique ids, and the fingerprint of a data
set.
"""

import hashlib
import json
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from atom_repro.datatypes import AtomError, Clip
from atom_repro.video.folder import VideoFolder

Progress = Callable[[int, int], None]

# Far above any published file; a zip of a few kilobytes can hold terabytes.
_MOST_UNZIPPED = 2**31


@dataclass(frozen=True)
class SourceFile:
    """An annotation file: its accepted names, what it is needed for, where to get it, and the
    sha256 of the copies on which the published counts were checked."""

    names: tuple[str, ...]
    needed_for: str
    download_from: str
    sha256: tuple[str, ...] = ()

    def find(self, folder: Path) -> Path | None:
        return next((folder / n for n in self.names if (folder / n).is_file()), None)

    def require(self, folder: Path) -> Path:
        """Return the path of the file in `folder`.

        Raises:
            AtomError: none of its names exists; says what it is for and where to get it.
        """
        path = self.find(folder)
        if path is None:
            raise AtomError(
                f"{folder / self.names[0]}: not there, needed for {self.needed_for}; "
                f"{self.download_from}"
            )
        return path


class AnnotatedDataset(ABC):
    """A data set of annotation files in one folder and videos in another.

    Subclasses set `name`, `splits` and `files`, and read one split in `_load`.
    """

    name: str
    splits: tuple[str, ...]
    files: tuple[SourceFile, ...]

    def __init__(self, annotations: str, videos: str) -> None:
        self.annotations = Path(annotations)
        self.videos = VideoFolder(Path(videos))
        self._clips: dict[str, list[Clip]] = {}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the existing annotation files and the names and sizes of the videos.

        Raises:
            AtomError: no annotation file exists.
        """
        self.prepare()
        present = [p for f in self.files if (p := f.find(self.annotations))]
        lines = [f"{p.name} {_sha256(p)}" for p in present]
        lines += [f"{name} {size}" for name, size in self.videos.listing()]
        return hashlib.sha256("\n".join([self.name, *lines]).encode()).hexdigest()

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that an annotation file exists; nothing is downloaded.

        Raises:
            AtomError: none of the annotation files exists.
        """
        if not any(f.find(self.annotations) for f in self.files):
            self.files[0].require(self.annotations)

    def clips(self, split: str) -> list[Clip]:
        """The clips of a split, in the annotation file's order. Missing videos are not
        checked here but by `video.sampling.check_clips`, under the policy of the run.

        Raises:
            AtomError: an unknown split, or a file that is missing or broken.
        """
        if split not in self.splits:
            raise AtomError(f"{self.name} has no split {split!r}; choose one of {self.splits}")
        if split not in self._clips:
            self._clips[split] = self._load(split)
        return list(self._clips[split])

    @abstractmethod
    def _load(self, split: str) -> list[Clip]: ...


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, or of the only JSON file inside a zip.

    Line ends stay as they are, so that a caption's own separators cannot split a line.

    Raises:
        AtomError: not UTF-8, not a zip, or a zip without exactly one JSON file of sensible size.
    """
    try:
        if path.suffix.lower() != ".zip":
            return path.read_bytes().decode("utf-8-sig")
        with zipfile.ZipFile(path) as archive:
            members = [n for n in archive.namelist() if n.endswith(".json")]
            if len(members) != 1:
                raise AtomError(f"{path}: holds {len(members)} JSON files, not one")
            size = archive.getinfo(members[0]).file_size
            if size > _MOST_UNZIPPED:
                raise AtomError(
                    f"{path}: unpacks to {size:,} bytes, more than {_MOST_UNZIPPED:,}; fetch it "
                    "again, or unpack it"
                )
            return archive.read(members[0]).decode("utf-8-sig")
    except (UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise AtomError(f"{path}: cannot be read ({error}); fetch it again") from error


def read_lines(path: Path) -> list[tuple[str, str]]:
    """(`file:number`, line) of every line that is not blank; only \\n and \\r\\n end a line."""
    lines = read_text(path).split("\n")
    return [
        (f"{path}:{number}", line.removesuffix("\r"))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def read_json(path: Path) -> Any:
    """Content of a JSON file, plain or zipped.

    Raises:
        AtomError: broken JSON; names the position.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise AtomError(f"{path}: broken JSON ({error}); fetch it again") from error


def clean(text: object, where: str) -> str:
    """Text on one line, white space collapsed to single spaces.

    Unicode line separators count as white space: one of them would shift every later caption to
    another clip in the Java tokenizer.

    Raises:
        AtomError: not text, or nothing but white space.
    """
    if not isinstance(text, str) or not text.strip():
        raise AtomError(f"{where}: not a non-empty text ({text!r}); remove it from the file")
    return " ".join(text.split())


def require_unique(names: Iterable[str], where: str) -> list[str]:
    """Return the names after checking that none is repeated.

    Raises:
        AtomError: a name occurs twice.
    """
    listed = list(names)
    duplicates = [name for name, n in Counter(listed).items() if n > 1]
    if duplicates:
        more = f" (and {len(duplicates) - 1} more do)" if len(duplicates) > 1 else ""
        raise AtomError(f"{where}: {duplicates[0]} occurs twice{more}; remove the duplicate")
    return listed


def field(row: Any, key: str, where: str) -> Any:
    """Value of a key of a JSON object.

    Raises:
        AtomError: `row` is not an object, or lacks the key.
    """
    if not isinstance(row, dict) or key not in row:
        raise AtomError(
            f"{where}: no {key!r}; the file is not in the format that this loader reads"
        )
    return row[key]


def count_leaks(training: Sequence[Clip], evaluation: Sequence[Clip]) -> tuple[int, int]:
    """Count the evaluation clips that are also training clips, and others that share a recording.

    A clip cut from the same recording is another clip, but not an unseen one.
    """
    training_ids = {c.video_id for c in training}
    training_sources = {c.source_id for c in training if c.source_id}
    same = sum(c.video_id in training_ids for c in evaluation)
    shared = sum(
        c.video_id not in training_ids and c.source_id in training_sources for c in evaluation
    )
    return same, shared


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
