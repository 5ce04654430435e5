"""Move a clip by a few pixels; the border is repeated.

A shift leaves every word of a caption true, which a flip would not ("to the left").
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atom_repro.datatypes import AtomError


@dataclass(frozen=True)
class Shift:
    """By up to `pixels` either way, down and right apart."""

    pixels: int

    def draw(self, rng: np.random.Generator, size: int) -> tuple[int, int]:
        """Pixels down and to the right."""
        down, right = rng.integers(-self.pixels, self.pixels + 1, 2)
        return int(down), int(right)

    def apply(self, pixels: NDArray[np.uint8], drawn: tuple[int, int]) -> NDArray[np.uint8]:
        """(T, S, S, 3) moved by what was drawn."""
        size = pixels.shape[1]
        rows, columns = (np.clip(np.arange(size) - move, 0, size - 1) for move in drawn)
        return pixels[:, rows][:, :, columns]


def build(*, pixels: int) -> Shift:
    """See `Shift`.

    Raises:
        AtomError: fewer than no pixels.
    """
    if pixels < 0:
        raise AtomError(f"augmentation.pixels={pixels} is below 0; augmentation=none moves nothing")
    return Shift(pixels)
