"""What mPLUG-2's released training does to a clip: crop, flip, and N random operations.

The released settings are a crop of half to all of the area, bicubic, a flip of one clip in two,
and 2 of 9 operations at magnitude 5 of 10. At that magnitude the factor of contrast, brightness
and sharpness is 5 / 10 * 1.8 + 0.1 = 1, which changes nothing: with identity, four of the nine do
nothing. Shear is 0.15, a move 5 pixels, a turn 15 degrees, always in the same direction.

Three things are not as released. Bicubic overshoot is clamped to 0-255, where the released code
wraps it around. The crop is taken from frames that were already resized to the model's size,
because that is what is kept in memory. Contrast, brightness and sharpness are Pillow's, the same
where the factor is 1. Each drawn operation is done; what a move uncovers is grey.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from atom_repro.datatypes import AtomError

OPERATIONS = (
    "identity", "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x",
    "translate_y", "rotate",
)  # fmt: skip
_ENHANCE = {
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}
_LARGEST = 10  # magnitudes are of so many
_GREY = (128, 128, 128)
_TRIES = 10  # at a crop of a drawn shape, before the whole picture is taken


@dataclass(frozen=True)
class Change:
    """What is done to one clip: a crop in pixels, a flip, and operations in order."""

    left: int
    top: int
    width: int
    height: int
    flip: bool
    operations: tuple[str, ...]


@dataclass(frozen=True)
class MPlug2Augmentation:
    """`scale` is the crop's share of the area, `ratio` its width to height, both ends included;
    `flip` a probability; `operations` how many different ones; `magnitude` theirs, of 10."""

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    operations: int
    magnitude: int

    def draw(self, rng: np.random.Generator, size: int) -> Change:
        left, top, width, height = self._crop(rng, size)
        flip = bool(rng.random() < self.flip)
        chosen = rng.choice(len(OPERATIONS), self.operations, replace=False)
        return Change(left, top, width, height, flip, tuple(OPERATIONS[i] for i in chosen))

    def apply(self, pixels: NDArray[np.uint8], drawn: Change) -> NDArray[np.uint8]:
        """(T, S, S, 3) to the same shape."""
        return np.stack([self._frame(Image.fromarray(frame), drawn) for frame in pixels])

    def _crop(self, rng: np.random.Generator, size: int) -> tuple[int, int, int, int]:
        """Left, top, width and height; the shape is uniform in its logarithm."""
        for _ in range(_TRIES):
            area = size * size * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= size and 0 < height <= size:
                top, left = rng.integers(0, (size - height + 1, size - width + 1))
                return int(left), int(top), width, height
        return 0, 0, size, size

    def _frame(self, picture: Image.Image, drawn: Change) -> NDArray[np.uint8]:
        size = picture.size
        right, bottom = drawn.left + drawn.width, drawn.top + drawn.height
        picture = picture.crop((drawn.left, drawn.top, right, bottom))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
        if drawn.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for name in drawn.operations:
            picture = operate(picture, name, self.magnitude)
        return np.asarray(picture, np.uint8)


def operate(picture: Image.Image, name: str, magnitude: int) -> Image.Image:
    """One of `OPERATIONS` at a magnitude of 0 to 10."""
    share = magnitude / _LARGEST
    if name == "identity":
        return picture
    if name in _ENHANCE:
        return _ENHANCE[name](picture).enhance(share * 1.8 + 0.1)
    if name == "rotate":
        return picture.rotate(share * 30, Image.Resampling.BILINEAR, fillcolor=_GREY)
    shear, move = share * 0.3, share * 10
    # A row each of x and y in the picture before, by x, y and 1 in the one after.
    x, y = {
        "shear_x": ((1.0, -shear, 0.0), (0.0, 1.0, 0.0)),
        "shear_y": ((1.0, 0.0, 0.0), (-shear, 1.0, 0.0)),
        "translate_x": ((1.0, 0.0, move), (0.0, 1.0, 0.0)),
        "translate_y": ((1.0, 0.0, 0.0), (0.0, 1.0, move)),
    }[name]
    # Pillow's coordinates are of a pixel's corner, those above of its centre.
    (a, b, c), (d, e, f) = ((*row[:2], row[2] - (row[0] + row[1]) / 2 + 0.5) for row in (x, y))
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        (a, b, c, d, e, f),
        Image.Resampling.BILINEAR,
        fillcolor=_GREY,
    )


def build(
    *, scale: list[float], ratio: list[float], flip: float, operations: int, magnitude: int
) -> MPlug2Augmentation:
    """See `MPlug2Augmentation`.

    Raises:
        AtomError: a value outside of its range; names the key.
    """
    for key, fits, takes in (
        ("scale", _is_range(scale) and scale[1] <= 1, "two shares in order, above 0 to 1"),
        ("ratio", _is_range(ratio), "two ratios in order, above 0"),
        ("flip", 0 <= flip <= 1, "a probability"),
        ("operations", 0 <= operations <= len(OPERATIONS), f"0 to {len(OPERATIONS)}"),
        ("magnitude", 0 <= magnitude <= _LARGEST, f"0 to {_LARGEST}"),
    ):
        if not fits:
            raise AtomError(f"augmentation.{key} takes {takes}")
    return MPlug2Augmentation(
        (scale[0], scale[1]), (ratio[0], ratio[1]), flip, operations, magnitude
    )


def _is_range(ends: list[float]) -> bool:
    return len(ends) == 2 and 0 < ends[0] <= ends[1]
