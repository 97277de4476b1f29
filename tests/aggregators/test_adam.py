"""FedAdam beside the formulas of Reddi et al. 2021 and Kingma & Ba 2015, written out."""

from typing import NamedTuple

import numpy as np
import pytest

from fedbbpt.aggregators.adam import Adam
from fedbbpt.errors import ConfigError
from fedbbpt.maths.merge import weighted_mean
from fedbbpt.optimizers.es import Es
from fedbbpt.types import Update


class State(NamedTuple):
    mean: np.ndarray


def updates(state, deltas, weights):
    return [
        Update(f"{k}", 0, w, {"mean": state.mean + delta})
        for k, (delta, w) in enumerate(zip(deltas, weights, strict=True))
    ]


def play(adam, rounds=6, seed=0):
    """The merged means, and per round the weighted mean delta that went in."""
    rng = np.random.default_rng(seed)
    state, weights = State(np.zeros(3)), np.array([1.0, 2.0, 5.0])
    memory, means, deltas = adam.init(state), [], []
    for _ in range(rounds):
        each = rng.standard_normal((3, 3))
        deltas.append(weights @ each / weights.sum())
        state, memory = adam.merge(state, updates(state, each, weights), memory)
        means.append(state.mean)
    return np.array(means), np.array(deltas), memory


def test_golden_numbers():
    """Two rounds in one coordinate by hand, lr .1, beta 0.9 and 0.99.

    Round 1, delta 2: m = .2, v = .04; corrected 2 and 4; x = .1 * 2 / (2 + 1e-8).
    Round 2, delta -1: m = .08, v = .0496; corrected .08 / .19 and .0496 / .0199.
    """
    adam, state = Adam(), State(np.zeros(1))
    memory = adam.init(state)
    state, memory = adam.merge(state, updates(state, [np.array([2.0])], [4]), memory)
    first = 0.1 * 2.0 / (2.0 + 1e-8)
    assert state.mean[0] == pytest.approx(first, rel=1e-14)
    state, memory = adam.merge(state, updates(state, [np.array([-1.0])], [4]), memory)
    second = first + 0.1 * (0.08 / 0.19) / (np.sqrt(0.0496 / 0.0199) + 1e-8)
    assert state.mean[0] == pytest.approx(second, rel=1e-12)
    assert memory["count"] == 2


@pytest.mark.parametrize("options", [{}, {"lr": 0.5, "beta1": 0.5, "beta2": 0.999, "eps": 1e-3}])
def test_follows_the_formulas(options):
    adam = Adam(**options)
    means, deltas, memory = play(adam)
    x, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    for t, (mean, delta) in enumerate(zip(means, deltas, strict=True), start=1):
        m = adam.beta1 * m + (1 - adam.beta1) * delta
        v = adam.beta2 * v + (1 - adam.beta2) * delta**2
        m_hat, v_hat = m / (1 - adam.beta1**t), v / (1 - adam.beta2**t)
        x = x + adam.lr * m_hat / (np.sqrt(v_hat) + adam.eps)
        np.testing.assert_allclose(mean, x, rtol=1e-12)
    np.testing.assert_allclose(memory["first"], m, rtol=1e-12)
    np.testing.assert_allclose(memory["second"], v, rtol=1e-12)


@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_the_average_is_weighted_by_round(power):
    """Shamir & Zhang 2013, equation 4: x_t = (1 - (p+1)/(t+p)) x_{t-1} + (p+1)/(t+p) w_t."""
    adam = Adam(averaging=power)
    means, _, memory = play(adam)
    expected = np.zeros(3)
    for t, mean in enumerate(means, start=1):
        share = (power + 1) / (t + power)
        expected = (1 - share) * expected + share * mean
    np.testing.assert_allclose(memory["average"], expected, rtol=1e-12)
    if power == 1:  # weights 1, 2, ..., 6
        rounds = np.arange(1, 7)
        np.testing.assert_allclose(expected, rounds @ means / rounds.sum(), rtol=1e-12)
    best = adam.best(Es(), State(means[-1]), memory)
    np.testing.assert_array_equal(best, memory["average"] if power else means[-1])


def test_before_the_first_round_the_start_is_best():
    for power in (0.0, 1.0):
        state = State(np.zeros(3))
        adam = Adam(averaging=power)
        assert not adam.best(Es(), state, adam.init(state)).any()


