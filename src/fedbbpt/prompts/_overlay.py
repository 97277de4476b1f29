"""Something laid over every picture: waves over all of it, or a frame around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.types import Picture, digest


@dataclass(frozen=True, eq=False)
class Overlay:
    """Adds the same to every picture and cuts off what leaves the range.

    Attributes:
        delta: (H, W, 3) float32, in units of the whole range.
    """

    delta: Array

    @property
    def arrays(self) -> Arrays:
        """The overlay."""
        return {"overlay": self.delta}

    @property
    def facts(self) -> Mapping[str, Any]:
        """Nothing else."""
        return {"prompt": "visual"}

    @cached_property
    def key(self) -> bytes:
        """Digest of the overlay."""
        return digest("overlay", repr(self.delta.shape), self.delta.tobytes())

    def on(self, images: Array, pictures: Sequence[Picture]) -> Array:
        """The prompted images, (B, H, W, 3) float32 in [0, 1]."""
        moved = images + self.delta
        return np.clip(moved, 0.0, 1.0, out=moved)


def waves(size: tuple[int, int], number: int) -> Array:
    """(number**2, H * W) float32: the lowest two-dimensional cosines (DCT-II), mean square one."""
    height, width = size
    rows, columns = _cosines(height, number), _cosines(width, number)
    both = rows[:, None, :, None] * columns[None, :, None, :]
    return both.reshape(number * number, height * width).astype(np.float32)


def _cosines(length: int, number: int) -> Array:
    """(number, length), each with mean square one."""
    place = (np.arange(length) + 0.5) * np.pi / length
    waves = np.cos(np.arange(number)[:, None] * place)
    waves[1:] *= np.sqrt(2.0)
    return np.asarray(waves)


def frame(size: tuple[int, int], width: int) -> Array:
    """(H, W) bool: true on a border of ``width`` pixels."""
    inside = np.ones(size, bool)
    inside[width : size[0] - width, width : size[1] - width] = False
    return inside
