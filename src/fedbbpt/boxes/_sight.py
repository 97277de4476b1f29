"""How a model that takes pictures wants them: resized and cropped, once for each picture."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError, MissingExtra
from fedbbpt.types import Picture

KEPT = 1 << 29
"""Bytes of fitted pictures that are kept: 3,500 of 224 x 224."""
WAYS = ("squash", "crop")


class Sight:
    """Fits pictures; a :class:`fedbbpt.senses.Vision`.

    Args:
        size: (H, W) of the model's input.
        way: ``"squash"``: the whole picture, its sides scaled apart; ``"crop"``: the shorter side
            is scaled to ``edge``, the middle cut out.
        edge: pixels; those of ``size`` if 0.
        resample: as Pillow counts: 2 bilinear, 3 bicubic.
        std: standard deviations by which the model divides red, green and blue, in [0, 1].
    """

    def __init__(
        self,
        size: tuple[int, int],
        way: str = "squash",
        edge: int = 0,
        resample: int = 2,
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
    ) -> None:
        if way not in WAYS:
            raise ConfigError(f"box.resize is '{way}'; known: {', '.join(WAYS)}")
        self.size, self.way, self.resample, self.std = size, way, resample, std
        self.edge = edge or min(size)
        if way == "crop" and self.edge < max(size):
            raise ConfigError(f"box.edge is {edge}, less than the model's input of {size}")
        self._kept: OrderedDict[bytes, Array] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What decides how a picture is seen; part of a box's name."""
        height, width = self.size
        edge = f"{self.edge}" if self.way == "crop" else ""
        return f"{self.way}{edge}-{height}x{width}-{self.resample}"

    def fit(self, picture: Picture) -> Array:
        """(H, W, 3) float32 in [0, 1]."""
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
        try:
            from PIL import Image
        except ImportError:
            raise MissingExtra("pillow", "vision") from None
        height, width = self.size
        image = Image.fromarray(picture.pixels)
        resample = Image.Resampling(self.resample)
        if self.way == "squash":
            return np.asarray(image.resize((width, height), resample))
        scale = self.edge / min(image.size)
        large = tuple(max(self.edge, round(side * scale)) for side in image.size)
        pixels = np.asarray(image.resize((large[0], large[1]), resample))
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def preprocessor(folder: Path) -> Mapping[str, Any]:
    """What a model's own ``preprocessor_config.json`` says; nothing where it has none."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return {}
    found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
