"""The manual prompt as it is, with nothing to move: what a baseline starts at."""

from __future__ import annotations

from collections.abc import Sequence

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.prompts._template import gap_of
from fedbbpt.protocols import Prompt
from fedbbpt.types import RenderedPrompt, Space


class Manual(Prompt):
    """Plain text, so that every box takes it. Its space has one point, which has no numbers.

    Args:
        template: with ``{label}`` or ``{text}``.
        labels: one text per class.
        side: ``"label"``, ``"text"`` or ``"image"``.

    Raises:
        ConfigError: the template does not hold its gap once.
    """

    sends = frozenset({"text"})
    space = Space("real", (0,))

    @classmethod
    def sends_to(cls, box: AtomicBox) -> frozenset[str]:
        """Text, or to a box that takes nothing else a picture as it is."""
        return cls.sends if "text" in box.accepts else frozenset({"image"})

    def __init__(self, template: str, labels: Sequence[str], side: str = "label") -> None:
        gap_of(template, side)
        self.prompt = RenderedPrompt(template, tuple(labels), side)

    def render(self, points: Array) -> list[RenderedPrompt]:
        """The same prompt K times for (K, 0) points."""
        return [self.prompt] * len(points)
