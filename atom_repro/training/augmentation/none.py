"""No augmentation: frames as they were decoded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class NoAugmentation:
    def draw(self, rng: np.random.Generator, size: int) -> None:
        """Draw nothing, so the state of `rng` does not change."""

    def apply(self, pixels: NDArray[np.uint8], parameters: None) -> NDArray[np.uint8]:
        return pixels


def build() -> NoAugmentation:
    return NoAugmentation()
