"""What is known of how a box takes its inputs apart: tokens of texts, pixels of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fedbbpt.arrays import Array
from fedbbpt.types import Picture


class Vocabulary(Protocol):
    """A box's tokens: for soft starting points, projections and the guard's garbage."""

    hidden: int
    std: float

    def tokenise(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""

    def layout(self, template: str, fill: str) -> tuple[list[int], list[int]]:
        """Ids of the template with ``fill`` in its gap (a NUL), and each id's place in it: 0, 1,
        ... for the template's own tokens, -1 for those of ``fill``, -2 for others (a mask).
        """

    def embed(self, ids: Sequence[int]) -> Array:
        """(len(ids), H) input embeddings, float32."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids."""

    def ordinary(self) -> Array:
        """Ids that stand for ordinary words or pieces (no special or unused ones)."""


class Vision(Protocol):
    """How a box sees pictures: for the size of visual prompts, and to compose them.

    Attributes:
        size: (H, W) of the model's input.
        std: by which the model divides red, green and blue, in [0, 1].
    """

    size: tuple[int, int]
    std: tuple[float, float, float]

    def fit(self, picture: Picture) -> Array:
        """(H, W, 3) float32 in [0, 1]: resized and cropped as the model wants it."""
