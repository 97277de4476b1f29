"""A visual prompt: what is done to every picture before the model sees it.

``look``: nine numbers for geometry, colours and sharpness. ``patch``: waves added to the whole
picture. ``frame``: a border (visual prompting: Bahng et al. 2022, BAR: Tsai et al., ICML 2020).
``coordinator``: each picture gets its own from a small decoder behind a frozen local encoder
(BlackVIP: Oh et al., CVPR 2023).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import ConfigError
from fedbbpt.prompts._coordinator import Coordinated, Coordinator
from fedbbpt.prompts._look import NUMBERS, Look
from fedbbpt.prompts._overlay import Overlay, frame, waves
from fedbbpt.prompts._template import gap_of
from fedbbpt.protocols import Prompt
from fedbbpt.senses import Vision
from fedbbpt.types import Pixels, RenderedPrompt, Space

FORMS = ("look", "patch", "frame", "coordinator")


class Visual(Prompt):
    """A change of every picture; the zero point changes nothing.

    Args:
        vision: how the box sees pictures.
        template: the text around a label, of a box that reads labels as text.
        labels: one text per class.
        side: ``"image"``.
        form: ``"look"``, ``"patch"``, ``"frame"`` or ``"coordinator"``.
        waves: a patch or frame is spanned by this many cosines along each axis, for each colour:
            few numbers that each move much of the picture can be learned by differences. 0 gives
            every pixel numbers of its own, as published.
        width: of the frame, in pixels; 30 as published (Bahng et al. 2022).
        eps: root mean square of a patch or frame at a standard normal point, in units of the range;
            of a coordinator the factor p_eps on what it makes, in the model's normalised units.
        encoder: of a coordinator: ``"pixels"``, the picture in 16 x 16 pixels, or the folder or
            hub name of a transformers vision model such as facebook/vit-mae-base.
        mapping: (C, S), see :class:`fedbbpt.types.RenderedPrompt`.
        seed: makes a coordinator's first weights.

    Raises:
        ConfigError: an option is out of range.
    """

    sends = frozenset({"image"})
    maps = True

    def __init__(
        self,
        vision: Vision,
        template: str,
        labels: Sequence[str],
        side: str = "image",
        form: str = "look",
        waves: int = 4,
        width: int = 30,
        eps: float = 0.1,
        encoder: str = "pixels",
        mapping: Array | None = None,
        seed: int = 0,
    ) -> None:
        if side != "image":
            raise ConfigError(f"prompt.side is '{side}'; visual prompts stand on side = 'image'")
        gap_of(template, side)
        if form not in FORMS:
            raise ConfigError(f"prompt.form is '{form}'; known: {', '.join(FORMS)}")
        if not 0 < eps < math.inf:
            raise ConfigError(f"prompt.eps is {eps}; it must be above 0")
        if not 0 <= waves <= min(vision.size):
            raise ConfigError(f"prompt.waves is {waves}; take 0 to {min(vision.size)}")
        if form == "frame" and not 0 < 2 * width < min(vision.size):
            raise ConfigError(
                f"prompt.width is {width}; a frame in {vision.size} pixels must leave a middle"
            )
        self.template, self.labels, self.mapping = template, tuple(labels), mapping
        self.size, self.eps, self.form = vision.size, eps, form
        self.coordinator: Coordinator | None = None
        if form == "coordinator":
            self.coordinator = Coordinator(encoder, vision.size, vision.std, eps, seed)
            self.space = Space("real", (self.coordinator.parameters,))
            return
        if form == "look":
            self.space = Space("real", (NUMBERS,))
            return
        self.inside = frame(vision.size, width) if form == "frame" else np.ones(vision.size, bool)
        self.basis = _basis(self.inside, waves)
        self.space = Space("real", (3 * (waves * waves or int(self.inside.sum())),))

    def render(self, points: Array) -> list[RenderedPrompt]:
        """K prompts from (K, dim) points. Pure; equal points, equal prompts."""
        return [
            RenderedPrompt(
                self.template,
                self.labels,
                "image",
                # A copy, for the caller may use the array again, and no zero with a sign.
                visual=self._visual(np.asarray(point, np.float64) + 0.0),
                mapping=self.mapping,
            )
            for point in points
        ]

    def mapped(self, mapping: Array) -> Visual:
        """The same prompt over another label mapping."""
        other = object.__new__(type(self))
        other.__dict__ = {**self.__dict__, "mapping": mapping}
        return other

    def _visual(self, point: Array) -> Pixels | None:
        if not point.any():
            return None
        if self.coordinator is not None:
            return self.coordinator.at(point)
        if self.form == "look":
            return Look(point)
        colours = point.reshape(3, -1)
        delta = np.zeros((*self.size, 3), np.float32)
        if self.basis is None:
            delta[self.inside] = self.eps * colours.T
        else:
            # Not "@": in a BLAS product the last bits change with the number of threads.
            laid = np.einsum("cn,np->pc", colours.astype(np.float32), self.basis)
            delta[self.inside] = self.eps * laid
        return Overlay(delta)

    @classmethod
    def restored(cls, facts: Mapping[str, Any], arrays: Arrays) -> Pixels:
        """What :func:`fedbbpt.artefact.save` wrote of a visual prompt."""
        if "overlay" in arrays:
            return Overlay(arrays["overlay"])
        if "look" in arrays:
            return Look(arrays["look"])
        return Coordinated.restored(facts, arrays)


def _basis(inside: Array, number: int) -> Array | None:
    """(number**2, pixels inside), so that a standard normal point has mean square one there."""
    if not number:
        return None
    spanned = waves(inside.shape, number)[:, inside.reshape(-1)]
    scale = np.float32(number)
    if not inside.all():  # cosines are larger near the edges than over a whole picture
        scale *= np.sqrt(np.mean(spanned**2))
    return np.ascontiguousarray(spanned / scale)
