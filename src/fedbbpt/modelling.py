"""The search phase of an optimiser that learns from scores (``Optimizer.learns``).

A client asks about the new candidates and, which costs nothing, about all that it asked before: its
ledger is its memory, so it may be killed, or be another process in every round. While it goes on in
one process, it remembers what it made of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.black_box import BlackBox
from fedbbpt.errors import BudgetSpent
from fedbbpt.parts import Client, Parts, Phase
from fedbbpt.types import Job

REMEMBERED = 64
"""Clients whose sums are kept, so that memory does not grow with their number."""


def search(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """One step, or none where the quota ends: what the merge reads, and the mean training loss at
    the point that was broadcast.
    """
    state, loss = parts.receive(job.arrays), np.nan
    try:
        if job.steps:
            known, scores = _known(parts, client, job, box, state)
            targets = _wanted(parts, client, scores.shape[1])
            heard = np.isfinite(scores).all(axis=1)
            if heard.any():
                loss = float(-(targets * scores)[heard].sum(axis=1).mean())
                state = parts.optimizer.learn(state, known, scores, targets)
    except BudgetSpent:
        pass
    fields = parts.aggregator.fields(parts.optimizer)
    arrays = {name: np.asarray(getattr(state, name)) for name in fields}
    return arrays | {"loss": np.array(loss)}, float(client.train.size if np.isfinite(loss) else 0)


def _wanted(parts: Parts, client: Client, classes: int) -> Array:
    """(B, C) probabilities of the right answers; numbers are those of the second of two poles."""
    targets = client.train.targets
    if parts.task.numbers:
        return np.stack([1.0 - targets, targets], axis=1)
    return np.eye(classes)[targets]


def _known(parts: Parts, client: Client, job: Job, box: BlackBox, state: Any) -> tuple[Any, Array]:
    """What all replies so far tell, and the scores (B, C) at the present point."""
    optimizer, prompt = parts.optimizer, client.prompt or parts.prompt
    then = optimizer.earlier(state)
    names = tuple(name for name, _ in then)
    before, known = parts.studied.pop(client.name, ((), None))
    if names[:-1] != before:
        known, rest = None, then
    else:
        rest = then[-1:]
    scores = np.zeros((0, 0))
    for name, past in rest:
        # Shared candidates are made once for all clients, but not those of rounds past.
        last = name == names[-1]
        points = (
            parts.candidates(job, client.name, 0, state)
            if last
            else optimizer.ask(past, parts.generator(job, client.name, 0))
        )
        reply = box(prompt.render(points), client.train.inputs).scores
        told, scores = optimizer.study(past, points, reply), reply[0]
        known = told if known is None else type(told)(*map(np.add, known, told))
    parts.studied[client.name] = names, known
    while len(parts.studied) > REMEMBERED:
        parts.studied.pop(next(iter(parts.studied)), None)
    return known, scores


def _sends(parts: Parts) -> tuple[str, ...]:
    # No shield covers a loss beside the fields that are merged.
    fields = parts.aggregator.fields(parts.optimizer)
    return fields if parts.shields else (*fields, "loss")


LEARN = Phase("search", "train", _sends, search, guard="all")
