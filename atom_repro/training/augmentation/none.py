"""Frames as they were decoded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Unchanged:
    def draw(self, rng: np.random.Generator, size: int) -> None:
        """Nothing is drawn, so `rng` stays where it was."""

    def apply(self, pixels: NDArray[np.uint8], drawn: None) -> NDArray[np.uint8]:
        return pixels


def build() -> Unchanged:
    return Unchanged()
