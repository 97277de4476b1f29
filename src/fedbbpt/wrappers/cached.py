"""Answers from the ledger what was paid before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.protocols import AtomicBox, Store, Wrapper
from fedbbpt.types import Atom, RenderedPrompt
from fedbbpt.wrappers import _gradient


class Cached(Wrapper):
    """Looks every atom up; asks the inner box for the rest and records them before use.

    Rows that are not finite are failures and never recorded. No lock is held while the inner
    box works.

    Args:
        inner: the box.
        store: where rows are kept.
    """

    def __init__(self, inner: AtomicBox, store: Store) -> None:
        super().__init__(inner)
        self.store = store

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """Rows of the wanted atoms, known or new."""
        rows = self.store.get([atoms[i].key for i in wanted])
        missing = [i for i in wanted if atoms[i].key not in rows]
        if missing:
            new = self.inner.evaluate(atoms, missing)
            fresh = {atoms[i].key: row for i, row in zip(missing, new, strict=True)}
            self.store.put({k: row for k, row in fresh.items() if np.isfinite(row).all()})
            rows = {**rows, **fresh}
        return [rows[atoms[i].key] for i in wanted]

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
