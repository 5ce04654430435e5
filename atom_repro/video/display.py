"""Decoded frames as players show them: progressive, opaque, in standard dynamic range.

Fields of interlaced footage are interpolated to full frames, transparent pictures stand on black,
and HDR (PQ and HLG transfer) is mapped to BT.709 with its diffuse white at full level. FFmpeg's
filters do it, alike for captions and for cuts.
"""

import threading
from fractions import Fraction
from functools import lru_cache
from typing import Any

from av.error import FFmpegError
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.reformatter import Colorspace, ColorTrc

_HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ and HLG

# From one field alone, so that a frame does not depend on which were decoded before it.
_DEINTERLACE = ("estdif", "mode=frame:deint=interlaced")
_ON_BLACK = ("premultiply", "inplace=1")
_TO_BT709 = (
    "scale",
    "out_color_matrix=bt709:out_primaries=bt709:out_transfer=bt709:out_range=tv",
)
_RESIZE = "flags=bicubic+accurate_rnd+bitexact"

# Values of AVColorSpace that define no colour matrix: unspecified, and reserved.
_UNSPECIFIED_MATRICES = (2, 3)

_Filter = tuple[str, str]


class Display:
    """Makes frames of one reading what players show. `fault` says what this build of FFmpeg lacks
    for that, and is empty where it lacks nothing that was needed."""

    def __init__(self) -> None:
        self.fault = ""

    def __call__(self, frame: Any, width: int, height: int) -> Any:
        """The frame as it is shown, of any size: HDR is scaled to `width` x `height` first, as
        mapping it costs by the pixel. Frames that need nothing are returned as they are."""
        if frame.interlaced_frame:
            frame = self._filtered(
                frame, (_DEINTERLACE,), "its fields are not separated", once=True
            )
        if any(component.is_alpha for component in frame.format.components):
            frame = self._filtered(frame, (_ON_BLACK,), "its transparency is ignored")
        if frame.color_trc in _HDR:
            resized = ("scale", f"{width}:{height}:{_RESIZE}")
            frame = self._filtered(
                frame, (resized, _TO_BT709, ("format", "yuv444p")), "its HDR colours are wrong"
            )
        return frame

    def _filtered(
        self, frame: Any, filters: tuple[_Filter, ...], otherwise: str, *, once: bool = False
    ) -> Any:
        size = (frame.width, frame.height)
        try:
            if once:
                return _FilterGraph(filters, *size, frame.format.name).run(frame, flush=True)
            return _graph(filters, *size, *_colours(frame)).run(frame)
        except (FFmpegError, ValueError) as error:
            self.fault = f"{otherwise}: this build of FFmpeg cannot do it ({error})"
            return frame


def source_matrix(frame: Any) -> Colorspace | None:
    """Colour matrix guessed from the height, as players do; None where the frame states its own."""
    if frame.colorspace not in _UNSPECIFIED_MATRICES or frame.format.is_rgb:
        return None
    return Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601


class _FilterGraph:
    """Filters that make one frame of one frame; may be run by several threads."""

    def __init__(self, filters: tuple[_Filter, ...], width: int, height: int, format: str) -> None:
        self._lock = threading.Lock()
        self._graph = Graph()
        node = self._graph.add_buffer(
            width=width, height=height, format=VideoFormat(format), time_base=Fraction(1, 1000)
        )
        for name, arguments in (*filters, ("buffersink", None)):
            following = self._graph.add(name, arguments)
            node.link_to(following)
            node = following
        self._graph.configure()

    def run(self, frame: Any, *, flush: bool = False) -> Any:
        """The filtered frame; `flush` for filters that wait for the next one, after which the graph
        takes no more."""
        with self._lock:
            self._graph.push(frame)
            if flush:
                self._graph.push(None)
            return self._graph.pull()


# Kept, as the tables of a colour mapping take seconds to make.
@lru_cache(maxsize=16)
def _graph(
    filters: tuple[_Filter, ...], width: int, height: int, format: str, *colours: int
) -> _FilterGraph:
    """A graph for frames of one size, format and kind of colours."""
    return _FilterGraph(filters, width, height, format)


def _colours(frame: Any) -> tuple[Any, ...]:
    return (
        frame.format.name,
        frame.color_trc,
        frame.color_primaries,
        frame.colorspace,
        frame.color_range,
    )
