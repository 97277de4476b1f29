"""Which of its examples a client asks about, where it does not ask about all of them.

Addressed like all randomness: the same client, seed and number draw the same examples.
"""

from __future__ import annotations

import numpy as np

from fedbbpt.errors import ExampleFault
from fedbbpt.random import stream
from fedbbpt.types import Batch


def drawn(train: Batch, client: str, seed: int, size: int, number: int) -> Batch:
    """Those of one step: other ones in every step until fewer are left; then all are shuffled anew.

    Args:
        train: a client's examples.
        client: its name.
        seed: the run's.
        size: how many of them; 0 for all.
        number: of the step, counted over the whole run.
    """
    if not 0 < size < train.size:
        return train
    epoch, part = divmod(number, train.size // size)
    return _part(train, client, seed, epoch, size, part)


def in_turn(train: Batch, client: str, seed: int, size: int, turn: int) -> Batch:
    """Those on which a candidate is tried in its turn, from 0; none are left behind the last.

    One shuffle stays the same in the whole run, so that two candidates in the same turn are
    compared on the same examples, in whatever round they had it. Arguments as :func:`drawn`.
    """
    if not 0 < size < train.size:
        return train.take([]) if turn else train
    return _part(train, client, seed, 0, size, turn)


def _part(train: Batch, client: str, seed: int, epoch: int, size: int, part: int) -> Batch:
    rows = stream(seed, "batch", epoch, client).permutation(train.size)
    return train.take(np.sort(rows[part * size : (part + 1) * size]))


def named(fault: ExampleFault, client: str, train: Batch, holdout: Batch, test: Batch) -> str:
    """What fails on which of a client's examples, counted from 1."""
    kind, place = "test", fault.place
    for own, batch in (("test", test), ("held-back", holdout), ("training", train)):
        if fault.input is not None and fault.input in batch.inputs:
            kind, place = own, batch.inputs.index(fault.input)
    return fault.what.replace("{}", f"{kind} example {place + 1} of {client}")


def dearest(train: Batch, size: int) -> Batch:
    """Examples that cost as much as those of any step: as many, and of the same ones few."""
    if not 0 < size < train.size:
        return train
    first = {getattr(x, "key", x): row for row, x in reversed([*enumerate(train.inputs)])}
    rows = dict.fromkeys([*first.values(), *range(train.size)])
    return train.take([*rows][:size])
