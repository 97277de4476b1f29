"""The vocabulary of a language model: whole words, exact texts, and a template's own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fedbbpt.arrays import Array
from fedbbpt.boxes._transformers import Tokens

OTHER = -2  # the place of a token that no soft prompt moves and no truncation cuts


class Words(Tokens):
    """Tokens of which some begin a word, and that have their text back, space for space.

    Attributes:
        front, back: special tokens before and after every text.
        fixed: tokens of a template that no soft prompt moves.
    """

    front: tuple[int, ...] = ()
    back: tuple[int, ...] = ()
    fixed: frozenset[int] = frozenset()

    def __init__(self, tokenizer: Any, matrix: Array) -> None:
        # Tokens that begin a word carry a mark in byte-level and SentencePiece vocabularies.
        first = (tokenizer.tokenize(" the") or [""])[0][:1]
        self._mark = first if first in ("Ġ", "▁") else ""
        self._counts = lru_cache(maxsize=1 << 12)(self._own_tokens)
        super().__init__(tokenizer, matrix)

    def frame(self, template: str) -> str:
        """The template as the tokenizer reads it."""
        return template

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids, with every space, so that it has the same ids."""
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def layout(self, template: str, fill: str) -> tuple[list[int], list[int]]:
        """Ids of the template with ``fill`` in its gap, and each id's place.

        A byte-level token may reach over the edge of the fill ("!" and "." in "!."). It is then
        neither cut nor moved, and the template's other tokens keep their places.
        """
        ids, kinds = self._kinds(template, fill)
        before, after = self._counts(template)
        front, back = kinds.count("before"), kinds.count("after")
        slots, seen = [], 0
        for kind in kinds:
            slot = {"fill": -1}.get(kind, OTHER)
            if kind in ("before", "after"):
                # Counted from the template's two ends, since what is at its gap may vary.
                place = seen if kind == "before" else seen - front - back + before + after
                fits = place < before if kind == "before" else place >= before
                slot, seen = place if fits else OTHER, seen + 1
            slots.append(slot)
        return ids, slots

    def behind(self, template: str, fill: str) -> int:
        """How many tokens stand before the end of ``fill``."""
        return super().behind(self.frame(template), fill)

    def _own_tokens(self, template: str) -> tuple[int, int]:
        """How many tokens of its own a template has before its gap and after it."""
        _, kinds = self._kinds(template, "text")
        return kinds.count("before"), kinds.count("after")

    def _kinds(self, template: str, fill: str) -> tuple[list[int], list[str]]:
        """Ids, and where each comes from: "before", "fill", "after" or "other"."""
        template = self.frame(template)
        start = template.index("\0")
        stop = start + len(fill)
        joined = template.replace("\0", fill)
        coded = self._tokenizer(
            joined, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids, kinds = list(coded["input_ids"]), []
        for one, (begin, end) in zip(ids, coded["offset_mapping"], strict=True):
            if begin < stop and end > start:
                over = (joined[begin:start] + joined[max(stop, begin) : end]).strip()
                kinds.append("other" if over else "fill")
            elif one in self.fixed or (end == start and not joined[begin:end].strip()):
                # A space before the gap is a token or not by what it meets there.
                kinds.append("other")
            else:
                kinds.append("before" if end <= start else "after")
        return ids, kinds

    def _is_word(self, token: str) -> bool:
        bare = token.removeprefix(self._mark)
        # Byte-level vocabularies spell other letters as bytes that look like letters.
        readable = self._mark != "Ġ" or bare.isascii()
        return token.startswith(self._mark) and readable and super()._is_word(bare)
