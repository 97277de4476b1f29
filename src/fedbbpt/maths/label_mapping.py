"""From what a classifier says of the clients' examples to what its classes mean for the task.

Clients send, for every class of the task, how much probability the model gave to each of its own S
classes, summed over their examples and rounded to integers. The sums over all clients are the
counts of a multinomial naive Bayes classifier (McCallum & Nigam 1998) whose "words" are the model's
classes. Probabilities are tempered first, p' ~ p**0.2: the many small ones say more together than
the largest one (benchmarks/results/label-mapping.md); an argmax alone is what frequent label
mapping counts (Chen et al., CVPR 2023).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.maths.softmax import log_softmax

TEMPER = 0.2
"""Exponent of the probabilities; any from .15 to .3 does as well."""
UNIT = 10_000
"""Count of one example; a tempered probability is about 1/S, so units must be small."""
STEPS, RATE = 20, 1.0
"""Gradient steps from the counts: none made a set worse, three times as many did."""
SHARPNESSES = tuple(100.0 * 2.0 ** (k / 2) for k in range(9))
"""How many draws an example's probabilities are taken to be, 100 to 1,600. It leaves every answer
as it is and makes the loss speak of more than its own scale."""
SHARPNESS = 400.0
"""Where nobody can say."""
COMMON, PRIOR = 0.1, 0.3
"""Examples that every class is taken to have besides its own, spread evenly over the model's
classes and as all examples together are."""


def tempered(log_p: Array) -> Array:
    """(N, S) tempered probabilities of (N, S) log-probabilities."""
    return np.asarray(np.exp(log_softmax(TEMPER * log_p)))


def count(log_p: Array, targets: Array, classes: int) -> Array:
    """(C, S) int64: summed tempered probabilities of the examples of each class.

    Args:
        log_p: (N, S); rows that are not finite, of examples without an answer, are left out.
        targets: (N,) class indices.
        classes: C.
    """
    answered = np.isfinite(log_p).all(axis=1)
    sums = np.zeros((classes, log_p.shape[1]))
    np.add.at(sums, targets[answered], tempered(log_p[answered]))
    return np.rint(UNIT * sums).astype(np.int64)


def weights(counts: Array) -> Array:
    """(C, S) float32 log-probabilities of the model's classes given the task's, from all clients'
    summed counts: log of (T_cs + PRIOR m_s) / (T_c + PRIOR), m the same of all classes together.
    """
    sums = counts / UNIT
    every = sums.sum(axis=0)
    overall = (every + COMMON) / (every.sum() + COMMON * every.size)
    shares = (sums + PRIOR * overall) / (sums.sum(axis=1, keepdims=True) + PRIOR)
    return np.asarray(np.log(shares), np.float32)


def others(total: Array, own: Array) -> Array:
    """(C, S) counts without a client's own; all of them where there is nobody else."""
    rest = total - own
    return rest if rest.any() else total


def scores(log_p: Array, mapping: Array) -> Array:
    """(N, C) log-probabilities of the task's classes: naive Bayes with equal priors.

    Args:
        log_p: (N, S) log-probabilities of the model's classes.
        mapping: (C, S), from :func:`weights`, times a sharpness.
    """
    return log_softmax(tempered(log_p) @ mapping.astype(np.float64).T)


def losses(log_p: Array, targets: Array, counts: Array) -> Array:
    """(len(SHARPNESSES),) mean cross-entropy of answered examples under each sharpness."""
    answered = np.isfinite(log_p).all(axis=1)
    own, rows = targets[answered], np.arange(int(answered.sum()))
    raw = tempered(log_p[answered]) @ weights(counts).astype(np.float64).T
    return np.array([-log_softmax(beta * raw)[rows, own].mean() for beta in SHARPNESSES])


class Slope(NamedTuple):
    """Means over examples, for a step of the mapping.

    Attributes:
        features: (S,) tempered probabilities.
        square: () of their squared length.
        errors: (C,) of the classes' probabilities less what is right.
        product: (C, S) of errors and features.
    """

    features: Array
    square: Array
    errors: Array
    product: Array


def slope(log_p: Array, targets: Array, mapping: Array) -> Slope:
    """Of the cross-entropy of N answered examples under a (C, S) mapping."""
    answered = np.isfinite(log_p).all(axis=1)
    features, own = tempered(log_p[answered]), targets[answered]
    error = np.exp(log_softmax(features @ mapping.astype(np.float64).T))
    error[np.arange(len(own)), own] -= 1.0
    count = max(1, len(own))
    return Slope(
        features.mean(axis=0) if len(own) else np.zeros(log_p.shape[1]),
        np.array((features**2).sum() / count),
        error.sum(axis=0) / count,
        np.asarray(error.T @ features / count, np.float32),  # the only large one that is sent
    )


def step(mapping: Array, mean: Slope) -> Array:
    """The mapping after one gradient step on features that are centred and of length one on
    average, beside a bias that stays; since probabilities add up to one, a bias is part of the
    mapping.
    """
    square = float(mean.square)
    variance = square - float(mean.features @ mean.features)
    centred = mean.product - np.outer(mean.errors, mean.features)
    # Where examples do not differ, the difference is rounding and no variance.
    moved = RATE * len(mapping) * centred / max(variance, 1e-12 * square, 1e-30)
    return np.asarray(mapping - moved + (moved @ mean.features)[:, None], np.float32)
