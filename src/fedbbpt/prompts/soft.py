"""A soft prompt from a low-dimensional point: p = A z + p0 (Sun et al., BBT, ICML 2022).

A is fixed and Gaussian, made from the seed and never stored or sent. Its entries have standard
deviation ``alpha * std(E) / (sqrt(dim) * sigma)`` with E the box's embedding matrix, so that A z
with z ~ N(0, sigma^2 I) is as large as a word's embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import cycle, islice

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.prompts._template import gap_of
from fedbbpt.protocols import Prompt
from fedbbpt.random import stream
from fedbbpt.senses import Vocabulary
from fedbbpt.types import RenderedPrompt, Space


class Soft(Prompt):
    """Soft prompt on the label side or the text side.

    Args:
        vocabulary: the box's tokens.
        template: the manual prompt, with ``{label}`` or ``{text}``.
        labels: one text per class.
        side: ``"label"`` or ``"text"``.
        mode: ``"add"`` (default) moves the embeddings of the manual prompt's own tokens, so the
            zero point *is* the manual prompt. ``"insert"`` puts ``tokens`` new ones in front,
            which alone can cost some points before any search.
        tokens: number of inserted tokens; not used by ``"add"``.
        init: text whose embeddings the inserted tokens start at, repeated to length; the
            template's own words when empty.
        dim: numbers in a point (per class if ``per_class``).
        per_class: one prompt for each class instead of one for all; label side only.
        alpha: multiplies the size of A.
        sigma: the search's initial standard deviation, by which A is scaled.
        seed: makes A.

    Raises:
        ConfigError: the template lacks its gap, or nothing is left for a soft prompt to move.
    """

    sends = frozenset({"soft"})

    def __init__(
        self,
        vocabulary: Vocabulary,
        template: str,
        labels: Sequence[str],
        side: str = "label",
        mode: str = "add",
        tokens: int = 5,
        init: str = "",
        dim: int = 200,
        per_class: bool = False,
        alpha: float = 1.0,
        sigma: float = 1.0,
        seed: int = 0,
    ) -> None:
        gap = gap_of(template, side)
        if mode not in ("add", "insert"):
            raise ConfigError(f"prompt.mode is '{mode}'; known: add, insert")
        if dim < 1:
            raise ConfigError(f"prompt.dim is {dim}; it must be at least 1")
        if not (0 < sigma < math.inf and math.isfinite(alpha)):
            raise ConfigError(
                f"prompt.sigma is {sigma} and prompt.alpha {alpha}; sigma must be above 0"
            )
        if mode == "insert" and tokens < 1:
            raise ConfigError(f"prompt.tokens is {tokens}; insert mode needs at least 1")
        if per_class and side == "text":
            raise ConfigError("a prompt per class needs prompt.side = 'label'")
        self.template, self.labels, self.side, self.mode = template, tuple(labels), side, mode
        self.per_class, self.hidden = per_class, vocabulary.hidden
        if mode == "insert":
            self.length = tokens
            words = vocabulary.tokenise(init or template.replace(gap, " "))
            if not words:
                raise ConfigError("prompt.init is empty and so is the template without its gap")
            self.start = vocabulary.embed(list(islice(cycle(words), tokens)))
        else:
            self.length = _own_tokens(vocabulary, template, gap, self.labels, side)
            self.start = np.zeros((self.length, self.hidden), np.float32)
        std = alpha * vocabulary.std / (np.sqrt(dim) * sigma)
        shape = (dim, self.length * self.hidden)
        self.matrix = (stream(seed, "projection").standard_normal(shape) * std).astype(np.float32)
        classes = len(self.labels)
        self.space = Space("real", (classes, dim) if per_class else (dim,), separable=per_class)
        # Ten clients that try the same candidates render them once.
        self._remembered = lru_cache(maxsize=8)(self._render)

    def render(self, points: Array) -> list[RenderedPrompt]:
        """K prompts from (K, dim) or (K, C, dim) points. Pure; equal points, equal prompts."""
        data = np.ascontiguousarray(points, np.float64)
        return list(self._remembered(data.tobytes(), len(data)))

    def _render(self, data: bytes, count: int) -> tuple[RenderedPrompt, ...]:
        points = np.frombuffer(data).reshape(count, -1, self.matrix.shape[0])
        # Most rows of a per-class candidate are the unmoved ones: each distinct row once.
        rows = {row.tobytes(): row for point in points for row in point}
        # Not "@": in a BLAS product a row's last bits change with the rows beside it and with the
        # number of threads, and with them the prompt's key.
        each = np.array(list(rows.values())).astype(np.float32)
        moved = np.einsum("kd,dn->kn", each, self.matrix)
        soft = moved.reshape(-1, self.length, self.hidden) + self.start
        made = dict(zip(rows, soft, strict=True))
        return tuple(
            RenderedPrompt(
                self.template,
                self.labels,
                self.side,
                soft=tuple(made[row.tobytes()] for row in point),
                mode=self.mode,
            )
            for point in points
        )


def _own_tokens(
    vocabulary: Vocabulary, template: str, gap: str, labels: Sequence[str], side: str
) -> int:
    """Number of rows in add mode: one per token of the template, and one for the label's words."""
    # A template that runs into its gap tokenises differently with different texts in it.
    fills = labels if side == "label" else ("text", "A longer text.", "3rd, ...")
    counts = {f: max(vocabulary.layout(template.replace(gap, "\0"), f)[1]) + 1 for f in fills}
    if len(set(counts.values())) > 1:
        raise ConfigError(
            f"prompt.template '{template}' runs into its gap: put spaces around {gap}"
        )
    own = next(iter(counts.values())) + (side == "label")
    if own == 0:
        raise ConfigError(
            f"prompt.template '{template}' has no words of its own to move; "
            "add some, or use prompt.mode = 'insert'"
        )
    return own
