"""An instruction in words, one of a pool: the user's own, and those that a model wrote for it.

A point is the place of an instruction among the others (see :mod:`fedbbpt.maths.places`), so
that a search can go by likeness. Which instructions there are is agreed in the paid phase
``propose`` (:mod:`fedbbpt.proposing`); rendering asks nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.prompts._template import gap_of
from fedbbpt.protocols import Prompt
from fedbbpt.types import RenderedPrompt, Space
from fedbbpt.writing import GAPS, HERE, Writing


class Instruction(Prompt):
    """Puts instructions into a template. At first there is only the user's own.

    Args:
        template: with ``{instruction}`` and ``{text}``.
        labels: one text per class; none where answers are words.
        instruction: the user's own, which is the starting prompt.
        side: ``"text"``, where an instruction stands.
        dim: numbers that say where an instruction is among the others.
        encoder: what the places are made of: ``"minilm"``, sentence embeddings of the packaged
            all-MiniLM-L6-v2; ``"ngrams"``, runs of characters, which need no model; ``"auto"``,
            the first where it is installed; or a sentence encoder's folder or hub name.
        writer, proposals, demonstrations, again, longest, tokens, latent: see
            :class:`fedbbpt.writing.Writing` (``latent`` is its ``dim``).

    Attributes:
        texts: (N,) the pool, the user's own first.

    Raises:
        ConfigError: the template lacks a gap, or the instruction is empty or holds one.
    """

    sends = frozenset({"text"})

    def __init__(
        self,
        template: str,
        labels: Sequence[str],
        instruction: str = "",
        side: str = "text",
        dim: int = 16,
        encoder: str = "auto",
        writer: str = "pool",
        proposals: int = 8,
        demonstrations: int = 5,
        again: int = 1,
        longest: int = 400,
        tokens: int = 5,
        latent: int = 10,
    ) -> None:
        gap_of(template, side)
        if side != "text" or template.count(HERE) != 1:
            raise ConfigError(
                f"prompt.template '{template}' must hold {HERE} once, with prompt.side = 'text'"
            )
        if not instruction.strip():
            raise ConfigError(
                "prompt.instruction is empty; write the instruction that you would give today"
            )
        if any(gap in instruction for gap in GAPS):
            raise ConfigError(f"prompt.instruction must hold none of {', '.join(GAPS)}")
        if dim < 1:
            raise ConfigError(f"prompt.dim is {dim}; it must be at least 1")
        self.template, self.labels = template, tuple(labels)
        self.writing = Writing(
            writer, proposals, demonstrations, again, longest, encoder, tokens, latent
        )
        width = latent if writer == "soft" else dim
        self._take([instruction.strip()], np.zeros((1, width)))

    def grown(self, texts: Sequence[str], points: Array) -> Instruction:
        """The same prompt over a larger pool.

        Args:
            texts: N instructions, those there are already first.
            points: (N, dim) their places, all different; the first is zero.
        """
        other = Instruction.__new__(Instruction)
        other.__dict__.update(self.__dict__)
        other._take(texts, points)
        return other

    def _take(self, texts: Sequence[str], points: Array) -> None:
        self.texts = tuple(texts)
        self._rows = {point.tobytes(): row for row, point in reversed([*enumerate(points)])}
        self.space = Space("pool", points.shape[1:], points=points)
        bare = RenderedPrompt("", self.labels, "text")
        self._prompts = [replace(bare, template=self._around(text)) for text in texts]

    def render(self, points: Array) -> list[RenderedPrompt]:
        """K prompts from (K, dim) points of the pool.

        Raises:
            ValueError: a point is not in it.
        """
        try:
            return [self._prompts[self._rows[(point + 0.0).tobytes()]] for point in points]
        except KeyError:
            raise ValueError("a point is none of the pool's instructions") from None

    def read(self, prompt: RenderedPrompt) -> tuple[str, ...]:
        """The instruction."""
        before, _, after = self.template.partition(HERE)
        return (prompt.template.removeprefix(before).removesuffix(after),)

    def _around(self, instruction: str) -> str:
        return self.template.replace(HERE, instruction)
