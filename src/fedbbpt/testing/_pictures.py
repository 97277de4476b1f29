"""Pictures and visual prompts for the laws of boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.random import stream
from fedbbpt.types import Picture, digest

SIZES = ((20, 33), (48, 20), (7, 7), (1, 1))
PICTURES = tuple(
    Picture(stream(n, "kit pictures").integers(0, 256, (*size, 3), np.uint8), f"{n}.png")
    for n, size in enumerate(SIZES)
)
"""Noise: wide, tall, smaller than a model's input, and a single pixel."""


@dataclass(frozen=True)
class Shade:
    """A visual prompt that makes pictures redder, the more so the darker they are; a
    :class:`fedbbpt.types.Pixels`.

    Attributes:
        strength: added to the red of a black picture, taken from its blue.
    """

    strength: float

    @property
    def key(self) -> bytes:
        """Digest of the strength."""
        return digest("shade", repr(self.strength))

    @property
    def arrays(self) -> Arrays:
        """Nothing was learned."""
        return {}

    @property
    def facts(self) -> Mapping[str, Any]:
        """The strength; no prompt makes it again."""
        return {"strength": self.strength}

    def on(self, images: Array, pictures: Sequence[Picture]) -> Array:
        """The prompted images, (B, H, W, 3) float32 in [0, 1]."""
        light = np.array([picture.pixels.mean() / 255 for picture in pictures], np.float32)
        shift = np.array([self.strength, 0.0, -self.strength], np.float32)
        moved: Array = images + (1 - light)[:, None, None, None] * shift
        return moved.clip(0.0, 1.0)
