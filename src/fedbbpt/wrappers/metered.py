"""Charges an account for every atom that is asked for, before it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox, Wrapper
from fedbbpt.types import Atom, RenderedPrompt
from fedbbpt.wrappers import _gradient


class Account(Protocol):
    """Who pays; see :mod:`fedbbpt.budget`."""

    dropped: int

    def charge(self, keys: Sequence[bytes]) -> None:
        """Charge the atoms not charged before, all or none.

        Raises:
            BudgetSpent: the account cannot pay for them.
        """


class Metered(Wrapper):
    """The outermost wrapper: the budget counts atoms whether or not a ledger holds them, so that
    methods compare fairly and a rerun is the same run.

    Args:
        inner: the box.
        account: who pays.
    """

    def __init__(self, inner: AtomicBox, account: Account) -> None:
        super().__init__(inner)
        self.account = account

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """Rows of the wanted atoms, after they were charged."""
        self.account.charge([atoms[i].key for i in wanted])
        rows = self.inner.evaluate(atoms, wanted)
        if rows and not np.isfinite(np.concatenate(rows)).all():
            self.account.dropped += sum(not np.isfinite(row).all() for row in rows)
        return rows

    def gradient(
        self, prompt: RenderedPrompt, examples: Sequence[Any], targets: Array
    ) -> tuple[float, Array]:
        """The inner box's, after every example was charged as a query."""
        self.account.charge(_gradient.keys(self.name, prompt, examples, targets))
        return self.inner.gradient(prompt, examples, targets)
