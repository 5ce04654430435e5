"""Scenes of the generated data set and their rendering to video frames.

A scene is one place, one thing (or two or three alike, or two different ones in a relation) and
one motion; `render` turns it into frames. Captions and files are handled elsewhere. Compositing
and drawing use integer arithmetic, so that a scene is the same bytes on any machine.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

COLOURS = {
    "red": (222, 28, 36),
    "orange": (255, 138, 0),
    "yellow": (255, 232, 32),
    "green": (22, 158, 58),
    "blue": (28, 68, 226),
    "purple": (142, 36, 178),
    "white": (252, 252, 252),
    "black": (16, 16, 20),
}
PLACES = ("beach", "night sky", "snow", "forest", "desert", "city")
MOTIONS = ("right", "left", "up", "down", "circle", "bounce", "grow", "shrink", "still", "flash")
RELATIONS = ("left of", "right of", "above", "below")

# (colour, place) without enough contrast; no scene has them.
INVISIBLE = {
    ("yellow", "beach"),
    ("blue", "beach"),
    ("black", "night sky"),
    ("blue", "night sky"),
    ("purple", "night sky"),
    ("white", "snow"),
    ("green", "forest"),
    ("yellow", "desert"),
    ("orange", "desert"),
    ("white", "city"),
}

# Motions of a pair: there is no room to move along the axis that joins the two things.
RELATION_MOTIONS = {
    "left of": ("up", "down", "still"),
    "right of": ("up", "down", "still"),
    "above": ("right", "left", "still"),
    "below": ("right", "left", "still"),
}


@dataclass(frozen=True)
class Scene:
    """Contents of one shot. A second thing exists if `relation` is set: the first thing is
    `relation` ("left of", ...) the second, and both share the motion."""

    place: str
    object: str
    colour: str
    count: int
    motion: str
    relation: str | None = None
    second_object: str | None = None
    second_colour: str | None = None

    def as_meta(self) -> dict[str, Any]:
        """The attributes as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "Scene":
        """Inverse of `as_meta`; other keys (times, references) are ignored."""
        return cls(**{field.name: meta[field.name] for field in fields(cls)})

    @property
    def things(self) -> tuple[tuple[str, str], ...]:
        """The (colour, object) of the first and, with a relation, the second thing."""
        if self.second_object is None or self.second_colour is None:
            return ((self.colour, self.object),)
        return ((self.colour, self.object), (self.second_colour, self.second_object))


