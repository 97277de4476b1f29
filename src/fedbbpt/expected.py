"""What an update of the search phase has to look like, from what was asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.parts import Parts
from fedbbpt.round import local_search
from fedbbpt.types import Job


class Expected(NamedTuple):
    """What a field has to look like.

    Attributes:
        shape: after one step.
        dtype: exactly.
        more: rows that every further step adds.
        holes: NaN and +inf stand for *no answer*. Minus infinity is no loss of anything.
        positive: no number is below 0.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    more: int = 0
    holes: bool = False
    positive: bool = False

    def after(self, steps: int) -> tuple[int, ...]:
        """Its shape after so many."""
        if not self.more:
            return self.shape
        return (self.shape[0] + (steps - 1) * self.more, *self.shape[1:])


def search_fields(parts: Parts, job: Job) -> dict[str, Expected]:
    """What the search phase declares, as this job makes it.

    Losses are (steps, K), fewer where a client runs out of queries. State fields look as they do
    after one step and after two, which are gone through here with made-up losses.

    Args:
        parts: of the federation.
        job: as it was broadcast, with its arrays.
    """
    number = np.dtype(np.float64)
    if parts.wire == "replay":
        size = len(parts.candidates(job, "", 0, parts.receive(job.arrays)))
        fields = {"losses": Expected((1, size), number, more=1, holes=True)}
    else:
        one, two = (_searched(parts, job, steps) for steps in (1, min(2, job.steps)))
        positive = parts.optimizer.positive
        fields = {name: _grown(one[name], two[name], name in positive) for name in one}
    if parts.aggregator.loss or (parts.optimizer.learns and not parts.shields):
        fields["loss"] = Expected((), number, holes=True)
    return fields


def _searched(parts: Parts, job: Job, steps: int) -> dict[str, Array]:
    def made_up(step: int, points: Array, turns: Array | None) -> Array:
        return np.arange(len(points), dtype=np.float64)

    # Not a copy where it need not be: shared candidates are kept by job.
    job = job if steps == job.steps else replace(job, steps=steps)
    state = local_search(parts, job, "", made_up)
    names = parts.aggregator.fields(parts.optimizer)
    return {name: np.asarray(getattr(state, name)) for name in names}


def _grown(one: Array, two: Array, positive: bool) -> Expected:
    more = len(two) - len(one) if one.ndim and one.shape != two.shape else 0
    counts = np.issubdtype(one.dtype, np.integer)
    return Expected(one.shape, one.dtype, more, positive=positive or counts)
