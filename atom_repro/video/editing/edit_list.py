"""The edit list: what of which source is where in a movie, as JSON beside it.

Written by `video_edit`, checked against the movie by `edit_check`, and what `subtitles` are made
from. It names every source by the sha256 of its file, so that a movie can be made again.
"""

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from atom_repro.datatypes import AtomError, ClipStatus
from atom_repro.records.atomic import atomically

VERSION = 1


@dataclass(frozen=True)
class Box:
    """Where in the movie's frame a picture stands, in pixels; black bars fill the rest."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class EditedCut:
    """One cut as it was rendered.

    `source` is the file's name, `path` where it lay. Source times are seconds since the source's
    first frame, the others seconds since the movie's. Frames are the movie's, `end_frame` not
    included. `status` is "partial" where the cut is shorter than asked for, or its sound has a
    fault, and "missing" or "corrupt" where it gave no picture: it then has no frames. `detail`
    says why.
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

    `file` is the movie's name and `sha256` that of its bytes.
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
        """As JSON holds it: `fps` is text, a fraction as FFmpeg writes one ("30/1")."""
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
        """Writes the list as JSON, whole or not at all."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        with atomically(path) as building:
            building.write_text(text + "\n", encoding="utf-8")


def read_edit_list(path: Path) -> EditList:
    """Reads what `EditList.write` wrote.

    Raises:
        AtomError: there is no such file, it is not an edit list, or of another version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found["version"]
    except OSError as error:
        raise AtomError(f"{path}: no edit list can be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise AtomError(f"{path}: not an edit list; render the movie again") from None
    if version != VERSION:
        raise AtomError(
            f"{path}: version {version} of the edit list, this program reads {VERSION}; "
            "render the movie again"
        )
    try:
        return EditList(
            file=found["file"],
            sha256=found["sha256"],
            fps=Fraction(found["fps"]),
            frames=found["frames"],
            width=found["width"],
            height=found["height"],
            has_sound=found["has_sound"],
            cuts=tuple(
                EditedCut(**{**cut, "path": Path(cut["path"]), "box": Box(**cut["box"])})
                for cut in found["cuts"]
            ),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise AtomError(
            f"{path}: the edit list is damaged ({type(error).__name__}: {error}); "
            "render the movie again"
        ) from None
