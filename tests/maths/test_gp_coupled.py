"""InstructZero's kernel beside its formula, and what the residual term is for."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.spatial.distance import cdist

from fedbbpt.maths.gp import Matern, condition, observe
from fedbbpt.maths.gp_coupled import Coupled, _likelihood, aligned, fit_coupled

RNG = np.random.default_rng(0)
LATENT, SCORES = RNG.uniform(-1, 1, (12, 10)), RNG.integers(0, 2, (12, 20)).astype(float)


def coupled(residual=1.0, latent=LATENT, scores=SCORES):
    return Coupled(latent, scores, 1.3, np.array([0.9]), np.array([2.0]), residual)


def plain(a, b, residual, eps=1e-4):
    """The formula, with inverses; residual 0 is the publication's."""

    def l(x, y, length):  # noqa: E743 - the paper's name
        return Matern(1.0, np.array([length]))(x, y)

    inverse = np.linalg.inv(l(LATENT, LATENT, 0.9) + eps * np.eye(len(LATENT)))
    left, right = l(a, LATENT, 0.9) @ inverse, inverse @ l(LATENT, b, 0.9)
    published = left @ l(SCORES, SCORES, 2.0) @ right
    return 1.3 * (published + residual * (l(a, b, 0.9) - left @ l(LATENT, b, 0.9)))


@pytest.mark.parametrize("residual", [0.0, 1.0])
def test_as_the_formula_has_it(residual):
    a, b = RNG.uniform(-1, 1, (5, 10)), RNG.uniform(-1, 1, (7, 10))
    kernel = coupled(residual)
    np.testing.assert_allclose(kernel(a, b), plain(a, b, residual), atol=1e-9)
    np.testing.assert_allclose(kernel.diagonal(a), np.diag(plain(a, a, residual)), atol=1e-9)
    every = np.concatenate([a, LATENT])
    assert np.linalg.eigvalsh(kernel(every, every)).min() > -1e-9


def test_the_published_variance_vanishes_away_from_the_data_and_ours_does_not():
    """With it goes everything that an acquisition could find worth exploring."""
    far = np.full((1, 10), 30.0)
    values = RNG.standard_normal(12)
    for kernel, variance in ((coupled(0.0), 0.0), (coupled(1.0), 1.3)):
        assert kernel.diagonal(far)[0] == pytest.approx(variance, abs=1e-6)
        posterior = condition(kernel, observe(LATENT, values), 0.1)
        assert posterior.at(far).variance[0] == pytest.approx(variance, abs=1e-6)


def test_instructions_that_answer_alike_are_alike_however_far_apart():
    latent = np.array([[-1.0], [1.0], [0.0]]) * 5
    scores = np.array([[1.0, 0, 1, 0], [1.0, 0, 1, 0], [0.0, 9, 0, 9]])
    between = Coupled(latent, scores, 1.0, np.array([0.5]), np.array([1.0]))(latent, latent)
    assert between[0, 1] > 0.99 and abs(between[0, 2]) < 0.01


@pytest.mark.parametrize("gap", [np.nan, np.inf])
def test_a_score_vector_with_a_gap_is_refused(gap):
    scores = SCORES.copy()
    scores[3, 4] = gap
    with pytest.raises(ValueError, match="each of 12 points, on the same examples; 12 came, 1 of"):
        coupled(scores=scores)
    with pytest.raises(ValueError, match="11 came"):
        coupled(scores=SCORES[1:])


def test_fitted_scores_tell_more_than_the_latent_points():
    """Where the loss is a function of the answers and the latent points say nothing, the coupled
    process explains the data by a signal.
    """
    rng = np.random.default_rng(2)
    latent, kinds = rng.uniform(-1, 1, (24, 3)), np.arange(24) % 4
    scores = rng.standard_normal((4, 20))[kinds]
    values = kinds - 1.5 + 0.05 * rng.standard_normal(24)
    seen = observe(latent, values)
    order = np.argsort(seen.group)  # the row of each distinct point
    kernel, noise = fit_coupled(seen, scores[order], rng=rng)
    assert noise < 0.05 < 0.3 * kernel.amplitude
    posterior = condition(kernel, seen, noise)
    np.testing.assert_allclose(posterior.fitted, seen.values, atol=0.2)
    shuffled, much = fit_coupled(seen, rng.permutation(scores), rng=rng)
    misaligned = condition(shuffled, seen, much).log_likelihood()
    assert posterior.log_likelihood() > misaligned + 10


@pytest.mark.parametrize("residual", [0.0, 0.4, 1.0])
def test_the_fit_climbs_the_likelihood_of_the_process(residual):
    """Value and gradient beside the process itself and differences of it, with repeats."""
    rng = np.random.default_rng(3)
    latent, scores = LATENT[:8, :3], SCORES[:8, :5]
    every = np.concatenate([latent, latent[:5]])
    seen = observe(every, rng.standard_normal(13), rng.uniform(1, 3, 13))
    near, alike = cdist(seen.points, seen.points), cdist(scores, scores)
    for theta in 0.7 * rng.standard_normal((3, 4)):

        def value(theta):
            return _likelihood(theta, seen, near, alike, residual)[0]

        one, two, three, noise = np.exp(theta)
        kernel = Coupled(seen.points, scores, one, np.array([two]), np.array([three]), residual)
        whole = condition(kernel, seen, noise).log_likelihood() - seen.log_weights
        assert value(theta) == pytest.approx(-whole, abs=1e-8)
        slope = _likelihood(theta, seen, near, alike, residual)[1]
        np.testing.assert_allclose(slope, approx_fprime(theta, value, 1e-7), atol=1e-4)


def test_gaps_are_filled_by_what_the_point_and_the_group_say():
    nan = np.nan
    scores = np.array([[0.1, 0.5, nan], [0.3, nan, nan], [0.5, 0.9, nan]])
    whole = aligned(scores, np.array([0.3, 0.4, 0.7]))
    # The second group lies .2 above the means; nobody was scored on the third.
    np.testing.assert_allclose(whole, [[0.1, 0.5], [0.3, 0.6], [0.5, 0.9]])
