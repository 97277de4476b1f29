"""Robust merges beside their papers' formulas in plain numpy, and what they promise of liars."""

import math
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.maths.robust import fewest, krum, median, trimmed_mean

COORDINATES = 3
usual = st.floats(-10, 10)
anything = st.one_of(usual, st.floats(-1e300, 1e300), st.sampled_from([1e300, -1e300, 0.0, -0.0]))


def rows(numbers, least, most):
    each = st.lists(numbers, min_size=COORDINATES, max_size=COORDINATES)
    return st.lists(each, min_size=least, max_size=most).map(
        lambda lists: np.array(lists, np.float64).reshape(-1, COORDINATES)
    )


@st.composite
def cohorts(draw, most_bad):
    """(honest rows, hostile rows, hostile count allowed): at most ``most_bad(honest)`` hostile."""
    honest = draw(rows(usual, 3, 8))
    hostile = draw(rows(anything, 0, most_bad(len(honest))))
    return honest, hostile


def mixed(honest, hostile, draw):
    """Both kinds of rows in some order."""
    together = np.concatenate([honest, hostile])
    return together[draw(st.permutations(range(len(together))))]


def within(result, honest):
    return (honest.min(axis=0) <= result).all() and (result <= honest.max(axis=0)).all()


# --- the papers' formulas ------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_the_median_of_equal_weights_is_numpys(k):
    values = np.random.default_rng(k).standard_normal((k, 4, 2))
    for weight in (1.0, 7.0, 0.1):  # ten times .1 is not 1
        np.testing.assert_array_equal(median(values, np.full(k, weight)), np.median(values, axis=0))


