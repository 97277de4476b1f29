"""Which snapshot to keep, on a few dozen held-back examples."""

from __future__ import annotations

import numpy as np

from fedbbpt.arrays import Array


def choose(losses: Array, squares: Array, examples: float) -> int:
    """The last snapshot, unless another's held-back loss is lower by more than a standard error.

    A few dozen held-back examples rank twenty neighbours hardly better than dice: the plain
    minimum doubles the spread over seeds and lowers the mean (docs/decisions.md). A real
    over-fit, or a search that never helped, still shows.

    Args:
        losses: (S,) mean held-back losses, the starting prompt first.
        squares: (S,) mean squared distance of each example's loss to that of the last snapshot.
        examples: number of held-back examples.
    """
    last = len(losses) - 1
    gain = losses[last] - losses
    error = np.sqrt(np.maximum(0.0, squares - gain**2) / max(1.0, examples - 1))
    better = np.isfinite(losses) & (gain > error)
    if not np.isfinite(losses[last]):
        better = np.isfinite(losses)
    # Of those that are better, the lowest; in a tie the one that moved less.
    return int(np.argmin(np.where(better, losses, np.inf))) if better.any() else last
