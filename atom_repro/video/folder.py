"""Video files of a folder, looked up by video id (the file's stem).

Data sets name videos by an id, and copies of them differ in container, folder depth and the case
of the extension. The folder is listed once and ids are looked up in the listing; an id never
becomes part of a path outside the folder. No video is opened here.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from unicodedata import category

from atom_repro.datatypes import AtomError

# In order of preference where a folder holds a video twice (DiDeMo has 33 such pairs). A name
# that ends with a bare dot, and one without extension, come last.
SUFFIXES = (
    ".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp",
    ".3g2", ".mts", ".m2ts", ".ts", ".ogv", ".vob", ".asf", ".divx", ".dv", ".f4v", ".gif", ".m2v",
    ".mod", ".mpe", ".mxf", ".ogm", ".qt", ".rm", ".rmvb", ".tod", ".wtv", "",
)  # fmt: skip


def validated_video_id(video_id: object, where: str) -> str:
    """Validates a video id as a file name and returns it stripped.

    Args:
        video_id: value from an annotation file.
        where: file and line, for the error message.

    Raises:
        AtomError: not text, empty, with a path separator or a control character, or `..`.
    """
    if (
        not isinstance(video_id, str)
        or video_id.strip() in ("", ".", "..")
        or any(c in "/\\" or ord(c) < 32 for c in video_id)
    ):
        raise AtomError(f"{where}: {video_id!r} cannot be a video id; correct the annotation file")
    return video_id.strip()


def stem(name: str) -> str:
    """File name without its video extension, in any case, or without a bare dot at its end."""
    head, dot, tail = name.rpartition(".")
    return head if dot and (not tail or f".{tail.lower()}" in SUFFIXES) else name


@dataclass(frozen=True)
class FolderListing:
    """The video files below a folder, sorted.

    `names` maps each file's path relative to the folder, as text that can be stored and printed
    (see `printable`), to its path. `remarks` has a line for everything that looks like a video, or
    could hold some, and was left out. `others` counts the remaining files by suffix.
    """

    names: Mapping[str, Path]
    remarks: tuple[str, ...]
    others: Mapping[str, int]


def list_videos(folder: Path) -> FolderListing:
    """List the video files of a user's folder and its subfolders, without hidden ones.

    Unlike in `VideoFolder`, two files with one stem are two videos, and a file without extension
    is not a video. Links to folders elsewhere are followed. Movies that `eval.pipeline` wrote,
    known by the edit list beside them, are left out: a run would feed on what another one made.

    Raises:
        AtomError: there is no video; says what is there instead.
    """
    remarks: list[str] = []
    others: Counter[str] = Counter()
    found: list[Path] = []

    def name_of(path: Path) -> str:
        return printable(path.relative_to(folder).as_posix())

    def unreadable(error: OSError) -> None:
        name = name_of(Path(os.fsdecode(error.filename)))
        remarks.append(f"{name}: the folder cannot be read ({error.strerror})")

    entered = {folder.resolve()}
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        shown = [Path(parent, name) for name in sorted(folders) if not name.startswith(".")]
        folders[:] = [path.name for path in shown if _is_entered(path, folder, entered)]
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
            suffix = path.suffix.lower()
            if not suffix or suffix not in SUFFIXES:
                others[suffix or "no suffix"] += 1
            elif path.with_name(f"{path.stem}.edit.json").exists():
                remarks.append(f"{name_of(path)}: a movie that eval.pipeline made")
            elif reason := _why_no_file(path):
                remarks.append(f"{name_of(path)}: {reason}")
            else:
                found.append(path)
    by_name: dict[str, Path] = {}
    for path in sorted(found):
        name = name_of(path)
        if by_name.setdefault(name, path) != path:
            remarks.append(f"{name}: another file's name looks the same; rename one of them")
    if not by_name:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        there = "; ".join([*remarks, *([f"other files: {counts}"] if counts else [])])
        raise AtomError(
            f"{printable(str(folder))} contains no videos{f' ({there})' if there else ''}; "
            "name the folder that holds the videos"
        )
    return FolderListing(by_name, tuple(remarks), others)


def _is_entered(path: Path, folder: Path, entered: set[Path]) -> bool:
    """Whether a subfolder is listed: not a link to one that is listed anyway, or around it."""
    target, root = path.resolve(), folder.resolve()
    if path.is_symlink() and (target.is_relative_to(root) or root.is_relative_to(target)):
        return False
    if target in entered:
        return False
    entered.add(target)
    return True


def _why_no_file(path: Path) -> str:
    """Why a directory entry is no file that could be opened, empty if it is one."""
    try:
        if path.is_file():
            return ""
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "a link to nothing" if path.is_symlink() else "not a file"


def printable(name: str) -> str:
    """A file name as text that UTF-8 can hold on one line: other bytes and control characters
    become escapes."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    breaking = ("Cc", "Zl", "Zp")
    return "".join(ascii(c)[1:-1] if category(c) in breaking else c for c in text)


class VideoFolder:
    """The videos in `folder` and its subfolders, by stem; the folder need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return len(self._files)

    def find(self, *ids: str) -> Path | None:
        """Path of the first of these ids that has a file, or None."""
        return next((self._files[name] for name in ids if name in self._files), None)

    def path(self, *ids: str) -> Path:
        """Path of a video by its ids; the expected path `<first id>.mp4` if it is missing."""
        return self.find(*ids) or self.folder / f"{ids[0]}.mp4"

    def resolve(self, relative: str, where: str) -> Path:
        """Path of a file given relative to the folder, checked to be inside it.

        Raises:
            AtomError: an absolute path, or one with `..`.
        """
        inner = PurePosixPath(relative.replace("\\", "/"))
        if not relative or inner.is_absolute() or ".." in inner.parts or "\0" in relative:
            raise AtomError(f"{where}: {relative!r} leaves the video folder {self.folder}")
        return self.folder / Path(*inner.parts)

    def listing(self) -> list[tuple[str, int]]:
        """Relative path (see `printable`) and size in bytes of every file, sorted; fingerprints are
        made from it, since hashing hundreds of gigabytes takes too long."""
        return sorted(
            (printable(path.relative_to(self.folder).as_posix()), path.stat().st_size)
            for path in self._files.values()
        )

    @cached_property
    def _files(self) -> dict[str, Path]:
        best: dict[str, tuple[int, Path]] = {}
        entered = {self.folder.resolve()}
        for parent, folders, names in os.walk(self.folder, followlinks=True):
            folders[:] = [
                name
                for name in sorted(folders)
                if _is_entered(Path(parent, name), self.folder, entered)
            ]
            for name in sorted(names):
                path = Path(parent, name)
                rank = _rank(name)
                if name.startswith(".") or rank is None:
                    continue
                key = stem(name)
                if key not in best or rank < best[key][0]:
                    best[key] = (rank, path)
        return {key: path for key, (_, path) in best.items() if path.exists()}


def _rank(name: str) -> int | None:
    """Index of a file's extension in SUFFIXES; None where the file is not a video."""
    _, dot, tail = name.rpartition(".")
    suffix = f".{tail.lower()}" if dot and tail else ""
    return SUFFIXES.index(suffix) if suffix in SUFFIXES else None
