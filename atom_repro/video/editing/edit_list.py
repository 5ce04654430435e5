"""The edit list of a movie: which time range of which source is where, stored as JSON beside it.

Created by `writer`, checked against the movie by `verify`, and the input of `subtitles`. It
identifies every source by the sha256 of its file, so that the movie can be rendered again.
"""

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from atom_repro.datatypes import AtomError, ClipStatus
from atom_repro.records.atomic import atomic_write

VERSION = 1


@dataclass(frozen=True)
class Box:
    """Position and size in pixels of a cut's picture in the movie's frame; bars fill the rest."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class EditedCut:
    """One cut as it was rendered.

    `source` is the source's file name, `path` its absolute path. `source_start_s` and
    `source_end_s` are seconds since the source's first frame, `start_s` and `end_s` seconds since
    the movie's. `start_frame` and `end_frame` (exclusive) count the movie's frames. `status` is
    "partial" where the cut is shorter than requested or its sound has a fault, and "missing" or
    "corrupt" where no frame could be read: it then has no frames. `detail` says why.
    """

    video_id: str
    source: str
    path: Path
    source_bytes: int
    source_sha256: str
    source_start_s: float
    source_end_s: float
    start_s: float
    end_s: float
    start_frame: int
    end_frame: int
    box: Box
    has_sound: bool
    caption: str
    narration: str
    status: ClipStatus
    detail: str

    @property
    def frames(self) -> int:
        return self.end_frame - self.start_frame


@dataclass(frozen=True)
class EditList:
    """A movie and its cuts, in the movie's order. `fps` is exact: 30000/1001 is not 29.97.

    `file` is the movie's file name and `sha256` the hash of its content.
    """

    file: str
    sha256: str
    fps: Fraction
    frames: int
    width: int
    height: int
    has_sound: bool
    cuts: tuple[EditedCut, ...]

    @property
    def duration_s(self) -> float:
        return float(self.frames / self.fps)

    def to_dict(self) -> dict[str, Any]:
        """The list as JSON types; `fps` is a fraction as text, in FFmpeg's form ("30/1")."""
        return {
            "version": VERSION,
            "file": self.file,
            "sha256": self.sha256,
            "fps": f"{self.fps.numerator}/{self.fps.denominator}",
            "frames": self.frames,
            "duration_s": round(self.duration_s, 6),
            "width": self.width,
            "height": self.height,
            "has_sound": self.has_sound,
            "cuts": [{**asdict(cut), "path": str(cut.path)} for cut in self.cuts],
        }

    def write(self, path: Path) -> None:
        """Writes the list as JSON, atomically."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        with atomic_write(path) as temporary:
            # A path that is not UTF-8 has lone surrogates, which become JSON's own escapes.
            temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read_edit_list(path: Path) -> EditList:
    """Reads an edit list written by `EditList.write`.

    Raises:
        AtomError: there is no such file, it is not an edit list, or of another version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["version"]
    except OSError as error:
        raise AtomError(f"{path}: the edit list cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise AtomError(f"{path}: not an edit list; render the movie again") from None
    if version != VERSION:
        raise AtomError(
            f"{path}: edit list of version {version}, this program reads version {VERSION}; "
            "render the movie again"
        )
    try:
        return EditList(
            file=data["file"],
            sha256=data["sha256"],
            fps=Fraction(data["fps"]),
            frames=data["frames"],
            width=data["width"],
            height=data["height"],
            has_sound=data["has_sound"],
            cuts=tuple(
                EditedCut(**{**cut, "path": Path(cut["path"]), "box": Box(**cut["box"])})
                for cut in data["cuts"]
            ),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise AtomError(
            f"{path}: the edit list is damaged ({type(error).__name__}: {error}); "
            "render the movie again"
        ) from None
