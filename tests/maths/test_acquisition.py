"""Acquisitions beside what many draws say."""

import numpy as np
import pytest

from fedbbpt.maths.acquisition import (
    believe_batch,
    expected_improvement,
    log_expected_improvement,
    thompson_batch,
)
from fedbbpt.maths.gp import Matern, condition, observe


def process(n=8, m=60, seed=0, noise=0.05):
    """A posterior and m places to look at."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-2, 2, (n, 1))
    values = np.sin(2 * points[:, 0]) + np.sqrt(noise) * rng.standard_normal(n)
    posterior = condition(Matern(1.0, np.array([0.6])), observe(points, values), noise)
    return posterior, posterior.at(np.linspace(-2, 2, m)[:, None])


def draws(predictions, number, seed=1):
    """(number, m) functions, by eigenvectors: not the way that is tested."""
    values, vectors = np.linalg.eigh(predictions.covariance())
    z = np.random.default_rng(seed).standard_normal((number, len(values)))
    return predictions.mean + z * np.sqrt(values.clip(0)) @ vectors.T


# --- expected improvement ------------------------------------------------------------------------


def test_expected_improvement_is_the_mean_improvement():
    posterior, there = process()
    best = posterior.fitted.min()
    seen = np.maximum(best - draws(there, 40_000), 0.0)
    error = seen.std(axis=0) / np.sqrt(len(seen))
    ours = expected_improvement(there.mean, there.variance, best)
    assert (np.abs(ours - seen.mean(axis=0)) < 4.5 * error + 1e-6).all()
    assert ours.max() > 0.01


def test_golden_numbers():
    """phi(0) = .39894; and at z = 1: phi(1) + Phi(1) = .24197 + .84134."""
    ours = expected_improvement(np.array([0.0, -2.0, 1.0, -1.0]), np.array([1, 4, 0, 0.0]), 0.0)
    np.testing.assert_allclose(ours, [0.3989423, 2 * 1.0833155, 0.0, 1.0], rtol=1e-6)


def test_the_logarithm_is_the_logarithm():
    z = np.linspace(-6, 6, 500)
    plain = expected_improvement(-z, np.ones(500), 0.0)
    np.testing.assert_allclose(log_expected_improvement(-z, np.ones(500), 0.0), np.log(plain), 1e-6)
    ours = log_expected_improvement(np.array([3.0, -3.0]), np.array([0.0, 0.0]), 0.0)
    np.testing.assert_array_equal(ours, [-np.inf, np.log(3.0)])


def test_the_logarithm_goes_on_where_the_improvement_is_no_number_any_more():
    """h(-x) = phi(x) / x^2 (1 - 3 / x^2 + 15 / x^4 - 105 / x^6 + ...)."""
    x = np.array([30.0, 100.0, 9_999.0, 10_001.0, 1e8])
    series = np.log1p(-3 / x**2 + 15 / x**4 - 105 / x**6)
    expected = -0.5 * x**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(x) + series
    ours = log_expected_improvement(x, np.ones(5), 0.0)
    np.testing.assert_allclose(ours - expected, 0.0, atol=1e-6)
    assert expected_improvement(x[1:], np.ones(4), 0.0).max() == 0
    steps = np.diff(log_expected_improvement(np.linspace(0, 2e4, 9999), np.ones(9999), 0.0))
    assert (steps < 0).all()


# --- batches -------------------------------------------------------------------------------------


def test_a_batch_holds_no_point_twice_and_begins_with_the_best():
    posterior, there = process()
    best, ranks = posterior.fitted.min(), np.zeros(60, int)
    rows = believe_batch(there, best, 0.05, 60, ranks)
    assert sorted(rows) == list(range(60))
    ei = expected_improvement(there.mean, there.variance, best)
    assert rows[0] == ei.argmax()
    drawn = thompson_batch(there, 60, ranks, np.random.default_rng(0))
    assert sorted(drawn) == list(range(60))


@pytest.mark.parametrize("seed", range(5))
def test_each_choice_knows_the_fantasies_before_it(seed):
    """The same as refitting with what was expected of the earlier ones, in place of what they are;
    what is expected may be lower than at any point seen.
    """
    posterior, there = process(seed=seed)
    rows = believe_batch(there, float(posterior.fitted.min()), 0.05, 6, np.zeros(60, int))
    for chosen in range(1, 6):
        before = rows[:chosen]
        points = np.concatenate([posterior.seen.points, there.points[before]])
        values = np.concatenate([posterior.seen.values, there.mean[before]])
        after = condition(posterior.kernel, observe(points, values), 0.05, posterior.mean)
        left = np.setdiff1d(np.arange(60), before)
        again = after.at(there.points[left])
        # The noise of the eight points seen keeps what is expected of them where it was.
        lowest = min(posterior.fitted.min(), there.mean[before].min())
        assert after.fitted.min() == pytest.approx(lowest, abs=1e-9)
        ei = expected_improvement(again.mean, again.variance, lowest)
        assert left[ei.argmax()] == rows[chosen]


def test_fantasies_bring_more_than_the_best_points_one_by_one():
    """Mean improvement of the best of four, over draws of the function."""
    better = 0
    for seed in range(6):
        posterior, there = process(seed=seed, m=120)
        best = float(posterior.fitted.min())
        rows = believe_batch(there, best, 0.05, 4, np.zeros(120, int))
        ei = expected_improvement(there.mean, there.variance, best)
        functions = draws(there, 20_000)
        together, alone = (
            np.maximum(best - functions[:, chosen].min(axis=1), 0).mean()
            for chosen in (rows, np.argsort(-ei)[:4])
        )
        better += together > alone
    assert better == 6


def test_thompson_sampling_chooses_a_point_as_often_as_it_is_the_lowest():
    _, there = process(m=12)
    lowest = np.bincount(draws(there, 40_000).argmin(axis=1), minlength=12) / 40_000
    ranks, rng = np.zeros(12, int), np.random.default_rng(5)
    chosen = np.array([thompson_batch(there, 1, ranks, rng)[0] for _ in range(4000)])
    ours = np.bincount(chosen, minlength=12) / 4000
    np.testing.assert_allclose(ours, lowest, atol=0.035)  # 4.5 standard errors at 1/2
    assert (lowest > 0.05).sum() > 2


def test_thompson_sampling_where_nothing_is_uncertain():
    points = np.linspace(-1, 1, 30)[:, None]
    posterior = condition(Matern(1.0, np.array([0.6])), observe(points, points[:, 0] ** 2), 1e-9)
    there = posterior.at(np.linspace(-1, 1, 200)[:, None])
    row = thompson_batch(there, 1, np.zeros(200, int), np.random.default_rng(0))[0]
    assert abs(there.points[row, 0]) < 0.1


@pytest.mark.parametrize("kind", ["ei", "thompson"])
def test_lower_ranks_go_first(kind):
    posterior, there = process()
    ranks = np.where(np.arange(60) < 5, 0, np.where(np.arange(60) < 8, 1, 2))
    if kind == "ei":
        rows = believe_batch(there, posterior.fitted.min(), 0.05, 10, ranks)
    else:
        rows = thompson_batch(there, 10, ranks, np.random.default_rng(0))
    assert ranks[rows].tolist() == [0] * 5 + [1] * 3 + [2] * 2
