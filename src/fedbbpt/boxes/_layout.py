"""Prompted texts as token ids: the template around a text, tokens put in, places of soft rows."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._forms import TEXT_GAP as GAP
from fedbbpt.boxes._transformers import Inputs
from fedbbpt.boxes._words import OTHER, Words
from fedbbpt.errors import ConfigError
from fedbbpt.types import RenderedPrompt


class Layout:
    """Lays prompted texts out in a model's tokens.

    Args:
        words: the model's vocabulary.
        max_tokens: a longer text is cut, the template never.
    """

    def __init__(self, words: Words, max_tokens: int) -> None:
        self._words, self.max_tokens = words, max_tokens
        self._cached = lru_cache(maxsize=1 << 16)(self._lay_out)
        self._placed = lru_cache(maxsize=1 << 16)(self._place)

    def check_room(self, prompt: RenderedPrompt, spare: int) -> None:
        """Refuse a template that leaves no room for a text."""
        template = prompt.template
        own, _ = self._words.layout(template.replace(GAP, "\0"), "")
        ends = len(self._words.front) + len(self._words.back)
        taken = len(own) + ends + len(_inserted(prompt)) + spare
        if taken >= self.max_tokens:
            raise ConfigError(
                f"prompt.template '{template}' and what is put into it take {taken} tokens; "
                f"box.max_tokens = {self.max_tokens} leaves no room for a text"
            )

    def inputs(self, prompt: RenderedPrompt, text: str, spare: int) -> tuple[Inputs, Array]:
        """What the network gets, and each token's place in the template (-2 for new tokens).

        Args:
            prompt: its template holds one gap.
            text: fills it; cut at its end if it is too long.
            spare: tokens to keep free behind it.
        """
        new = _inserted(prompt)
        if prompt.soft:
            # Where it goes is the same for all candidates.
            ids, slots, places = self._placed(prompt.template, text, len(new), spare)
            soft = prompt.soft[0]
            return (ids, places, soft if new else soft[slots[places]]), slots
        ids, slots, at = self._cached(prompt.template, text, len(new) + spare, prompt.place)
        ids = np.insert(ids, at, np.array(new, np.int64))
        return (ids, None, None), np.insert(slots, at, np.full(len(new), OTHER))

    def _place(
        self, template: str, text: str, count: int, spare: int
    ) -> tuple[Array, Array, Array]:
        """Token ids, places in the template, and the positions that a soft prompt moves: those of
        ``count`` new tokens, or of the template's own where there are none.
        """
        ids, slots, at = self._lay_out(template, text, count + spare, "before")
        if not count:
            return ids, slots, np.flatnonzero(slots >= 0)
        ids = np.insert(ids, at, np.full(count, -1))
        return ids, np.insert(slots, at, np.full(count, OTHER)), np.arange(at, at + count)

    def _lay_out(self, template: str, text: str, room: int, place: str) -> tuple[Array, Array, int]:
        """Token ids and places between the special tokens, and where new tokens go in; a long
        text is cut at its end.
        """
        frame = template.replace(GAP, "\0")
        ids, slots = self._words.layout(frame, text)
        front, back = self._words.front, self._words.back
        over = max(0, len(ids) + len(front) + len(back) + room - self.max_tokens)
        fill = [i for i, slot in enumerate(slots) if slot == -1]
        if over > len(fill):
            raise ConfigError(f"prompt.template '{template}' is longer than box.max_tokens")
        cut = fill[len(fill) - over :]
        at = len(front)
        if place == "after":
            at += self._words.behind(frame, text) - len(cut)
        kept = [*front, *np.delete(np.array(ids, np.int64), cut), *back]
        places = np.delete(np.array(slots, np.int64), cut)
        others = np.full(len(front), OTHER), np.full(len(back), OTHER)
        return np.array(kept, np.int64), np.concatenate([others[0], places, others[1]]), at


def _inserted(prompt: RenderedPrompt) -> tuple[int, ...]:
    """The tokens that a prompt puts into its template; -1 has no embedding of its own."""
    if prompt.soft:
        return (-1,) * len(prompt.soft[0]) if prompt.mode == "insert" else ()
    return prompt.tokens_of()
