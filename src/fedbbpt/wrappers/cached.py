"""Answers from the ledger what was paid before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox, Wrapper
from fedbbpt.storage import Store
from fedbbpt.types import Atom, RenderedPrompt
from fedbbpt.wrappers import _gradient


class Cached(Wrapper):
    """Looks every atom up; asks the inner box for the rest and records them before use.

    Rows that are not finite are failures and never recorded. No lock is held while the inner
    box works; that nobody else asks for the same meanwhile is what claims are for. Everyone pays
    for what he has claimed before he waits for others, so that nobody waits in a circle.

    Args:
        inner: the box.
        store: where rows are kept.
    """

    def __init__(self, inner: AtomicBox, store: Store) -> None:
        super().__init__(inner)
        self.store = store

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """Rows of the wanted atoms, known or new."""
        keys = [atoms[i].key for i in wanted]
        rows = self.store.get(keys)
        while missing := [key for key in keys if key not in rows]:
            claimed = self.store.claim(missing)
            try:
                rows |= self._pay(atoms, wanted, set(claimed))
            finally:
                self.store.release(claimed)
            if len(claimed) < len(missing):
                rows |= self.store.get([key for key in missing if key not in rows])
        return [rows[key] for key in keys]

    def _pay(
        self, atoms: Sequence[Atom], wanted: Sequence[int], claimed: set[bytes]
    ) -> dict[bytes, Array]:
        asked = [i for i in wanted if atoms[i].key in claimed]
        new = self.inner.evaluate(atoms, asked) if asked else []
        fresh = {atoms[i].key: row for i, row in zip(asked, new, strict=True)}
        self.store.put({k: row for k, row in fresh.items() if np.isfinite(row).all()})
        return fresh

    def gradient(
        self, prompt: RenderedPrompt, examples: Sequence[Any], targets: Array
    ) -> tuple[float, Array]:
        """The inner box's, asked for whenever it is needed: a local model is not worth the room.
        That its queries were made, and the mean loss that they came to, is recorded.
        """
        loss, slope = self.inner.gradient(prompt, examples, targets)
        paid = _gradient.keys(self.name, prompt, examples, targets)
        self.store.put(dict.fromkeys(paid, np.array([loss])))
        return loss, slope
