"""The linear model of answers, beside scikit-learn's ridge and scipy's conditions of a minimum."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.linear_model import Ridge

from fedbbpt.maths.linear_model import Moments, logits, lowest, moments, slopes
from fedbbpt.maths.softmax import log_softmax

RNG = np.random.default_rng(0)


def loss(z, base, slope, targets, centre, decay, prox):
    """What ``lowest`` minimises, spelt out in loops."""
    s = np.array(base)
    for row in range(len(centre)):
        for i in range(centre.shape[1]):
            s += (z[row, i] - centre[row, i]) * slope[row, i]
    cross = -(targets * log_softmax(s)).sum(axis=1).mean()
    return cross + decay / 2 * (z**2).sum() + prox / 2 * ((z - centre) ** 2).sum()


@pytest.mark.parametrize("count", [3, 40], ids=["fewer moves than numbers", "more"])
def test_slopes_are_ridge_regressions(count):
    moves, changes = RNG.normal(size=(2, count, 5)), RNG.normal(size=(2, count, 4, 3))
    found = slopes(moments(moves, changes), ridge=0.5)
    penalty = 0.5 * (moves**2).sum(axis=2).mean()
    for row in range(2):
        told = changes[row].reshape(count, -1)
        model = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky").fit(moves[row], told)
        np.testing.assert_allclose(found[row].reshape(5, -1), model.coef_.T, rtol=1e-9)


def test_rounds_add_up():
    moves, changes = RNG.normal(size=(1, 12, 4)), RNG.normal(size=(1, 12, 2, 2))
    parts = [moments(moves[:, s], changes[:, s]) for s in (slice(0, 5), slice(5, 12))]
    added = Moments(*map(np.add, *parts))
    for one, other in zip(added, moments(moves, changes), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_linear_box_is_known_exactly_from_as_many_moves_as_it_has_numbers():
    slope, moves = RNG.normal(size=(1, 6, 4, 3)), RNG.normal(size=(1, 6, 6))
    changes = np.einsum("rkd,rdbc->rkbc", moves, slope)
    np.testing.assert_allclose(slopes(moments(moves, changes), 1e-12), slope, rtol=1e-6)


def test_a_candidate_without_an_answer_is_left_out():
    moves, changes = RNG.normal(size=(1, 9, 4)), RNG.normal(size=(1, 9, 2, 2))
    changes[0, [2, 7]] = np.nan
    heard = np.isfinite(changes[0]).all(axis=(1, 2))
    fewer = slopes(moments(moves[:, heard], changes[:, heard]), 0.1)
    np.testing.assert_array_equal(slopes(moments(moves, changes), 0.1), fewer)


def test_of_nothing_nothing_changes():
    none = moments(RNG.normal(size=(1, 3, 4)), np.full((1, 3, 2, 2), np.nan))
    assert not slopes(none, 0.1).any()


@pytest.mark.parametrize("rows", [1, 3])
def test_the_lowest_point_has_no_slope(rows):
    base, slope = logits(RNG.normal(size=(6, 3))), RNG.normal(size=(rows, 4, 6, 3))
    targets, centre = np.eye(3)[[0, 1, 2, 0, 1, 2]], RNG.normal(size=(rows, 4))
    found = lowest(base, slope, targets, centre, 0.02, 0.5)

    def at(flat):
        return loss(flat.reshape(centre.shape), base, slope, targets, centre, 0.02, 0.5)

    gradient = approx_fprime(found.ravel(), at, 1e-6)
    before = np.linalg.norm(approx_fprime(centre.ravel(), at, 1e-6))
    assert np.linalg.norm(gradient) < 1e-3 * before
    assert at(found.ravel()) < at(centre.ravel())


def test_an_example_without_an_answer_pulls_nowhere():
    base, slope = logits(RNG.normal(size=(5, 2))), RNG.normal(size=(1, 3, 5, 2))
    targets, centre, kept = np.eye(2)[[0, 1, 0, 1, 0]], np.zeros((1, 3)), [0, 1, 3]
    base[[2, 4]] = np.nan
    fewer = lowest(base[kept], slope[:, :, kept], targets[kept], centre, 0.1, 0.1)
    np.testing.assert_allclose(lowest(base, slope, targets, centre, 0.1, 0.1), fewer, rtol=1e-12)
    none = np.full_like(base, np.nan)
    np.testing.assert_array_equal(lowest(none, slope, targets, centre, 0.1, 0.1), centre)
