"""How a model that takes pictures wants them: resized and cropped, once for each picture."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError, DataError, MissingExtra
from fedbbpt.types import Picture

KEPT = 1 << 29
"""Bytes of fitted pictures that are kept: 3,500 of 224 x 224."""
WAYS = ("squash", "crop")
STRIP = 16
"""Of a picture this many times as long as wide only the middle is resized."""


class Sight:
    """Fits pictures; a :class:`fedbbpt.senses.Vision`.

    Args:
        size: (H, W) of the model's input.
        way: ``"squash"``: the whole picture, its sides scaled apart, both to ``edge``; ``"crop"``:
            the shorter side is scaled to ``edge``. What is larger than ``size`` loses its margins.
        edge: pixels; those of ``size`` if 0.
        resample: as Pillow counts: 2 bilinear, 3 bicubic.
        std: standard deviations by which the model divides red, green and blue, in [0, 1].

    Raises:
        ConfigError: there is no such way, or ``edge`` is less than ``size``.
        MissingExtra: Pillow is not installed.
    """

    def __init__(
        self,
        size: tuple[int, int],
        way: str = "squash",
        edge: int = 0,
        resample: int = 2,
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
    ) -> None:
        try:
            import PIL  # noqa: F401
        except ImportError:
            raise MissingExtra("pillow", "vision") from None
        if way not in WAYS:
            raise ConfigError(f"box.resize is '{way}'; known: {', '.join(WAYS)}")
        self.size, self.way, self.resample, self.std = size, way, resample, std
        self.edge = edge or (max(size) if way == "crop" else 0)
        if self.edge and self.edge < max(size):
            raise ConfigError(f"box.edge is {edge}, less than the model's input of {size}")
        self._kept: OrderedDict[bytes, Array] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What decides how a picture is seen; part of a box's name."""
        height, width = self.size
        return f"{self.way}{self.edge or ''}-{height}x{width}-{self.resample}"

    def fit(self, picture: Picture) -> Array:
        """(H, W, 3) float32 in [0, 1].

        Raises:
            DataError: the picture's pixels are not (H, W, 3) uint8.
        """
        with self._lock:
            known = self._kept.get(picture.key)
        if known is None:
            known = self._fit(picture)
            with self._lock:
                self._kept[picture.key] = known
                while len(self._kept) * known.nbytes > KEPT:
                    self._kept.popitem(last=False)
        return known.astype(np.float32) / np.float32(255)

    def _fit(self, picture: Picture) -> Array:
        from PIL import Image

        pixels = picture.pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise DataError(
                f"the picture '{picture.name}' is {pixels.dtype} of shape {pixels.shape}; it must "
                "be uint8 of (H, W, 3)"
            )
        height, width = self.size
        image = Image.fromarray(pixels)
        resample = Image.Resampling(self.resample)
        rows, columns = self._scaled(*pixels.shape[:2])
        top, left = (rows - height) // 2, (columns - width) // 2
        if max(rows, columns) > STRIP * self.edge > 0:
            # The whole would fill the memory; its middle differs in rounding alone.
            down, across = pixels.shape[0] / rows, pixels.shape[1] / columns
            box = (left * across, top * down, (left + width) * across, (top + height) * down)
            return np.asarray(image.resize((width, height), resample, box))
        large = np.asarray(image.resize((columns, rows), resample))
        return np.ascontiguousarray(large[top : top + height, left : left + width])

    def _scaled(self, rows: int, columns: int) -> tuple[int, int]:
        """(H, W) of the whole picture in the model's scale; the longer side cut to whole pixels,
        as torchvision and transformers do.
        """
        if self.way == "squash":
            return (self.edge, self.edge) if self.edge else self.size
        shorter = min(rows, columns)
        return self.edge * rows // shorter, self.edge * columns // shorter
