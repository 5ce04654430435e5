"""Random shift of a clip by a few pixels; the border is repeated.

A shift leaves every word of a caption true, which a flip would not ("to the left").
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import AtomError


@dataclass(frozen=True)
class Shift:
    """Shift by up to `pixels` in either direction, vertically and horizontally."""

    pixels: int

    def draw(self, rng: np.random.Generator, size: int) -> tuple[int, int]:
        """Draw the shift in pixels: down and right."""
        down, right = rng.integers(-self.pixels, self.pixels + 1, 2)
        return int(down), int(right)

    def apply(self, pixels: NDArray[np.uint8], parameters: tuple[int, int]) -> NDArray[np.uint8]:
        """Shift a clip (T, S, S, 3)."""
        size = pixels.shape[1]
        rows, columns = (np.clip(np.arange(size) - offset, 0, size - 1) for offset in parameters)
        return pixels[:, rows][:, :, columns]


def build(*, pixels: int) -> Shift:
    """See `Shift`.

    Raises:
        AtomError: `pixels` is negative.
    """
    if pixels < 0:
        raise AtomError(f"augmentation.pixels={pixels} is below 0; augmentation=none moves nothing")
    return Shift(pixels)