@pytest.mark.parametrize("k", [1, 3, 6, 9])
def test_a_whole_weight_is_so_many_rows_of_one(k):
    rng = np.random.default_rng(k)
    values, weights = rng.standard_normal((k, 5)), rng.integers(1, 6, k)
    repeated = np.repeat(values, weights, axis=0)
    np.testing.assert_array_equal(median(values, weights), np.median(repeated, axis=0))
    for cut in (0, 1, (len(repeated) - 1) // 2):
        ends = np.sort(repeated, axis=0)[cut : len(repeated) - cut]
        trimmed = trimmed_mean(values, weights, cut / len(repeated))
        np.testing.assert_allclose(trimmed, ends.mean(axis=0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("k", "trim"), [(10, 0.3), (5, 0.2), (4, 0.25), (100, 0.29), (7, 0.0)])
def test_the_trimmed_mean_is_that_of_yin(k, trim):
    """1 / ((1 - 2 beta) m) times the sum of all but the beta m largest and smallest."""
    values = np.random.default_rng(k).standard_normal((k, 6))
    cut = round(trim * k)
    expected = np.sort(values, axis=0)[cut : k - cut].sum(axis=0) / (k * (1 - 2 * trim))
    np.testing.assert_allclose(trimmed_mean(values, np.full(k, 3.0), trim), expected, rtol=1e-12)


def test_a_row_that_the_cut_goes_through_counts_in_part():
    """Of four, .2 at an end is .8 of one: (.2 * 0 + 1 + 2 + .2 * 100) / 2.4."""
    values = np.array([[100.0], [0.0], [2.0], [1.0]])
    assert trimmed_mean(values, np.ones(4), 0.2)[0] == pytest.approx((3 + 20) / 2.4)


@pytest.mark.parametrize(("k", "bad", "keep"), [(5, 1, 1), (7, 2, 3), (9, 0, 9), (20, 5, 15)])
def test_krum_is_that_of_blanchard(k, bad, keep):
    """s(i) = sum over the n - f - 2 closest j of |V_i - V_j|^2; the lowest scores win."""
    values = np.random.default_rng(k).standard_normal((k, 2, 3))
    scores = []
    for i in range(k):
        squares = [((values[i] - values[j]) ** 2).sum() for j in range(k) if j != i]
        scores.append(sum(sorted(squares)[: k - bad - 2]))
    assert krum(values, bad, keep).tolist() == np.argsort(scores)[:keep].tolist()


def test_equal_scores_are_told_by_place():
    assert krum(np.zeros((6, 2)), 1, 5).tolist() == [0, 1, 2, 3, 4]


# --- laws ----------------------------------------------------------------------------------------


@given(st.data())
def test_no_bit_depends_on_the_order(data):
    """Zeros of both signs and ties included; weights whose sums depend on their order too."""
    numbers = st.one_of(anything, st.sampled_from([0.0, -0.0, 1.0]))
    values = data.draw(rows(numbers, 1, 7))
    weight = st.sampled_from([1.0, 0.1, 0.3, 1e16, 5.0])
    weights = np.array(data.draw(st.lists(weight, min_size=len(values), max_size=len(values))))
    order = data.draw(st.permutations(range(len(values))))
    for rule in (median, lambda v, w: trimmed_mean(v, w, 0.2)):
        here, there = rule(values, weights), rule(values[order], weights[order])
        assert here.tobytes() == there.tobytes()


@pytest.mark.parametrize(
    ("column", "weights"),
    [
        ([3.3, 1.1, 1.1, 1.0, 1.0], [0.1, 0.1, 0.1, 0.1, 0.9]),
        ([-0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
    ],
)
def test_nor_do_ties(column, weights):
    values, weights = np.array(column)[:, None], np.array(weights)
    for rule in (median, lambda v, w: trimmed_mean(v, w, 0.1)):
        orders = map(list, permutations(range(len(values))))
        assert len({rule(values[order], weights[order]).tobytes() for order in orders}) == 1


def test_krum_keeps_the_same_rows_in_any_order():
    values = np.random.default_rng(0).standard_normal((5, 3))
    kept = values[krum(values, 1, 2)]
    for order in permutations(range(5)):
        np.testing.assert_array_equal(values[[*order]][krum(values[[*order]], 1, 2)], kept)


@given(st.data())
def test_fewer_than_half_cannot_move_the_median_out(data):
    honest, hostile = data.draw(cohorts(lambda honest: honest - 1))
    together = mixed(honest, hostile, data.draw)
    assert within(median(together, np.ones(len(together))), honest)


@given(st.data())
def test_the_share_that_is_trimmed_cannot_move_the_mean_out(data):
    honest, hostile = data.draw(cohorts(lambda honest: honest - 1))
    together = mixed(honest, hostile, data.draw)
    trim = len(hostile) / len(together)
    assert within(trimmed_mean(together, np.ones(len(together)), trim), honest)


@given(st.data())
def test_it_is_the_share_of_weight_that_counts(data):
    """A few heavy liars are as many, and many light ones are few."""
    honest, hostile = data.draw(cohorts(lambda _: 8))
    weight = st.integers(1, 1000)
    size = len(honest) + len(hostile)
    weights = np.array(data.draw(st.lists(weight, min_size=size, max_size=size)), np.float64)
    together, lies = np.concatenate([honest, hostile]), weights[len(honest) :].sum()
    if 2 * lies < weights.sum():
        assert within(median(together, weights), honest)
        assert within(trimmed_mean(together, weights, lies / weights.sum()), honest)


@given(st.data())
def test_krum_keeps_nobody_far_from_the_honest(data):
    bad = data.draw(st.integers(0, 3))
    honest = data.draw(rows(usual, bad + 3, bad + 6))
    hostile = data.draw(rows(anything, bad, bad))
    together = mixed(honest, hostile, data.draw)
    k = len(together)
    keep = data.draw(st.integers(1, k - bad))
    diameter = max(np.linalg.norm(one - other) for one in honest for other in honest)
    reach = math.sqrt((k - bad - 2) / (k - 2 * bad - 1)) * diameter
    for row in together[krum(together, bad, keep)]:
        away = min(np.linalg.norm((row - one) / 1e200) for one in honest) * 1e200
        assert away <= reach * (1 + 1e-9) + 1e-180 or any((row == one).all() for one in honest)


@given(rows(anything, 1, 1), st.integers(1, 6))
def test_what_all_say_is_what_comes_out(row, k):
    values, weights = np.repeat(row, k, axis=0), np.arange(1.0, k + 1)
    np.testing.assert_array_equal(median(values, weights), row[0])
    np.testing.assert_array_equal(trimmed_mean(values, weights, 0.2), row[0])


def test_whoever_has_more_than_half_decides_the_median():
    values = np.array([[5.0], [1.0], [2.0], [3.0]])
    assert median(values, np.array([3.1, 1, 1, 1])) == 5
    assert median(values, np.array([3.0, 1, 1, 1])) == 4  # exactly half: between 3 and 5
    assert median(values, np.array([2.9, 1, 1, 1])) == 3


def test_a_cut_that_is_whole_but_for_rounding_leaves_no_trace():
    """.29 * 100 is 28.999999999999996; the 29th liar must not count with what is missing."""
    values = np.concatenate([np.zeros((71, 1)), np.full((29, 1), 1e300)])
    assert trimmed_mean(values, np.ones(100), 0.29) == 0


def test_the_largest_numbers_do_not_overflow():
    top = np.finfo(float).max
    values = np.array([[top], [top], [-top], [1.0], [1.5], [1.25], [1.125]])
    assert median(values[:2], np.ones(2)) == top
    assert np.isfinite(trimmed_mean(values[:3], np.ones(3), 0.1)).all()
    assert set(krum(values, 2, 4).tolist()) <= {3, 4, 5, 6}
    # Nor do small ones vanish beside them.
    tiny = np.array([[1e-200], [0.0], [3e-200], [1e-180], [top]])
    assert krum(tiny, 1).tolist() == [0]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(wrong):
    values = np.zeros((5, 2))
    values[1, 1] = wrong
    for merge in (median, lambda v, w: trimmed_mean(v, w, 0.2), lambda v, _: krum(v, 1)):
        with pytest.raises(ValueError, match="finite"):
            merge(values, np.ones(5))


@pytest.mark.parametrize("weights", [[1, 0], [1, -1], [1, np.nan], [1, np.inf]])
def test_weights_must_be_above_zero(weights):
    with pytest.raises(ValueError, match="above 0"):
        median(np.zeros((2, 1)), np.array(weights))


@pytest.mark.parametrize("shape", [(0, 2), (3, 2)])
def test_a_row_has_a_weight(shape):
    with pytest.raises(ValueError, match="do not fit"):
        median(np.zeros(shape), np.ones(2))


@pytest.mark.parametrize("trim", [-0.1, 0.5, np.nan])
def test_trim_leaves_something(trim):
    with pytest.raises(ValueError, match="trim"):
        trimmed_mean(np.zeros((3, 1)), np.ones(3), trim)


@pytest.mark.parametrize(
    ("k", "bad", "keep"), [(4, 1, 1), (2, 0, 1), (6, 1, 6), (5, -1, 1), (5, 1, 0)]
)
def test_krum_needs_enough_rows(k, bad, keep):
    with pytest.raises(ValueError, match="rows"):
        krum(np.zeros((k, 1)), bad, keep)


def test_the_fewest_rows_are_enough():
    for bad in range(4):
        for keep in range(1, 8):
            assert len(krum(np.eye(fewest(bad, keep)), bad, keep)) == keep


# --- beside Flower -------------------------------------------------------------------------------


def replies(values, weights):
    app = pytest.importorskip("flwr.app")
    for row, weight in zip(values, weights, strict=True):
        content = app.RecordDict(
            {
                "arrays": app.ArrayRecord({"mean": app.Array(row)}),
                "metrics": app.MetricRecord({"num-examples": int(weight)}),
            }
        )
        # A message of Flower's own is made only within a run.
        yield SimpleNamespace(content=content, has_error=lambda: False)


@pytest.mark.parametrize("k", [5, 10])
def test_flower_comes_to_the_same(k):
    strategy = pytest.importorskip("flwr.serverapp.strategy")
    rng = np.random.default_rng(k)
    values, weights = rng.standard_normal((k, 2, 3)), rng.integers(1, 9, k)

    def merged(one):
        arrays, _ = one.aggregate_train(1, list(replies(values, weights)))
        return arrays["mean"].numpy()

    equal = np.ones(k)
    np.testing.assert_allclose(merged(strategy.FedMedian()), median(values, equal), rtol=1e-12)
    trimmed = merged(strategy.FedTrimmedAvg(beta=0.2))
    np.testing.assert_allclose(trimmed, trimmed_mean(values, equal, 0.2), rtol=1e-12)
    assert (merged(strategy.Krum(num_malicious_nodes=1)) == values[krum(values, 1)[0]]).all()
    several = strategy.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3)
    kept = krum(values, 1, 3)
    expected = np.average(values[kept], axis=0, weights=weights[kept])
    np.testing.assert_allclose(merged(several), expected, rtol=1e-12)
