"""The search for hyper-parameters: its gradient, its end, and what it does with little data."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.spatial.distance import cdist
from scipy.stats import gamma
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk

from fedbbpt.maths.gp import Matern, condition, observe
from fedbbpt.maths.gp_fit import Prior, _likelihood, fit

FLAT = Prior((1.0, np.inf), (1.0, np.inf), (0.1, np.inf))


def sample(n, noise=0.04, seed=0, repeats=0):
    """A draw from a process with amplitude 1 and lengthscale .7, seen with known noise."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-2, 2, (n, 2))
    points[n - repeats :] = points[:repeats]
    covariance = Matern(1.0, np.array([0.7]))(points, points) + 1e-10 * np.eye(n)
    weights = rng.uniform(0.5, 8, n)
    values = np.linalg.cholesky(covariance) @ rng.standard_normal(n)
    return points, values + np.sqrt(noise / weights) * rng.standard_normal(n), weights


@pytest.mark.parametrize("mean", [None, 0.3])
@pytest.mark.parametrize("ard", [False, True])
def test_the_likelihood_is_the_posteriors_and_its_slope_its_own(ard, mean):
    seen = observe(*sample(30, repeats=9))
    theta = np.array([0.3, *([-0.2, 0.4] if ard else [-0.2]), -1.5])
    distance = None if ard else cdist(seen.points, seen.points)
    value, slope = _likelihood(theta, seen, distance, mean)
    kernel = Matern(np.exp(0.3), np.exp(theta[1:-1]))
    direct = condition(kernel, seen, np.exp(-1.5), mean).log_likelihood() - seen.log_weights
    assert value == pytest.approx(-direct, abs=1e-9)
    numeric = approx_fprime(theta, lambda t: _likelihood(t, seen, distance, mean)[0], 1e-6)
    np.testing.assert_allclose(slope, numeric, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prior", [Prior(), Prior(gamma=(3.0, 6.0))], ids=["normal", "gamma"])
def test_the_prior_and_its_slope(prior):
    one, other = np.array([0.3, -0.2, 0.4, -1.5]), np.array([-0.1, 0.6, -0.7, 0.2])
    numeric = approx_fprime(one, lambda t: prior.penalty(t, 2)[0], 1e-7)
    np.testing.assert_allclose(prior.penalty(one, 2)[1], numeric, atol=1e-5)

    def log_density(theta):
        z = (theta - np.log([1.0, 1.0, 1.0, 0.1])) / np.array([1.0, 1.0, 1.0, 1.5])
        if prior.gamma is None:
            return -0.5 * (z**2).sum()
        return (
            gamma(3.0, scale=1 / 6.0).logpdf(np.exp(theta[1:3])).sum()
            - 0.5 * (z[[0, 3]] ** 2).sum()
        )

    difference = prior.penalty(one, 2)[0] - prior.penalty(other, 2)[0]
    assert difference == pytest.approx(log_density(other) - log_density(one))


@pytest.mark.parametrize("ard", [False, True])
def test_no_less_likely_than_what_scikit_learn_finds(ard):
    points, values, _ = sample(80, noise=2.0)
    start = [1.0, 1.0] if ard else 1.0
    theirs = GaussianProcessRegressor(
        sk.ConstantKernel(1.0) * sk.Matern(start, nu=2.5) + sk.WhiteKernel(0.1),
        alpha=0.0,
        n_restarts_optimizer=2,
        random_state=0,
    ).fit(points, values)
    seen = observe(points, values)
    kernel, noise = fit(seen, FLAT, ard=ard, mean=0.0, rng=np.random.default_rng(0))
    ours = condition(kernel, seen, noise, mean=0.0).log_likelihood()
    assert ours > theirs.log_marginal_likelihood_value_ - 1e-3
    # A free constant mean can only be more likely.
    kernel, noise = fit(seen, FLAT, ard=ard, rng=np.random.default_rng(0))
    assert condition(kernel, seen, noise).log_likelihood() > ours - 1e-3


def test_the_truth_is_found():
    kernel, noise = fit(observe(*sample(300, repeats=100)))
    assert noise == pytest.approx(0.04, rel=0.25)
    assert kernel.lengthscale[0] == pytest.approx(0.7, rel=0.25)
    assert kernel.amplitude == pytest.approx(1.0, rel=0.6)


def test_a_dimension_that_does_not_matter_gets_a_long_scale():
    rng = np.random.default_rng(3)
    points = rng.uniform(-1, 1, (60, 3))
    kernel, _ = fit(observe(points, np.sin(4 * points[:, 1])), FLAT, ard=True)
    assert kernel.lengthscale[1] < 0.2 * kernel.lengthscale[[0, 2]].min()


def test_units_do_not_matter():
    """Values of ten times the size and elsewhere: amplitude and noise a hundredfold."""
    points, values, weights = sample(40, repeats=10)
    kernel, noise = fit(observe(points, values, weights))
    other, louder = fit(observe(points, 10 * values + 50, weights))
    np.testing.assert_allclose(other.lengthscale, kernel.lengthscale, rtol=1e-3)
    assert other.amplitude == pytest.approx(100 * kernel.amplitude, rel=1e-3)
    assert louder == pytest.approx(100 * noise, rel=1e-3)


def test_restarts_follow_the_generator_and_do_no_harm():
    seen = observe(*sample(15, seed=4))

    def posterior(**options):
        kernel, noise = fit(seen, FLAT, **options)
        return condition(kernel, seen, noise)

    one, same = (posterior(restarts=5, rng=np.random.default_rng(1)) for _ in range(2))
    assert (one.kernel.amplitude, one.noise) == (same.kernel.amplitude, same.noise)
    assert one.log_likelihood() >= posterior(restarts=0).log_likelihood() - 1e-9


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [0.0, 1.0]])
def test_little_data_leave_the_prior_standing(values):
    points = np.arange(float(len(values)))[:, None]
    kernel, noise = fit(observe(points, np.array(values)), rng=np.random.default_rng(0))
    assert 0.05 < kernel.lengthscale[0] < 20 and 0 < noise < 10 * kernel.amplitude
    there = condition(kernel, observe(points, np.array(values)), noise).at(np.array([[7.0]]))
    assert np.isfinite(there.mean).all() and there.variance[0] > 0
