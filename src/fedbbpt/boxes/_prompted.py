"""What language models as boxes share: prompted examples as atoms, and their tokens laid out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes import _forms
from fedbbpt.boxes._forms import TEXT_GAP as GAP
from fedbbpt.boxes._gradient import gather, numbered
from fedbbpt.boxes._transformers import Inputs, Pretrained, batches, check_sizes
from fedbbpt.boxes._words import OTHER, Words
from fedbbpt.errors import ConfigError
from fedbbpt.protocols import AtomicBox
from fedbbpt.types import Atom, Grid, RenderedPrompt


class Prompted(AtomicBox):
    """A local language model; prompts stand on the text side, one atom is one prompted example."""

    accepts = frozenset({"soft", "tokens", "text"})
    sides = frozenset({"text"})
    gives = frozenset({"scores", "gradients"})
    max_tokens: int

    def _set_up(
        self,
        kind: str,
        model: str,
        loaded: Pretrained,
        words: Words,
        rows: int,
        longest: int,
        shares: _forms.Shares | None = None,
    ) -> None:
        check_sizes(model, rows, longest, loaded.limit)
        self.name = f"{kind}:{loaded.name}:{longest}"
        self.form = _forms.Prompted(self.name, shares)
        self.rows, self.max_tokens = rows, longest
        self._words = words
        self._lock = threading.Lock()
        self._layout = lru_cache(maxsize=1 << 16)(self._lay_out)

    def prepare(self, prompt: RenderedPrompt) -> None:
        """Refuse a template or label words of no use, and a template without room for a text."""
        template = prompt.template
        self._check(template)
        own, _ = self._words.layout(template.replace(GAP, "\0"), "")
        ends = len(self._words.front) + len(self._words.back)
        taken = len(own) + ends + len(_inserted(prompt)) + self._spare(prompt.labels)
        if taken >= self.max_tokens:
            raise ConfigError(
                f"prompt.template '{template}' and what is put into it take {taken} tokens; "
                f"box.max_tokens = {self.max_tokens} leaves no room for a text"
            )

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """Atoms: each distinct prompted example."""
        return self.form.split(prompts, examples)

    def gradient(
        self, prompt: RenderedPrompt, examples: Sequence[Any], targets: Array
    ) -> tuple[float, Array]:
        """Through the network, in the batches of its scores."""
        atoms = [self.form.atom(_forms.Content(prompt, -1, text)) for text in examples]
        moved = [self._inputs(numbered(prompt), text)[0] for text in examples]
        total, gradient = 0.0, np.zeros(prompt.soft[0].shape)
        every = range(len(atoms))
        for batch in batches(every, lambda i: len(moved[i][0]), self.rows, every):
            with self._lock:
                loss, found = self._slopes([atoms[i] for i in batch], targets[batch])
            total += loss
            for i, slope in zip(batch, found, strict=True):
                gather(gradient, slope, moved[i])
        return total / len(atoms), gradient[None] / len(atoms)

    # --- what a model adds -------------------------------------------------------------------

    def _check(self, template: str) -> None:
        """Refuse a template that has not one gap."""
        if template.count(GAP) != 1:
            raise ConfigError(f"prompt.template '{template}' must hold {GAP} once")

    def _slopes(self, atoms: Sequence[Atom], targets: Array) -> tuple[float, list[Array]]:
        """Sum over prompted examples of the cross-entropy of their scores, and its gradient with
        respect to each one's (L, H) input embeddings.
        """
        raise NotImplementedError

    def _spare(self, labels: tuple[str, ...]) -> int:
        """Tokens to keep free behind a text; refuses label words that cannot be used."""
        raise NotImplementedError

    # --- atoms -------------------------------------------------------------------------------

    def _inputs(self, prompt: RenderedPrompt, text: str) -> tuple[Inputs, Array]:
        """What the network gets, and each token's place in the template (-2 for new tokens)."""
        new = _inserted(prompt)
        place = "before" if prompt.soft else prompt.place
        room = len(new) + self._spare(prompt.labels)
        ids, slots, at = self._layout(prompt.template, text, room, place)
        ids = np.insert(ids, at, np.array(new, np.int64))
        slots = np.insert(slots, at, np.full(len(new), OTHER))
        if not prompt.soft:
            return (ids, None, None), slots
        if prompt.mode == "insert":
            return (ids, np.arange(at, at + len(new)), prompt.soft[0]), slots
        places = np.flatnonzero(slots >= 0)
        return (ids, places, prompt.soft[0][slots[places]]), slots

    def _lay_out(self, template: str, text: str, room: int, place: str) -> tuple[Array, Array, int]:
        """Token ids and places between the special tokens, and where new tokens go in; a long
        text is cut at its end.
        """
        self._check(template)
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
