"""What language models as boxes share: prompted examples as atoms, and their tokens laid out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.boxes import _forms
from fedbbpt.boxes._forms import TEXT_GAP as GAP
from fedbbpt.boxes._forms import check_asked
from fedbbpt.boxes._gradient import gather, numbered
from fedbbpt.boxes._layout import Layout
from fedbbpt.boxes._transformers import Inputs, Pretrained, batches, check_sizes
from fedbbpt.boxes._words import Words
from fedbbpt.errors import ConfigError
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
        self._laid = Layout(words, longest)
        self._sound = lru_cache(maxsize=256)(self._check)
        self._lock = threading.Lock()

    def prepare(self, prompt: RenderedPrompt) -> None:
        """Refuse a template or label words of no use, and a template without room for a text."""
        check_asked(self.name, self.gives, [prompt])
        self._check(prompt.template)
        self._laid.check_room(prompt, self._spare(prompt.labels))

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """Atoms: each distinct prompted example."""
        check_asked(self.name, self.gives, prompts)
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

    def _inputs(self, prompt: RenderedPrompt, text: str) -> tuple[Inputs, Array]:
        """What the network gets, and each token's place in the template (-2 for new tokens)."""
        self._sound(prompt.template)
        return self._laid.inputs(prompt, text, self._spare(prompt.labels))
