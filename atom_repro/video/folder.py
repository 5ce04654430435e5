"""A folder of videos, found by stem: which file is the video of an id.

Data sets name videos by an id, and copies of them differ in container, folder depth and the case
of the extension. The folder is listed once and ids are looked up in the listing; an id never
becomes part of a path that leaves the folder. No video is opened here.
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


def checked_id(video_id: object, where: str) -> str:
    """The id, if it can name a file of a folder and nothing outside it.

    Args:
        video_id: as an annotation file has it.
        where: file and line, for the message.

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
    """A file's name without its video extension, any case; a bare dot at the end counts as one."""
    head, dot, tail = name.rpartition(".")
    return head if dot and (not tail or f".{tail.lower()}" in SUFFIXES) else name


def video_files(folder: Path) -> list[Path]:
    """Every video at or below a folder, by its name below it; hidden ones left out, none opened.

    Unlike `VideoFolder`, two files of one stem are two videos, and a name without extension
    is none: these folders were filled by a user, not by a data set.
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
    """The videos at or below `folder`, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return len(self._files)

    def find(self, *ids: str) -> Path | None:
        """The file of the first of these names that there is, None if there is none."""
        return next((self._files[name] for name in ids if name in self._files), None)

    def path(self, *ids: str) -> Path:
        """The file of a video; where it should be, `<first id>.mp4`, if it is missing."""
        return self.find(*ids) or self.folder / f"{ids[0]}.mp4"

    def inside(self, relative: str, where: str) -> Path:
        """The path of a named file, which must lie inside the folder.

        Raises:
            AtomError: an absolute path, or one with `..`.
        """
        parts = PurePosixPath(relative.replace("\\", "/"))
        if not relative or parts.is_absolute() or ".." in parts.parts or "\0" in relative:
            raise AtomError(f"{where}: {relative!r} leaves the video folder {self.folder}")
        return self.folder / Path(*parts.parts)

    def listing(self) -> list[tuple[str, int]]:
        """Name below the folder and size in bytes of every file, sorted: what a fingerprint of
        the videos is made of, as hashing hundreds of gigabytes is not."""
        return sorted(
            (p.relative_to(self.folder).as_posix(), p.stat().st_size) for p in self._files.values()
        )

    @cached_property
    def _files(self) -> dict[str, Path]:
        found: dict[str, tuple[int, Path]] = {}
        for parent, folders, names in os.walk(self.folder, followlinks=False):
            folders.sort()
            for name in sorted(names):
                path = Path(parent, name)
                rank = _rank(name)
                if name.startswith(".") or rank is None:
                    continue
                key = stem(name)
                if key not in found or rank < found[key][0]:
                    found[key] = (rank, path)
        return {key: path for key, (_, path) in found.items() if path.exists()}


def _rank(name: str) -> int | None:
    """Place in the order of preference; None for what is no video (text, images, archives)."""
    _, dot, tail = name.rpartition(".")
    suffix = f".{tail.lower()}" if dot and tail else ""
    return SUFFIXES.index(suffix) if suffix in SUFFIXES else None
