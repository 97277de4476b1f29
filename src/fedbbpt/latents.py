"""Soft prompts that instructions were written behind, and which to have written on next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedbbpt import registry
from fedbbpt.arrays import Array
from fedbbpt.random import stream
from fedbbpt.sections import Part
from fedbbpt.types import Space, Update


class Latents:
    """The search of InstructZero in the box [-1, 1]^d (Chen et al. 2024, algorithm 1).

    Args:
        dim: d.
        method: the optimiser of the run; of a ``bayes`` its options count here, too.
        seed: of the run.

    Attributes:
        points: (M, d) all that were written on.
        rows: (M,) int64, which instruction of the pool came of each, -1 for none: it may have been
            refused. Two may have written the same, of which as much is known.
    """

    def __init__(self, dim: int, method: Part, seed: int) -> None:
        self._options = method.options if method.name == "bayes" else {}
        self._seed = seed
        self.points, self.rows = np.zeros((0, dim)), np.zeros(0, np.int64)

    def next(self, state: Any, number: int, made: int) -> Array:
        """(number, d) points to have written on.

        Args:
            state: of the search over the pool.
            number: how many.
            made: how often this was asked, an address of randomness.
        """
        options = {**self._options, "batch": number}
        search = registry.make("optimizers", "bayes", options, "method.optimizer")
        known = search.init(Space("real", self.points.shape[1:]))
        if len(self.points):
            known = known._replace(**self._seen(state))
        found: Array = search.ask(known, stream(self._seed, "latents", made))
        return found

    def note(self, latents: Array, update: Update, rows: Sequence[int]) -> None:
        """What came of latents.

        Args:
            latents: (K, d) that a client was asked about.
            update: its answer; its field ``rows`` says which latent each text is of.
            rows: of the pool, one for each text, -1 if it is not in the pool.
        """
        came = np.full(len(latents), -1)
        came[update.arrays.get("rows", np.zeros(0, np.int64))] = rows
        self.points = np.concatenate([self.points, latents])
        self.rows = np.concatenate([self.rows, came])

    def _seen(self, state: Any) -> dict[str, Array]:
        """The answers to a latent's text as those to the latent; one without a text is a hole."""
        told = state.seen_points[:, 0].astype(np.int64)
        heard = [np.flatnonzero(told == row) if row >= 0 else told[:0] for row in self.rows]
        which = np.repeat(np.arange(len(heard)), [len(each) for each in heard])
        holes = np.flatnonzero([not len(each) for each in heard])
        rows = np.concatenate(heard)
        seen = {"seen_points": self.points[np.concatenate([which, holes])]}
        for name in ("seen_losses", "seen_weights", "seen_turns", "seen_clients"):
            values = getattr(state, name)
            seen[name] = np.concatenate([values[rows], np.zeros(len(holes), values.dtype)])
        return seen
