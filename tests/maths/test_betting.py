"""Bets: fair whatever clients are like, the same in any order, and never without end."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedbbpt.maths.betting import BETS, evidence, log_wealth

GAINS = np.array([-1.0, 0.0, 1.0])
gains = arrays(np.float64, st.integers(0, 12), elements=st.floats(-1, 1))


@st.composite
def unlike(draw):
    """(chances of -1, 0, 1) of five examples of two clients; their means add up to 0 or less."""
    parts = st.tuples(*[st.floats(0.01, 1)] * 3).map(lambda p: np.array(p) / sum(p))
    one, other = draw(parts), draw(parts)
    total = 3 * one @ GAINS + 2 * other @ GAINS
    if total > 0:
        one, other = one[::-1], other[::-1]
    return [one] * 3 + [other] * 2


@given(unlike())
def test_nothing_is_expected_of_bets_on_what_is_not_so(chances):
    """All 243 outcomes, however unlike two clients are."""
    expected = 0.0
    for which in product(range(3), repeat=5):
        chance = np.prod([p[i] for p, i in zip(chances, which, strict=True)])
        expected += chance * np.exp(evidence(log_wealth(GAINS[list(which)])))
    means = np.array([p @ GAINS for p in chances])
    exact = np.mean([np.prod(1 + bet * means) for bet in BETS])
    assert expected == pytest.approx(exact)
    assert expected <= 1 + 1e-12


@given(gains, st.data())
def test_more_gain_is_more_evidence(mine, data):
    more = mine + data.draw(arrays(np.float64, mine.shape, elements=st.floats(0, 0.5)))
    assert evidence(log_wealth(more)) >= evidence(log_wealth(mine)) - 1e-12


@given(gains, st.randoms())
def test_it_is_the_same_however_examples_are_shared_out(mine, random):
    rows = list(range(len(mine)))
    random.shuffle(rows)
    cut = random.randint(0, len(rows))
    apart = log_wealth(mine[rows[:cut]]) + log_wealth(mine[rows[cut:]])
    np.testing.assert_allclose(apart, log_wealth(mine), atol=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_million_examples_neither_overflow_nor_ruin(sign):
    found = evidence(log_wealth(np.full(10**6, sign)))
    assert found == pytest.approx(10**6 * np.log1p(0.8 if sign > 0 else -0.2), rel=1e-5)
    assert evidence(log_wealth(np.zeros(0))) == 0
