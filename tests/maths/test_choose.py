"""Which snapshot is kept: the last, unless another is lower by more than a standard error."""

import numpy as np
import pytest

from fedbbpt.maths.choose import choose


def chosen(rows):
    """From (S, n) losses of single examples."""
    rows = np.array(rows, np.float64)
    return choose(rows.mean(axis=1), ((rows - rows[-1]) ** 2).mean(axis=1), rows.shape[1])


@pytest.mark.parametrize(
    ("rows", "which"),
    [
        ([[2, 2, 2, 2], [1, 1, 1, 1]], 1),
        # An over-fit: every example is better off before.
        ([[3, 3, 3, 3], [1, 1, 2, 2], [2, 2, 3, 3]], 1),
        # A search that never helped.
        ([[1, 1, 1, 1], [2, 3, 2, 3]], 0),
        # Lower by less than its standard error: a gain of .25 beside one of .75.
        ([[0, 2, 2, 2], [3, 1, 2, 1]], 1),
        # Two surely better ones: the lower; of equal ones the one that moved less.
        ([[2, 2], [1, 1], [0, 0], [0, 0], [3, 3]], 2),
        # The last gave no answer.
        ([[2, 2], [1, 1], [np.nan, 1]], 1),
    ],
)
def test_which_is_kept(rows, which):
    assert chosen(rows) == which
