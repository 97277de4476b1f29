"""The sign test: exact for coins, and no more often wrong than it may be of clients that differ."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import fftconvolve
from scipy.stats import binom, binomtest

from fedbbpt.maths.signs import LEAST, chance
from fedbbpt.random import stream


@given(st.integers(0, 60), st.integers(0, 60))
def test_it_is_the_chance_of_so_many_heads(better, worse):
    both = better + worse
    exact = binomtest(better, both, 0.5, alternative="greater").pvalue if both else 1.0
    assert chance(better, worse) == pytest.approx(exact, rel=1e-9)


def test_a_chance_has_a_logarithm():
    assert chance(0, 0) == chance(0, 9) == 1
    assert chance(10**5, 0) == LEAST and chance(9000, 10**4) == pytest.approx(1)


def counted(size, gained, lost):
    """(size + 1, size + 1) chances of so many better and so many worse."""
    better = np.arange(size + 1)[:, None]
    rest = lost / (1 - gained) if gained < 1 else 0.0
    chances = binom.pmf(better, size, gained)
    return chances * binom.pmf(np.arange(size + 1), size - better, min(1.0, rest))


def test_clients_that_gain_what_others_lose_do_not_fool_it():
    """All outcomes of two clients whose mean gains add up to 0, of a thousand such pairs."""
    rng, worst = stream(0, "signs"), 0.0
    for _ in range(1000):
        sizes = rng.integers(2, 40, 2)
        gained, lost, _ = rng.dirichlet([0.5] * 3)
        change = (gained - lost) * sizes[0] / sizes[1]
        if abs(change) > 1:
            continue
        other = rng.uniform(max(change, 0.0), (1 + change) / 2)
        table = fftconvolve(
            counted(sizes[0], gained, lost), counted(sizes[1], other - change, other)
        )
        wins, losses = np.indices(table.shape)
        luck = binom.sf(wins - 1, wins + losses, 0.5)
        worst = max(worst, *(table[luck <= alpha].sum() / alpha for alpha in (0.0125, 0.05)))
    assert 0.5 < worst <= 1
