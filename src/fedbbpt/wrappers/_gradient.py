"""A gradient as queries: each example that it is taken over is one, whatever it costs the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedbbpt.arrays import Array
from fedbbpt.types import RenderedPrompt, digest


def keys(name: str, prompt: RenderedPrompt, examples: Sequence[Any], targets: Array) -> list[bytes]:
    """A key for each of B examples, of the box's name and everything that its slope depends on."""
    words = repr(prompt.labels)
    return [
        digest(name, "gradient", *prompt.keys, words, repr((example, int(target))))
        for example, target in zip(examples, targets, strict=True)
    ]
