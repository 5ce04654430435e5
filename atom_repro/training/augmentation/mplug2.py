"""Augmentation of mPLUG-2's released training: crop, flip, and N random operations.

The released settings are a crop of half to all of the area, bicubic, a flip of one clip in two,
and 2 of 9 operations at magnitude 5 of 10. At that magnitude the factor of contrast, brightness
and sharpness is 5 / 10 * 1.8 + 0.1 = 1, which changes nothing: with identity, four of the nine do
nothing. Shear is 0.15, a move 5 pixels, a turn 15 degrees, always in the same direction.

Three differences from the release. Bicubic overshoot is clamped to 0-255, where the released code
wraps it around. The crop is taken from frames that were already resized to the model's size,
because those are what is cached. Contrast, brightness and sharpness are Pillow's, the same where
the factor is 1. Every drawn operation is applied; uncovered pixels are grey.
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
_MAX_MAGNITUDE = 10
_GREY = (128, 128, 128)
_CROP_ATTEMPTS = 10  # before the whole image is taken


@dataclass(frozen=True)
class ClipTransform:
    """Drawn transform of one clip: a crop in pixels, a flip, and operations in order."""

    left: int
    top: int
    width: int
    height: int
    flip: bool
    operations: tuple[str, ...]


@dataclass(frozen=True)
class MPlug2Augmentation:
    """Released settings: `scale` is the range of the crop's share of the area, `ratio` that of its
    width to height; `flip` a probability; `operations` a number; `magnitude` theirs, of 10."""

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    operations: int
    magnitude: int

    def draw(self, rng: np.random.Generator, size: int) -> ClipTransform:
        left, top, width, height = self._crop(rng, size)
        flip = bool(rng.random() < self.flip)
        chosen = rng.choice(len(OPERATIONS), self.operations, replace=False)
        return ClipTransform(left, top, width, height, flip, tuple(OPERATIONS[i] for i in chosen))

    def apply(self, pixels: NDArray[np.uint8], transform: ClipTransform) -> NDArray[np.uint8]:
        """Transform a clip (T, S, S, 3) to the same shape."""
        return np.stack([self._frame(Image.fromarray(frame), transform) for frame in pixels])

    def _crop(self, rng: np.random.Generator, size: int) -> tuple[int, int, int, int]:
        """Draw left, top, width and height; the aspect ratio is log-uniform."""
        for _ in range(_CROP_ATTEMPTS):
            area = size * size * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= size and 0 < height <= size:
                top, left = rng.integers(0, (size - height + 1, size - width + 1))
                return int(left), int(top), width, height
        return 0, 0, size, size

    def _frame(self, image: Image.Image, transform: ClipTransform) -> NDArray[np.uint8]:
        size = image.size
        right, bottom = transform.left + transform.width, transform.top + transform.height
        image = image.crop((transform.left, transform.top, right, bottom))
        image = image.resize(size, Image.Resampling.BICUBIC)
        if transform.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for name in transform.operations:
            image = apply_operation(image, name, self.magnitude)
        return np.asarray(image, np.uint8)


def apply_operation(image: Image.Image, name: str, magnitude: int) -> Image.Image:
    """Apply one of `OPERATIONS` at a magnitude of 0 to 10."""
    share = magnitude / _MAX_MAGNITUDE
    if name == "identity":
        return image
    if name in _ENHANCE:
        return _ENHANCE[name](image).enhance(share * 1.8 + 0.1)
    if name == "rotate":
        return image.rotate(share * 30, Image.Resampling.BILINEAR, fillcolor=_GREY)
    shear, move = share * 0.3, share * 10
    # Rows of the affine map from output (x, y, 1) to input x and y.
    x, y = {
        "shear_x": ((1.0, -shear, 0.0), (0.0, 1.0, 0.0)),
        "shear_y": ((1.0, 0.0, 0.0), (-shear, 1.0, 0.0)),
        "translate_x": ((1.0, 0.0, move), (0.0, 1.0, 0.0)),
        "translate_y": ((1.0, 0.0, 0.0), (0.0, 1.0, move)),
    }[name]
    # Pillow's coordinates are those of a pixel's corner, the rows above use its centre.
    (a, b, c), (d, e, f) = ((*row[:2], row[2] - (row[0] + row[1]) / 2 + 0.5) for row in (x, y))
    return image.transform(
        image.size,
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
        AtomError: a value out of range; names the key.
    """
    for key, valid, expected in (
        ("scale", _is_valid_range(scale) and scale[1] <= 1, "two shares in order, above 0 to 1"),
        ("ratio", _is_valid_range(ratio), "two ratios in order, above 0"),
        ("flip", 0 <= flip <= 1, "a probability"),
        ("operations", 0 <= operations <= len(OPERATIONS), f"0 to {len(OPERATIONS)}"),
        ("magnitude", 0 <= magnitude <= _MAX_MAGNITUDE, f"0 to {_MAX_MAGNITUDE}"),
    ):
        if not valid:
            raise AtomError(f"augmentation.{key} takes {expected}")
    return MPlug2Augmentation(
        (scale[0], scale[1]), (ratio[0], ratio[1]), flip, operations, magnitude
    )


def _is_valid_range(ends: list[float]) -> bool:
    return len(ends) == 2 and 0 < ends[0] <= ends[1]
