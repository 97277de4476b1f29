"""Gaussian-process regression beside scikit-learn and beside its formulas written down plainly."""

import time

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk

from fedbbpt.maths.gp import Matern, condition, observe
from fedbbpt.maths.gp_fit import fit

LENGTHS = {"one lengthscale": np.array([0.8]), "one each": np.array([0.4, 1.0, 2.5])}


def data(n=40, repeats=0, seed=0):
    """Points, values and weights; the last few points are those of the first."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (n, 3))
    points[n - repeats :] = points[:repeats]
    values = np.sin(3 * points[:, 0]) + points[:, 1] ** 2 + 0.1 * rng.standard_normal(n)
    return points, values, rng.uniform(1, 20, n)


def plain(points, values, weights, length, amplitude, noise, mean, where):
    """The textbook's equations, with inverses and loops, one row for every observation."""

    def k(x, y):
        r = np.sqrt(5) * np.linalg.norm((x - y) / length)
        return amplitude * (1 + r + r * r / 3) * np.exp(-r)

    among = np.array([[k(x, y) for y in points] for x in points])
    across = np.array([[k(x, y) for y in points] for x in where])
    there = np.array([[k(x, y) for y in where] for x in where])
    seen = among + np.diag(noise / weights)
    inverse = np.linalg.inv(seen)
    if mean is None:
        mean = inverse.sum(axis=0) @ values / inverse.sum()
    likelihood = multivariate_normal(np.full(len(values), mean), seen).logpdf(values)
    mu = mean + across @ inverse @ (values - mean)
    return mu, there - across @ inverse @ across.T, likelihood


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_as_scikit_learn_has_it(length):
    points, values, weights = data()
    where = np.random.default_rng(1).uniform(-2, 2, (30, 3))
    scale = length if len(length) > 1 else float(length[0])
    theirs = GaussianProcessRegressor(
        sk.ConstantKernel(1.7) * sk.Matern(scale, nu=2.5), alpha=0.3 / weights, optimizer=None
    ).fit(points, values)
    mean, covariance = theirs.predict(where, return_cov=True)
    seen = observe(points, values, weights)
    ours = condition(Matern(1.7, length), seen, 0.3, mean=0.0)
    there = ours.at(where)
    np.testing.assert_allclose(there.mean, mean, atol=1e-8)
    np.testing.assert_allclose(there.covariance(), covariance, atol=1e-8)
    np.testing.assert_allclose(there.variance, np.diag(covariance), atol=1e-8)
    expected = theirs.log_marginal_likelihood_value_
    assert ours.log_likelihood() == pytest.approx(expected, abs=1e-8)
    np.testing.assert_allclose(ours.fitted, ours.at(seen.points).mean, atol=1e-10)


@pytest.mark.parametrize("mean", [None, 0.4])
@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_as_the_textbook_has_it_with_every_repeat_a_row_of_its_own(length, mean):
    """Merging the observations of a point changes neither the posterior nor the likelihood."""
    points, values, weights = data(20, repeats=8)
    points[12] = points[0]  # one point three times
    where = np.random.default_rng(1).uniform(-1, 1, (6, 3))
    mu, covariance, likelihood = plain(points, values, weights, length, 1.7, 0.3, mean, where)
    seen = observe(points, values, weights)
    assert (len(seen.points), seen.repeats) == (12, 8)
    np.testing.assert_array_equal(seen.points[seen.group], points)
    ours = condition(Matern(1.7, length), seen, 0.3, mean)
    np.testing.assert_allclose(ours.at(where).mean, mu, atol=1e-9)
    np.testing.assert_allclose(ours.at(where).covariance(), covariance, atol=1e-9)
    assert ours.log_likelihood() == pytest.approx(likelihood, abs=1e-8)


def test_golden_mean_of_two_observations():
    """Precisions 1 and 3: (0 + 3 * 8) / 4."""
    seen = observe(np.zeros((2, 1)), np.array([0.0, 8.0]), np.array([1.0, 3.0]))
    assert (seen.values, seen.weights) == (np.array([6.0]), np.array([4.0]))
    assert seen.scatter == 1 * 36 + 3 * 4


def test_without_noise_it_goes_through_the_data_and_far_away_it_is_the_prior():
    points, values, _ = data()
    ours = condition(Matern(1.7, np.array([0.8])), observe(points, values), 0.0)
    there = ours.at(points)
    np.testing.assert_allclose(there.mean, values, atol=1e-9)
    np.testing.assert_allclose(there.variance, 0.0, atol=1e-9)
    away = ours.at(np.full((1, 3), 1e3))
    assert (away.mean[0], away.variance[0]) == (pytest.approx(ours.mean), pytest.approx(1.7))


def test_a_fantasy_is_an_observation_of_what_was_expected():
    points, values, weights = data()
    where = np.random.default_rng(1).uniform(-1, 1, (6, 3))
    kernel, seen = Matern(1.7, np.array([0.8])), observe(points, values, weights)
    before = condition(kernel, seen, 0.3, mean=0.2).at(where)
    after = before.believe(2, noise=0.1).believe(4, noise=0.1)
    more = observe(
        np.concatenate([points, where[[2, 4]]]),
        np.concatenate([values, before.mean[[2, 4]]]),
        np.concatenate([weights, [3.0, 3.0]]),  # .3 / 3 = .1
    )
    refitted = condition(kernel, more, 0.3, mean=0.2).at(where)
    np.testing.assert_allclose(after.mean, refitted.mean, atol=1e-10)
    np.testing.assert_allclose(after.variance, refitted.variance, atol=1e-10)
    np.testing.assert_allclose(after.covariance(), refitted.covariance(), atol=1e-10)


def test_points_that_almost_coincide_take_jitter():
    points = np.array([[0.0], [1e-9], [2e-9], [1.0]])
    ours = condition(Matern(1.0, np.array([1.0])), observe(points, np.arange(4.0)), 0.0)
    there = ours.at(np.array([[0.0], [0.5], [1.0]]))
    assert np.isfinite(there.mean).all() and there.mean[2] == pytest.approx(3.0, abs=0.01)


def test_what_is_no_covariance_is_refused():
    class Wrong(Matern):
        def __call__(self, a, b):
            return -super().__call__(a, b)

    points, values, _ = data()
    with pytest.raises(np.linalg.LinAlgError, match="no covariance"):
        condition(Wrong(1.0, np.array([1.0])), observe(points, values), 0.1)


@pytest.mark.parametrize(
    ("values", "weights", "sentence"),
    [
        (np.zeros(0), None, "one observation or more"),
        (np.array([1.0, np.nan]), None, "all finite"),
        (np.array([1.0, 2.0]), np.array([1.0, 0.0]), "above 0; the least is 0"),
        (np.array([1.0, 2.0]), np.array([1.0, np.inf]), "above 0"),
    ],
)
def test_what_cannot_be_observed(values, weights, sentence):
    with pytest.raises(ValueError, match=sentence):
        observe(np.arange(float(len(values)))[:, None], values, weights)


def test_the_largest_problem_takes_less_than_a_second():
    """200 observations, 500 candidates of 384 dimensions: processor time, all cores together."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((700, 384))
    values = points[:200] @ rng.standard_normal(384) + rng.standard_normal(200)
    began = time.process_time()
    seen = observe(points[:200], values, rng.uniform(1, 20, 200))
    kernel, noise = fit(seen, rng=rng)
    covariance = condition(kernel, seen, noise).at(points[200:]).covariance()
    assert time.process_time() - began < 3.0  # .1 on one quiet core
    assert covariance.shape == (500, 500)