def render(
    scene: Scene, *, frames: int, size: int, flash_frames: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Render a scene: (frames, size, size, 3) uint8 RGB.

    `rng` decides what no caption mentions: exact position and path, facing, the place's details
    and noise. `flash_frames` is how long a flashing thing stays visible, and then hidden.
    """
    texture, extent = _thing_texture(scene, bool(rng.integers(2)))
    background = _background(scene.place, size, rng)
    cx, cy, scale, visible = _trajectory(scene, extent, frames, flash_frames, rng)
    states, state_of_frame = np.unique(
        np.stack([cx, cy, scale, visible], axis=1), axis=0, return_inverse=True
    )
    images = _composite(background, texture, states, extent)[state_of_frame.reshape(-1)]
    return _with_noise(images, rng)


# --- Motion -------------------------------------------------------------------------------


def _trajectory(
    scene: Scene, extent: float, frames: int, flash_frames: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], ...]:
    """Centre x and y (shares of the frame), scale, and visibility, each (frames,)."""
    time = (np.arange(frames) + 0.5) / frames
    ones = np.ones(frames)
    # The centre's range: about a tenth of the things may leave the frame.
    low, high = extent - 0.06, 1 - extent + 0.06
    middle = (low + high) / 2
    jitter = max(0.0, min(0.1, (high - low) / 2))
    x0, y0 = middle + jitter * rng.uniform(-1, 1, 2)
    cx, cy, scale, visible = x0 * ones, y0 * ones, ones.copy(), ones.copy()
    # Slightly different speeds, so that one frame does not give the motion away.
    start, stop = low + 0.06 * rng.random(), high - 0.06 * rng.random()
    forward, backward = start + (stop - start) * time, stop + (start - stop) * time
    motion = scene.motion
    if motion == "right":
        cx = forward
    elif motion == "left":
        cx = backward
    elif motion == "up":
        cy = backward
    elif motion == "down":
        cy = forward
    elif motion == "circle":
        radius = (high - low) / 2 - 0.02
        angle = 2 * math.pi * (time + rng.random()) * (1 if rng.integers(2) else -1)
        cx, cy = middle + radius * np.cos(angle), middle + radius * np.sin(angle)
    elif motion == "bounce":
        cy = high - (high - low) * np.abs(np.sin(2 * math.pi * time))
    elif motion == "grow":
        scale = 0.5 + 0.8 * time
    elif motion == "shrink":
        scale = 1.3 - 0.8 * time
    elif motion == "flash":
        visible = (np.floor((np.arange(frames) + 0.5) / flash_frames) % 2 == 0).astype(np.float64)
    # A grid of 1/1024 hides last-bit differences of sine and cosine between CPUs.
    return tuple(np.round(v * 1024) / 1024 for v in (cx, cy, scale, visible))


# --- Compositing --------------------------------------------------------------------------

_WEIGHT_STEPS = 64  # resampling weights are whole 64ths: products of them are exact in float32


def _composite(
    background: npt.NDArray[np.uint8],
    texture: npt.NDArray[np.uint8],
    states: npt.NDArray[np.float64],
    extent: float,
) -> npt.NDArray[np.uint8]:
    """Composite the texture on the background per state (cx, cy, scale, visible): (N, H, W, 3).

    The texture (K, K, 4), premultiplied colour and coverage, is box-filtered along each axis.
    """
    size, side = background.shape[0], texture.shape[0]
    half_width = extent * states[:, 2]
    weights_x = _weights(states[:, 0], half_width, size, side)
    weights_y = _weights(states[:, 1], half_width, size, side)
    count = len(states)
    flat = texture.astype(np.float32).reshape(side, side * 4)
    rows = (weights_y @ flat).reshape(count, size, side, 4)
    layer = np.matmul(weights_x[:, None], rows)  # (N, H, W, 4)
    layer = (layer.astype(np.int32) >> 12) * (states[:, 3] > 0).astype(np.int32)[
        :, None, None, None
    ]
    coverage = layer[..., 3:]
    # 257/65536 approximates 1/255: exact at both ends, and a shift in place of a slow division.
    behind = (background.astype(np.int32) * (255 - coverage) * 257 + 32768) >> 16
    images: npt.NDArray[np.uint8] = np.minimum(behind + layer[..., :3], 255).astype(np.uint8)
    return images


def _weights(
    centre: npt.NDArray[np.float64], half_width: npt.NDArray[np.float64], size: int, side: int
) -> npt.NDArray[np.float32]:
    """Share of each texel in each pixel along one axis, in 64ths: (N, size, side)."""
    edges = np.arange(size + 1) / size
    edges = ((edges - centre[:, None]) / half_width[:, None] + 1) * (side / 2)  # in texels
    left, right = edges[:, :-1, None], edges[:, 1:, None]
    covered = (np.clip(np.arange(side + 1), left, right) - left) / (right - left)
    return np.diff(np.round(covered * _WEIGHT_STEPS), axis=-1).astype(np.float32)


@lru_cache(maxsize=4)
def _noise_bank(size: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(7).integers(-6, 7, (8, size, size, 1)).astype(np.int16)


def _with_noise(images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Add grain that changes from frame to frame, and one brightness offset per scene."""
    bank = _noise_bank(images.shape[1])
    grain = bank[rng.integers(0, len(bank), len(images))] + np.int16(rng.integers(-8, 9))
    return np.clip(images + grain, 0, 255).astype(np.uint8)


# --- Things -------------------------------------------------------------------------------

_ICON_TEXELS = 32  # width of one icon
_OVERSAMPLE = 4
_MAIN, _DARK, _LIGHT = 0, 1, 2

Polygon = tuple[int, Sequence[tuple[float, float]]]


def _disc(role: int, x: float, y: float, rx: float, ry: float) -> Polygon:
    angles = [2 * math.pi * k / 36 for k in range(36)]
    return role, [(x + rx * math.cos(t), y + ry * math.sin(t)) for t in angles]


def _rect(role: int, x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return role, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _star() -> list[Polygon]:
    points = []
    for k in range(10):
        r, t = (1.0, 0.42)[k % 2], math.pi * (k / 5 - 0.5)
        points.append((r * math.cos(t), r * math.sin(t) + 0.06))
    return [(_MAIN, points)]


# Shapes in a square from -1 to 1, y downwards, painted in this order.
_ICONS: dict[str, list[Polygon]] = {
    "ball": [
        _disc(_MAIN, 0, 0, 0.92, 0.92),
        (_LIGHT, [(-0.9, -0.16), (0.9, -0.16), (0.9, 0.16), (-0.9, 0.16)]),
    ],
    "box": [
        _rect(_MAIN, -0.88, -0.78, 0.88, 0.88),
        _rect(_DARK, -0.88, -0.78, 0.88, -0.46),
        _rect(_LIGHT, -0.14, -0.78, 0.14, 0.88),
    ],
    "car": [
        (_MAIN, [(-0.5, -0.55), (0.35, -0.55), (0.62, -0.05), (-0.72, -0.05)]),
        _rect(_MAIN, -1, -0.1, 1, 0.42),
        (_LIGHT, [(-0.4, -0.42), (0.26, -0.42), (0.42, -0.08), (-0.52, -0.08)]),
        _disc(_DARK, -0.52, 0.45, 0.27, 0.27),
        _disc(_DARK, 0.52, 0.45, 0.27, 0.27),
    ],
    "boat": [
        (_MAIN, [(-1, 0.3), (1, 0.3), (0.62, 0.88), (-0.62, 0.88)]),
        _rect(_DARK, -0.07, -0.98, 0.07, 0.3),
        (_MAIN, [(0.12, -0.95), (0.85, 0.16), (0.12, 0.16)]),
        (_LIGHT, [(-0.12, -0.7), (-0.12, 0.16), (-0.62, 0.16)]),
    ],
    "fish": [
        _disc(_MAIN, 0.2, 0, 0.78, 0.5),
        (_MAIN, [(-0.4, 0), (-1, -0.6), (-1, 0.6)]),
        (_DARK, [(0.05, -0.42), (0.4, -0.45), (0.0, -0.85)]),
        _disc(_LIGHT, 0.6, -0.12, 0.16, 0.16),
    ],
    "bird": [
        (_MAIN, [(-1, -0.72), (-0.35, -0.5), (0, 0.05), (0, 0.55), (-0.42, 0.3)]),
        (_MAIN, [(1, -0.72), (0.35, -0.5), (0, 0.05), (0, 0.55), (0.42, 0.3)]),
        _disc(_MAIN, 0, 0.1, 0.26, 0.5),
        _disc(_DARK, 0, -0.36, 0.2, 0.2),
        (_LIGHT, [(-0.14, -0.5), (0.14, -0.5), (0, -0.85)]),
    ],
    "tree": [
        _rect(_DARK, -0.17, 0.4, 0.17, 1),
        (_MAIN, [(0, -1), (0.55, -0.25), (-0.55, -0.25)]),
        (_MAIN, [(0, -0.6), (0.72, 0.15), (-0.72, 0.15)]),
        (_MAIN, [(0, -0.2), (0.9, 0.58), (-0.9, 0.58)]),
    ],
    "house": [
        _rect(_MAIN, -0.72, -0.1, 0.72, 0.92),
        (_DARK, [(0, -0.95), (1, -0.08), (-1, -0.08)]),
        _rect(_LIGHT, -0.18, 0.32, 0.18, 0.92),
    ],
    "star": _star(),
    "rocket": [
        (_DARK, [(-0.3, 0.1), (-0.75, 0.72), (-0.3, 0.6)]),
        (_DARK, [(0.3, 0.1), (0.75, 0.72), (0.3, 0.6)]),
        (_MAIN, [(0, -1), (0.34, -0.45), (0.34, 0.62), (-0.34, 0.62), (-0.34, -0.45)]),
        _disc(_LIGHT, 0, -0.22, 0.18, 0.18),
        (_LIGHT, [(-0.2, 0.64), (0.2, 0.64), (0, 1)]),
    ],
}
OBJECTS = tuple(_ICONS)

# Per count: half the side of the square that holds the things, as a share of the frame, and the
# (x, y, radius) of each thing in units of it.
_RADIUS = 0.23
_LAYOUTS: dict[int, tuple[float, list[tuple[float, float, float]]]] = {
    1: (_RADIUS, [(0, 0, 1)]),
    2: (0.36, [(-0.5, 0, 0.47), (0.5, 0, 0.47)]),
    3: (0.36, [(-0.5, 0.47, 0.47), (0.5, 0.47, 0.47), (0, -0.5, 0.47)]),
}
_RELATION_CENTRES = {
    "left of": ((-0.5, 0), (0.5, 0)),
    "right of": ((0.5, 0), (-0.5, 0)),
    "above": ((0, -0.5), (0, 0.5)),
    "below": ((0, 0.5), (0, -0.5)),
}
_PAIR_EXTENT = 0.42


def _thing_texture(scene: Scene, mirrored: bool) -> tuple[npt.NDArray[np.uint8], float]:
    """The scene's things as one premultiplied texture (K, K, 4), and half its side in the frame."""
    if scene.relation is not None:
        extent = _PAIR_EXTENT
        slots = [(x, y, 0.5) for x, y in _RELATION_CENTRES[scene.relation]]
        things = list(scene.things)
    else:
        extent, slots = _LAYOUTS[scene.count]
        things = list(scene.things) * scene.count
    side = round(_ICON_TEXELS * extent / _RADIUS)
    texture = np.zeros((side, side, 4), np.uint8)
    for (colour, thing), (x, y, radius) in zip(things, slots, strict=True):
        icon_side = round(side * radius)
        icon = _icon(thing, colour, icon_side)
        if mirrored:
            icon = icon[:, ::-1]
        left = min(max(round((x + 1) * side / 2 - icon_side / 2), 0), side - icon_side)
        top = min(max(round((y + 1) * side / 2 - icon_side / 2), 0), side - icon_side)
        texture[top : top + icon_side, left : left + icon_side] = icon
    return texture, extent


@lru_cache(maxsize=1024)
def _icon(thing: str, colour: str, side: int) -> npt.NDArray[np.uint8]:
    """Icon of a thing, premultiplied RGB and coverage: (side, side, 4) uint8."""
    base = np.array(COLOURS[colour])
    dark = (70, 70, 78) if colour == "black" else tuple(int(v) for v in base * 9 // 20)
    light = (150, 150, 158) if colour in ("white", "black") else (244, 244, 238)
    palette = {_MAIN: COLOURS[colour], _DARK: dark, _LIGHT: light}
    fine_side = side * _OVERSAMPLE
    grid = (np.arange(fine_side) + 0.5) * 2 / fine_side - 1
    canvas = np.zeros((fine_side, fine_side, 4), np.int32)
    for role, points in _ICONS[thing]:
        canvas[_inside_polygon(points, grid)] = (*palette[role], 255)
    blocks = canvas.reshape(side, _OVERSAMPLE, side, _OVERSAMPLE, 4)
    icon: npt.NDArray[np.uint8] = (blocks.sum(axis=(1, 3)) // _OVERSAMPLE**2).astype(np.uint8)
    return icon


def _inside_polygon(points: Sequence[tuple[float, float]], grid: npt.NDArray[np.float64]) -> Any:
    """Even-odd test of every grid point (y down the rows) against a polygon."""
    y, x = grid[:, None], grid[None, :]
    inside = np.zeros((len(grid), len(grid)), bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


# --- Places -------------------------------------------------------------------------------

Canvas = npt.NDArray[np.uint8]


def _background(place: str, size: int, rng: np.random.Generator) -> Canvas:
    """Background of a place with random details: (size, size, 3)."""
    canvas = np.zeros((size, size, 3), np.uint8)
    _PAINTERS[place](canvas, rng)
    return canvas


def _fill_rows(canvas: Canvas, top: float, bottom: float, colour: tuple[int, int, int]) -> None:
    size = len(canvas)
    canvas[round(top * size) : round(bottom * size)] = colour


def _fill_ellipse(
    canvas: Canvas, x: float, y: float, rx: float, ry: float, colour: tuple[int, int, int]
) -> None:
    centres = (np.arange(len(canvas)) + 0.5) / len(canvas)
    canvas[((centres[None, :] - x) / rx) ** 2 + ((centres[:, None] - y) / ry) ** 2 < 1] = colour


def _fill_triangle(
    canvas: Canvas, x: float, top: float, bottom: float, half: float, colour: tuple[int, int, int]
) -> None:
    centres = (np.arange(len(canvas)) + 0.5) / len(canvas)
    depth = (centres[:, None] - top) / (bottom - top)  # 0 at the tip, 1 at the base
    canvas[(depth > 0) & (depth < 1) & (np.abs(centres[None, :] - x) < half * depth)] = colour


def _beach(canvas: Canvas, rng: np.random.Generator) -> None:
    horizon = 0.3 + 0.06 * rng.random()
    shore = horizon + 0.25
    _fill_rows(canvas, 0, horizon, (176, 224, 246))
    _fill_rows(canvas, horizon, shore, (52, 168, 196))
    _fill_rows(canvas, shore, shore + 0.03, (236, 246, 246))
    _fill_rows(canvas, shore + 0.03, 1, (238, 216, 160))
    _fill_ellipse(canvas, rng.uniform(0.1, 0.9), 0.12, 0.08, 0.08, (255, 246, 170))


def _night_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas[:] = (14, 16, 46)
    size = len(canvas)
    spots = rng.integers(0, size, (30, 2))
    canvas[spots[:, 0], spots[:, 1]] = (206, 206, 216)
    x, y = rng.choice([0.14, 0.86]), rng.uniform(0.1, 0.2)
    _fill_ellipse(canvas, x, y, 0.11, 0.11, (226, 224, 196))
    _fill_ellipse(canvas, x + 0.05, y - 0.02, 0.1, 0.1, (14, 16, 46))


def _snow(canvas: Canvas, rng: np.random.Generator) -> None:
    _fill_rows(canvas, 0, 1, (206, 218, 232))
    _fill_ellipse(canvas, rng.uniform(0.1, 0.4), 1.0, 0.7, 0.4, (242, 246, 252))
    _fill_ellipse(canvas, rng.uniform(0.6, 0.9), 1.05, 0.6, 0.5, (232, 240, 250))
    spots = rng.integers(0, len(canvas), (46, 2))
    canvas[spots[:, 0], spots[:, 1]] = (255, 255, 255)


def _forest(canvas: Canvas, rng: np.random.Generator) -> None:
    _fill_rows(canvas, 0, 0.72, (118, 158, 112))
    _fill_rows(canvas, 0.72, 1, (74, 96, 54))
    for x in np.linspace(0.02, 0.98, 7) + rng.uniform(-0.05, 0.05, 7):
        top = rng.uniform(0.02, 0.2)
        shade = int(rng.integers(0, 20))
        _fill_triangle(
            canvas, float(x), float(top), 0.8, 0.12, (34 + shade, 84 + shade, 46 + shade)
        )


def _desert(canvas: Canvas, rng: np.random.Generator) -> None:
    _fill_rows(canvas, 0, 0.45, (252, 214, 158))
    _fill_rows(canvas, 0.45, 1, (222, 172, 98))
    _fill_ellipse(canvas, rng.uniform(0.0, 0.4), 0.62, 0.5, 0.2, (206, 150, 80))
    _fill_ellipse(canvas, rng.uniform(0.6, 1.0), 0.8, 0.5, 0.24, (212, 160, 88))
    _fill_ellipse(canvas, rng.uniform(0.15, 0.85), 0.14, 0.09, 0.09, (255, 244, 214))


def _city(canvas: Canvas, rng: np.random.Generator) -> None:
    _fill_rows(canvas, 0, 0.84, (196, 202, 212))
    _fill_rows(canvas, 0.84, 1, (104, 104, 110))
    size = len(canvas)
    for k in range(5):
        top, shade = rng.uniform(0.08, 0.46), int(rng.integers(0, 26))
        left, right = round(size * (0.2 * k + 0.01)), round(size * (0.2 * k + 0.185))
        block = canvas[round(top * size) : round(0.84 * size), left:right]
        block[:] = (132 + shade, 138 + shade, 150 + shade)
        block[2::6, 2:-2:3] = (216, 214, 190)


_PAINTERS: dict[str, Callable[[Canvas, np.random.Generator], None]] = {
    "beach": _beach,
    "night sky": _night_sky,
    "snow": _snow,
    "forest": _forest,
    "desert": _desert,
    "city": _city,
}
