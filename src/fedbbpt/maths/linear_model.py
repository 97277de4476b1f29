"""A linear model of what a black box answers, and the point that is best by it.

Scores of B examples in C classes are log-probabilities, so less their mean over the classes they
are logits. Around a point m these are nearly linear in the point: s(z) = s(m) + (z - m) J. Every
paid candidate tells B x C numbers about J where its loss tells one, and J, once known, says where
the loss is lowest without a further query.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.maths.softmax import log_softmax


class Moments(NamedTuple):
    """What candidates tell of the slope; those of several rounds add up field by field.

    Attributes:
        square: (R, d, d) sum of m m' over the moves m of candidates, for each of R rows that are
            moved alone; R = 1 where a point moves as a whole.
        cross: (R, d, B, C) sum of m r' with r the (B, C) changes of the logits.
        tried: (), how many moves, over all rows.
    """

    square: Array
    cross: Array
    tried: Array


def logits(scores: Array) -> Array:
    """Log-probabilities (..., C) less their mean over the classes."""
    return np.asarray(scores - scores.mean(axis=-1, keepdims=True))


def moments(moves: Array, changes: Array) -> Moments:
    """Of K candidates for each row.

    Args:
        moves: (R, K, d) away from one point.
        changes: (R, K, B, C) of the logits. A candidate without any answer is left out; an example
            without an answer to a candidate is taken not to have changed.
    """
    rows, _, size = moves.shape
    heard = np.asarray(np.isfinite(changes).any(axis=(2, 3)))
    turned = (moves * heard[..., None]).swapaxes(1, 2)
    cross = turned @ np.nan_to_num(changes).reshape(*heard.shape, -1)
    shape = (rows, size, *changes.shape[2:])
    return Moments(turned @ moves, cross.reshape(shape), np.array(float(heard.sum())))


def slopes(known: Moments, ridge: float) -> Array:
    """(R, d, B, C), how the logits change with each coordinate, by ridge regression.

    J = (sum m m' + ridge v I)^-1 sum m r' with v the mean squared length of a move. With fewer
    moves than coordinates the rest stays 0, as far as is known.

    Args:
        known: of any number of candidates; of none nothing changes.
        ridge: candidates that "nothing changes" is worth.
    """
    rows, size, *shape = known.cross.shape
    length = np.trace(known.square, axis1=1, axis2=2).sum() / max(known.tried, 1.0)
    square = known.square + ridge * (length or 1.0) * np.eye(size)
    found = np.linalg.solve(square, known.cross.reshape(rows, size, -1))
    return np.asarray(found.reshape(rows, size, *shape))


def lowest(
    base: Array, slope: Array, targets: Array, centre: Array, decay: float, prox: float
) -> Array:
    """(R, d), where cross-entropy on the linear model, held near two points, is lowest.

    min_z 1/B sum_b CE(s_b + (z - m) J_b, y_b) + decay/2 |z|^2 + prox/2 |z - m|^2: FedProx's local
    problem (Li et al., MLSys 2020, equation 2) with a pull to the starting prompt. It is convex,
    and strongly so for prox > 0; L-BFGS needs some twenty products with J.

    Args:
        base: (B, C) logits at the centre; NaN rows are left out.
        slope: (R, d, B, C) as :func:`slopes` gives it.
        targets: (B, C) probabilities that the right answers have.
        centre: (R, d).
        decay, prox: weights of the two pulls.
    """
    from scipy.optimize import minimize

    heard = np.isfinite(base).all(axis=1)
    base, targets = base[heard], targets[heard]
    size, model = base.shape, slope[:, :, heard].reshape(centre.size, -1)
    start = centre.ravel()

    def loss(z: Array) -> tuple[float, Array]:
        log_p = log_softmax(base + ((z - start) @ model).reshape(size))
        error = (np.exp(log_p) - targets) / len(base)
        near = z - start
        value = -(targets * log_p).sum() / len(base) + decay / 2 * z @ z + prox / 2 * near @ near
        return float(value), model @ error.ravel() + decay * z + prox * near

    if not heard.any():
        return centre
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return np.asarray(found.x.reshape(centre.shape))


STEPS = 20
"""Of L-BFGS. Clients stop where the merge begins to matter more than their own last digits."""
