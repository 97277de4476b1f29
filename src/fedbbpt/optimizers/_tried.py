"""The state of searches that keep one point and try candidates against it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.types import Space


class TriedState(NamedTuple):
    """A point, and the candidates of the last step.

    Attributes:
        point: the point kept, of the space's shape; one-hot rows in a categorical space.
        step: (), int64, steps behind it.
        idle: (), int64, how many of the last ones left the point where it was.
        tried: (K, *shape), the point as it was, first, and what was tried against it.
        losses: (K,) theirs, 0 where there was no answer.
        answered: (K,), bool.
        categorical: (), bool, the kind of the space; follows from it and does not travel.
    """

    point: Array
    step: Array
    idle: Array
    tried: Array
    losses: Array
    answered: Array
    categorical: Array


def start(space: Space) -> TriedState:
    """At the starting prompt: zeros, or the first choice in every row."""
    point, categorical = np.zeros(space.shape), space.kind == "categorical"
    if categorical:
        point[..., 0] = 1.0
    tried, losses, answered = np.zeros((0, *space.shape)), np.zeros(0), np.zeros(0, np.bool_)
    none = np.array(0)
    return TriedState(point, none, none, tried, losses, answered, np.array(categorical))


def keep_best(state: TriedState, tried: Array, losses: Array) -> TriedState:
    """Move to the candidate of lowest loss; not at all without an answer for the point itself."""
    answered = np.isfinite(losses)
    best = int(np.argmin(np.where(answered, losses, np.inf))) if answered[0] else 0
    told = np.where(answered, losses, 0.0)
    return moved(state, tried, best)._replace(tried=tried.copy(), losses=told, answered=answered)


def moved(state: TriedState, tried: Array, chosen: int) -> TriedState:
    """One step on: to the candidate at this place, 0 being the point itself."""
    idle = np.asarray(0 if chosen else state.idle + 1)
    point = tried[chosen].copy() if len(tried) else state.point
    return state._replace(point=point, step=np.asarray(state.step + 1), idle=idle)
