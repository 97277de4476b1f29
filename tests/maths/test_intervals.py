import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedbbpt.maths.intervals import mean_interval, paired_p

SCORES = st.lists(st.floats(0, 1).map(lambda x: round(x, 3)), min_size=2, max_size=8)


@given(SCORES)
def test_the_interval_is_students(values):
    mean, half = mean_interval(np.array(values))
    assert mean == pytest.approx(np.mean(values))
    if np.ptp(values) < 1e-9:
        assert half == pytest.approx(0)
        return
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_by_hand():
    """Three seeds: t(.975, 2) is 4.3027, the standard error .1 / sqrt(3)."""
    mean, half = mean_interval(np.array([0.6, 0.7, 0.8]))
    assert (mean, half) == pytest.approx((0.7, 4.30265 * 0.1 / np.sqrt(3)), rel=1e-5)
    assert mean_interval(np.array([0.7])) == (0.7, 0.0)


@given(SCORES.flatmap(lambda one: st.tuples(st.just(one), st.permutations(one))))
def test_the_paired_test_is_scipys(pair):
    one, other = map(np.array, pair)
    if np.ptp(one - other) > 1e-9:
        assert paired_p(one, other) == pytest.approx(stats.ttest_rel(one, other).pvalue)
        assert paired_p(one, other) == pytest.approx(paired_p(other, one))


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [
        ([0.5, 0.7], [0.5, 0.7], 1.0),
        ([0.9, 0.8], [0.8, 0.7], 0.0),  # but for the last bits the same distance
        ([0.5], [0.7], None),
        ([], [], None),
    ],
)
def test_pairs_without_variance(one, other, p):
    assert paired_p(np.array(one), np.array(other)) == p