def test_the_size_of_the_losses_does_not_matter():
    small, large = State(np.zeros(3)), State(np.zeros(3))
    adam = Adam(eps=1e-30)
    memories = [adam.init(small), adam.init(large)]
    for delta in np.random.default_rng(1).standard_normal((4, 3)):
        small, memories[0] = adam.merge(small, updates(small, [delta], [1]), memories[0])
        large, memories[1] = adam.merge(large, updates(large, [1000 * delta], [1]), memories[1])
    np.testing.assert_allclose(small.mean, large.mean, rtol=1e-9)


def test_a_coordinate_without_gradient_stands_still():
    state, adam = State(np.zeros(2)), Adam()
    state, _ = adam.merge(state, updates(state, [np.array([0.0, 1.0])], [1]), adam.init(state))
    assert state.mean[0] == 0
    assert state.mean[1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "options",
    [{"lr": 0.0}, {"lr": -1.0}, {"beta1": 1.0}, {"beta2": -0.1}, {"averaging": -1.0}],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"adam"):
        Adam(**options)


@pytest.mark.parametrize("eps", [-1.0, 0.0, float("nan")])
def test_eps_must_be_above_zero(eps):
    with pytest.raises(ConfigError, match="eps"):
        Adam(eps=eps)


@pytest.mark.parametrize(
    ("options", "centre"),
    [
        ({}, 201.0),
        ({"robust": "median"}, 2.0),
        ({"robust": "trimmed_mean"}, 5 / 3),
        ({"robust": "trimmed_mean", "trim": 0.0}, 201.0),
        ({"robust": "krum"}, 0.0),
        ({"robust": "krum", "keep": 0}, 1.25),
        ({"robust": "krum", "bad": 0, "keep": 5}, 201.0),
    ],
)
def test_the_first_moment_is_of_the_merge_that_was_asked_for(options, centre):
    adam, state = Adam(beta1=0.0, **options), State(np.full(1, 0.5))
    moves = [np.array([x]) for x in (0.0, 2.0, 3.0, 0.0, 1000.0)]
    _, memory = adam.merge(state, updates(state, moves, [3] * 5), adam.init(state))
    assert memory["first"][0] == pytest.approx(centre)


@pytest.mark.parametrize("options", [{}, {"robust": "mean", "trim": 0.4, "bad": 3, "keep": 2}])
def test_a_mean_is_as_it_always_was(options):
    rng, state = np.random.default_rng(3), State(np.full(4, 0.1))
    some = updates(state, rng.standard_normal((6, 4)), rng.uniform(1, 9, 6))
    adam = Adam(**options)
    _, memory = adam.merge(state, some, adam.init(state))
    delta = weighted_mean(some, "mean") - state.mean
    assert memory["first"].tobytes() == ((1 - adam.beta1) * delta).tobytes()


def test_krum_says_how_many_it_needs():
    adam, state = Adam(robust="krum", bad=2), State(np.zeros(1))
    assert (adam.least, Adam(bad=2).least) == (7, 1)
    some = updates(state, np.ones((6, 1)), [1] * 6)
    with pytest.raises(ConfigError, match=r"adam\.robust = 'krum' got 6 updates .* needs 7"):
        adam.merge(state, some, adam.init(state))
    assert adam.merge(state, [], adam.init(state))[0] is state


@pytest.mark.parametrize(
    "options", [{"robust": "bulyan"}, {"trim": 0.5}, {"bad": -1}, {"keep": -1}]
)
def test_bad_robust_options_are_refused(options):
    with pytest.raises(ConfigError, match=rf"adam\.{next(iter(options))}"):
        Adam(**options)


def led(adam, lie, rounds=80):
    """Where four clients at 1 and a liar lead a search, from the origin."""
    rng, state = np.random.default_rng(0), State(np.zeros(3))
    memory = adam.init(state)
    for _ in range(rounds):
        moves = 0.3 * (1.0 - state.mean) + 0.1 * rng.standard_normal((5, 3))
        moves[2] *= lie
        state, memory = adam.merge(state, updates(state, moves, [8] * 5), memory)
    return state.mean


@pytest.mark.parametrize("lie", [-1.0, -10.0, -1e6, 1e6])
@pytest.mark.parametrize(
    "options", [{"robust": "median"}, {"robust": "trimmed_mean"}, {"robust": "krum", "keep": 0}]
)
def test_a_liar_does_not_lead_a_robust_merge_astray(options, lie):
    np.testing.assert_allclose(led(Adam(**options), lie), 1.0, atol=0.35)


def test_a_liar_leads_a_mean_astray():
    assert (np.abs(led(Adam(), -10.0) - 1.0) > 0.9).any()
