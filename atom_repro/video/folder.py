"""Video files of a folder, looked up by video id (the file's stem).

Data sets name videos by an id, and copies of them differ in container, folder depth and the case
of the extension. The folder is listed once and ids are looked up in the listing; an id never
becomes part of a path outside the folder. No video is opened here.
"""

import os
from functools import cached_property
from pathlib import Path, PurePosixPath

from atom_repro.datatypes import AtomError

# In order of preference where a folder holds a video twice (DiDeMo has 33 such pairs). A name
# that ends with a bare dot, and one without extension, come last.
SUFFIXES = (
    ".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp",
    ".3g2", ".mts", ".m2ts", ".ts", ".ogv", "",
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


def video_files(folder: Path) -> list[Path]:
    """Paths of all video files in a folder and its subfolders, sorted, without hidden ones.

    Unlike in `VideoFolder`, two files with one stem are two videos, and a file without extension
    is not a video: the folder is a user's, not a data set's.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.suffix
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


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
        """Relative path and size in bytes of every file, sorted; fingerprints are made from it,
        since hashing hundreds of gigabytes takes too long."""
        return sorted(
            (p.relative_to(self.folder).as_posix(), p.stat().st_size) for p in self._files.values()
        )

    @cached_property
    def _files(self) -> dict[str, Path]:
        best: dict[str, tuple[int, Path]] = {}
        for parent, folders, names in os.walk(self.folder, followlinks=False):
            folders.sort()
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
