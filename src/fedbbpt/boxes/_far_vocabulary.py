"""The vocabulary of a box behind a gateway, asked for over the wire and remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._packed import unpack_arrays

Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
REMEMBERED = 1 << 14
"""Replies kept per kind: a search asks for the same few texts and tokens again and again."""


class FarVocabulary:
    """A :class:`fedbbpt.protocols.Vocabulary` at the other end of a wire.

    Args:
        ask: (path, body) -> reply, both as JSON has them.
        hidden: H.
        std: standard deviation over all entries of the embedding matrix.

    Attributes:
        far: all of it takes many megabytes over the wire.
    """

    far = True

    def __init__(self, ask: Ask, hidden: int, std: float) -> None:
        self._ask, self.hidden, self.std = ask, hidden, std
        self._tokenised = lru_cache(REMEMBERED)(self._tokenise)
        self._decoded = lru_cache(REMEMBERED)(self._decode)
        self._laid_out = lru_cache(REMEMBERED)(self._lay_out)
        self._embedded = lru_cache(64)(self._embed)
        self._ordinary = lru_cache(1)(self._all_ordinary)

    def tokenise(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return list(self._tokenised(text))

    def layout(self, template: str, fill: str) -> tuple[list[int], list[int]]:
        """Ids of the template with ``fill`` in its gap, and each id's place in the template."""
        ids, slots = self._laid_out(template, fill)
        return list(ids), list(slots)

    def embed(self, ids: Sequence[int] | Array) -> Array:
        """(len(ids), H) input embeddings, float32."""
        return self._embedded(tuple(int(i) for i in ids)).copy()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids."""
        return self._decoded(tuple(int(i) for i in ids))

    def ordinary(self) -> Array:
        """Ids that stand for ordinary words or pieces."""
        return self._ordinary().copy()

    # --- over the wire -----------------------------------------------------------------------

    def _tokenise(self, text: str) -> tuple[int, ...]:
        return tuple(self._ask("/vocabulary/tokenise", {"text": text})["ids"])

    def _lay_out(self, template: str, fill: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        reply = self._ask("/vocabulary/layout", {"template": template, "fill": fill})
        return tuple(reply["ids"]), tuple(reply["slots"])

    def _embed(self, ids: tuple[int, ...]) -> Array:
        return unpack_arrays(self._ask("/vocabulary/embed", {"ids": ids})["arrays"])["rows"]

    def _decode(self, ids: tuple[int, ...]) -> str:
        return str(self._ask("/vocabulary/decode", {"ids": ids})["text"])

    def _all_ordinary(self) -> Array:
        return np.array(self._ask("/vocabulary/ordinary", {})["ids"], np.int64)
