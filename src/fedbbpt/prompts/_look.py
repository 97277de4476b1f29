"""How a picture is looked at: nine numbers for its geometry, its colours and its sharpness.

A search by differences learns few numbers well and many not at all: at 20,000 queries these nine
move the accuracy of a classifier, a frame of 60,000 pixels does not (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.types import Picture, digest

NUMBERS = 9
MIDDLE = 128
"""Grey outside the picture, and what contrast and gamma leave where it is."""
STEPS = (0.4, 0.2, 0.15, 0.15, 0.5, 0.2, 0.5, 1.0, 0.5)
"""What one unit is: of the logarithm of zoom and of aspect, of the shifts in sides of the picture,
of the logarithm of contrast, of brightness in the range, of the logarithm of gamma, of saturation
and of sharpness in parts of what is there. A unit of each changes answers about as much."""
BLUR = 2
"""Radius of what sharpness adds or takes away, in pixels."""
FAR = 50.0
"""Numbers count up to here, so that a search that strays far off still gets pictures."""


@dataclass(frozen=True, eq=False)
class Look:
    """Zoom, aspect, shift right and down, contrast, brightness, gamma, saturation, sharpness.

    As they grow, the middle gets larger, the whole wider and flatter, the view moves to the right
    and down (so what is seen moves left and up), contrast and brightness rise, middle tones get
    darker, colours stronger, edges sharper.

    Attributes:
        point: (9,) float64, in units of ``STEPS``; zeros leave a picture as it is.
    """

    point: Array

    @property
    def arrays(self) -> Arrays:
        """The nine numbers."""
        return {"look": self.point}

    @property
    def facts(self) -> Mapping[str, Any]:
        """Nothing else."""
        return {"prompt": "visual"}

    @cached_property
    def _moves(self) -> Array:
        return np.clip(self.point, -FAR, FAR) * STEPS

    @cached_property
    def key(self) -> bytes:
        """Digest of the nine numbers."""
        return digest("look", self.point.tobytes())

    def on(self, images: Array, pictures: Sequence[Picture]) -> Array:
        """The prompted images, (B, H, W, 3) float32 in [0, 1], in the 256 steps of a file."""
        pixels = (images * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        seen = np.array([self._one(image) for image in pixels])
        return seen.astype(np.float32) / np.float32(255)

    def _one(self, pixels: Array) -> Array:
        from PIL import Image, ImageEnhance, ImageFilter

        saturation, sharpness = self._moves[7:]
        image = self._moved(Image.fromarray(pixels))
        image = image.point(self._curve * 3)
        image = ImageEnhance.Color(image).enhance(1.0 + saturation)
        blurred = image.filter(ImageFilter.BoxBlur(BLUR))
        return np.asarray(Image.blend(blurred, image, 1.0 + sharpness))

    def _moved(self, image: Any) -> Any:
        """What is seen of the picture and its grey surroundings, as large as it was."""
        from PIL import Image

        zoom, aspect, right, down = self._moves[:4]
        width, height = image.size
        part = np.exp([-zoom - aspect, -zoom + aspect])  # of the picture's width and height
        middle = np.array([0.5 + right, 0.5 + down])
        seen = np.concatenate([middle - part / 2, middle + part / 2])
        inside = np.clip(seen, 0.0, 1.0)
        # Where the part that is inside comes to stand, in pixels.
        span = np.tile(part, 2)
        to = np.rint((inside - np.tile(seen[:2], 2)) / span * np.tile([width, height], 2)).astype(
            int
        )
        size = (int(to[2] - to[0]), int(to[3] - to[1]))
        new = Image.new("RGB", image.size, (MIDDLE,) * 3)
        box = inside * np.tile([width, height], 2)
        if min(size) > 0 and min(box[2:] - box[:2]) > 0:
            shown = image.resize(size, Image.Resampling.BILINEAR, tuple(map(float, box)))
            new.paste(shown, (int(to[0]), int(to[1])))
        return new

    @cached_property
    def _curve(self) -> list[int]:
        """256 values: contrast, brightness and gamma of one colour."""
        contrast, brightness, gamma = self._moves[4:7]
        level = (np.arange(256) - MIDDLE) / 255 * np.exp(contrast) + MIDDLE / 255 + brightness
        curved = np.clip(level, 0.0, 1.0) ** np.exp(gamma)
        return [int(v) for v in np.rint(255 * curved)]
