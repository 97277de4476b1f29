"""Policy gradient beside its formulas."""

from itertools import product

import numpy as np
import pytest

from fedbbpt.aggregators.mean import Mean
from fedbbpt.errors import ConfigError
from fedbbpt.optimizers.policy_gradient import PolicyGradient, PolicyState
from fedbbpt.random import stream
from fedbbpt.testing.optimizers import check_optimizer
from fedbbpt.types import Space, Update

PUBLISHED = {"as_published": True, "lr": 1e-4, "weight_decay": 0.1}


def start(optimizer, shape, logits=None):
    state = optimizer.init(Space("categorical", shape))
    return state if logits is None else state._replace(logits=np.array(logits, float))


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def one_hot(choices, size):
    return np.eye(size)[np.array(choices)]


def told_gradient(optimizer, state, points, losses):
    """The estimate that a tell on fresh moments used: m = (1 - beta1) g."""
    return optimizer.tell(state, points, losses).first / 0.1


# --- where it starts and what it asks ------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, PUBLISHED])
def test_starts_where_every_candidate_is_as_likely(options):
    optimizer = PolicyGradient(samples=20_000, **options)
    state = start(optimizer, (2, 4))
    np.testing.assert_array_equal(state.logits, 0.25 if options else 0.0)
    assert not optimizer.best(state).argmax(axis=-1).any()
    frequency = optimizer.ask(state, stream(0, "test")).mean(axis=0)
    np.testing.assert_allclose(frequency, 0.25, atol=0.015)


def test_samples_are_one_hot_rows_by_the_softmax():
    optimizer = PolicyGradient(samples=40_000)
    logits = np.array([[0.0, 1.0, -1.0], [900.0, 899.0, 0.0]])
    points = optimizer.ask(start(optimizer, (2, 3), logits), stream(1, "test"))
    assert set(np.unique(points)) == {0.0, 1.0} and (points.sum(axis=-1) == 1).all()
    expected = softmax(logits - logits.max(axis=-1, keepdims=True))
    np.testing.assert_allclose(points.mean(axis=0), expected, atol=0.01)
    # Slots are drawn independently.
    both = (points[:, 0, 1] * points[:, 1, 1]).mean()
    assert both == pytest.approx(expected[0, 1] * expected[1, 1], abs=0.01)


# --- the estimator -------------------------------------------------------------------------------


def test_golden_numbers():
    """Three samples of one slot with losses 1, 2, 6: l - mean = -2, -1, 3, over K - 1 = 2.

    Candidates 0, 0 and 2: g = (-1.5, 0, 1.5); the first step of Adam is lr in its direction.
    """
    optimizer = PolicyGradient(samples=3, lr=0.5)
    points = one_hot([[0], [0], [2]], 3)
    told = optimizer.tell(start(optimizer, (1, 3)), points, np.array([1.0, 2.0, 6.0]))
    np.testing.assert_allclose(told.first, 0.1 * np.array([[-1.5, 0.0, 1.5]]), atol=1e-15)
    np.testing.assert_allclose(told.second, 0.001 * np.array([[2.25, 0.0, 2.25]]), atol=1e-15)
    np.testing.assert_allclose(told.logits, [[0.5, 0.0, -0.5]], atol=1e-7)
    assert told.steps == 1


def test_follows_the_formulas():
    """Leave-one-out advantages, the score function and AdamW, each as its paper writes it."""
    optimizer = PolicyGradient(samples=7, lr=0.3, weight_decay=0.05)
    logits = stream(3, "test").standard_normal((3, 4))
    state, m, v = start(optimizer, (3, 4), logits), 0.0, 0.0
    for t in range(1, 6):
        points = optimizer.ask(state, stream(4, "test", step=t))
        losses = stream(5, "test", step=t).standard_normal(7)
        state, p, g = optimizer.tell(state, points, losses), softmax(logits), 0.0
        for k in range(7):
            advantage = losses[k] - np.mean([losses[j] for j in range(7) if j != k])
            g = g + advantage * (points[k] - p) / 7
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        logits = logits - 0.3 * 0.05 * logits - 0.3 * step
        np.testing.assert_allclose(state.logits, logits, atol=1e-6)


LOSSES = stream(6, "test").standard_normal((3, 3))  # of every prompt of 2 slots and 3 candidates
LOGITS = np.array([[0.5, -0.5, 0.0], [0.0, 1.0, -1.0]])


def loss_of(points):
    chosen = points.argmax(axis=-1)
    return LOSSES[chosen[:, 0], chosen[:, 1]]


def exact_gradient(p):
    """sum_x p(x) l(x) (x - P): the gradient of the expected loss with respect to logits."""
    total = np.zeros((2, 3))
    for i, j in product(range(3), repeat=2):
        total += p[0, i] * p[1, j] * LOSSES[i, j] * (one_hot([i, j], 3) - p)
    return total


def assert_within_noise(estimates, exact, errors=4.0):
    """The mean is off by no more than some of its standard errors."""
    noise = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    assert (np.abs(estimates.mean(axis=0) - exact) <= errors * noise + 1e-12).all()
    # Telling anything: the noise is small beside the gradient itself.
    assert np.linalg.norm(noise) < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize("samples", [2, 5])
def test_the_estimate_is_unbiased(samples):
    optimizer = PolicyGradient(samples=samples)
    state, estimates = start(optimizer, (2, 3), LOGITS), []
    for step in range(10_000):
        points = optimizer.ask(state, stream(7, "test", step=step))
        estimates.append(told_gradient(optimizer, state, points, loss_of(points)))
    assert_within_noise(np.array(estimates), exact_gradient(softmax(LOGITS)))


def test_with_gumbel_noise_the_estimate_is_that_of_the_smoothed_loss():
    """Under softmax((logits + G) / tau) the gradient is exact_gradient / tau, for any G."""
    tau = 1.5
    optimizer = PolicyGradient(samples=5, gumbel=tau)
    state, estimates = start(optimizer, (2, 3), LOGITS), []
    for step in range(10_000):
        points = optimizer.ask(state, stream(9, "test", step=step))
        noise = stream(9, "test", step=step).gumbel(size=(2, 3))
        exact = exact_gradient(softmax((LOGITS + noise) / tau)) / tau
        estimates.append(told_gradient(optimizer, state, points, loss_of(points)) - exact)
    noise = np.std(estimates, axis=0, ddof=1) / 100
    assert (np.abs(np.mean(estimates, axis=0)) <= 4 * noise).all() and noise.max() < 0.01


def test_cold_gumbel_noise_is_plain_sampling_with_one_prompt_for_all():
    optimizer = PolicyGradient(samples=4, gumbel=1e-6)
    state = start(optimizer, (2, 3), LOGITS)
    asked = np.array([optimizer.ask(state, stream(10, "test", step=s)) for s in range(10_000)])
    assert (asked == asked[:, :1]).all()
    np.testing.assert_allclose(asked[:, 0].mean(axis=0), softmax(LOGITS), atol=0.02)


# --- no answer, no news --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"gumbel": 2.0}, PUBLISHED])
def test_a_candidate_without_an_answer_is_left_out(options):
    """As if it had never been asked: K is the number of answers."""
    optimizer = PolicyGradient(samples=6, **options)
    state = start(optimizer, (2, 3))
    points, losses = optimizer.ask(state, stream(11, "test")), stream(12, "test").random(6)
    holes = np.where([0, 1, 0, 0, 1, 0], [0, np.nan, 0, 0, np.inf, 0], losses)
    few = [0, 2, 3, 5]
    told = optimizer.tell(state, points, holes)
    fewer = optimizer.tell(state, points[few], losses[few])
    for one, other in zip(told, fewer, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_answer_teaches_nothing():
    optimizer = PolicyGradient(samples=3, weight_decay=0.1)
    state = start(optimizer, (2, 3), LOGITS)
    points = optimizer.ask(state, stream(13, "test"))
    assert optimizer.tell(state, points, np.array([np.nan, 1.0, -np.inf])) is state


def test_equal_losses_move_nothing():
    optimizer = PolicyGradient()
    state = start(optimizer, (2, 3), LOGITS)
    points = optimizer.ask(state, stream(14, "test"))
    told = optimizer.tell(state, points, np.full(20, 0.5))
    np.testing.assert_array_equal(told.logits, LOGITS)


def test_what_was_never_drawn_stays():
    optimizer = PolicyGradient(samples=2)
    told = optimizer.tell(start(optimizer, (1, 5)), one_hot([[1], [3]], 5), np.array([0.1, 0.3]))
    assert told.logits[0].nonzero()[0].tolist() == [1, 3]


# --- learning ------------------------------------------------------------------------------------


def learn(optimizer, weights, steps, seed=0, shaped=lambda losses: losses):
    """State after some steps on sum_i w[i, j_i]."""
    state = start(optimizer, weights.shape)
    for step in range(steps):
        points = optimizer.ask(state, stream(seed, "search", step=step))
        state = optimizer.tell(state, points, shaped((points * weights).sum(axis=(1, 2))))
    return state


@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, 150), ({"gumbel": 1.0}, 300), (PUBLISHED | {"lr": 3e-3, "weight_decay": 0.0}, 400)],
)
def test_finds_the_optimum_of_a_separable_loss(options, steps):
    weights = stream(15, "test").standard_normal((5, 8))
    optimizer = PolicyGradient(**options)
    state = learn(optimizer, weights, steps)
    best = optimizer.best(state).argmax(axis=-1)
    np.testing.assert_array_equal(best, weights.argmin(axis=-1))


@pytest.mark.parametrize("options", [{}, PUBLISHED | {"lr": 3e-3, "weight_decay": 0.0}])
def test_zeros_and_ones_are_losses_too(options):
    """All that a box that names labels only can give: wrong unless two slots are right."""
    weights = np.ones((2, 4))
    weights[0, 3] = weights[1, 2] = 0.0
    optimizer = PolicyGradient(**options)
    wrong = learn(optimizer, weights, 300, shaped=lambda losses: (losses > 0).astype(float))
    assert optimizer.best(wrong).argmax(axis=-1).tolist() == [3, 2]


def test_clients_that_take_turns_keep_the_moments():
    """What travels is the whole state, so a mean over one client is that client's own search."""
    optimizer, weights = PolicyGradient(), stream(16, "test").standard_normal((3, 4))
    assert Mean().fields(optimizer) == PolicyState._fields[:-1] == optimizer.shares
    state, alone = (start(optimizer, weights.shape) for _ in range(2))
    for step in range(5):
        points = optimizer.ask(state, stream(0, "search", step=step))
        losses = (points * weights).sum(axis=(1, 2))
        alone = optimizer.tell(alone, points, losses)
        sent = optimizer.tell(state, points, losses)._asdict()
        state, _ = Mean().merge(state, [Update(f"client {step}", step, 3.0, sent)], {})
    for one, other in zip(state, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


# --- the laws ------------------------------------------------------------------------------------


OPTIONS = [{}, {"samples": 2, "lr": 0.5}, {"weight_decay": 0.01}, {"gumbel": 1.0}]


@pytest.mark.parametrize("options", [*OPTIONS, PUBLISHED, {"as_published": True, "lr": 0.01}])
def test_keeps_the_laws(options):
    optimizer = PolicyGradient(**options)
    check_optimizer(optimizer)
    check_optimizer(optimizer, Space("categorical", (3, 4)))


class StartsElsewhere(PolicyGradient):
    def init(self, space):
        state = super().init(space)
        return state._replace(logits=np.arange(state.logits.size, dtype=float).reshape(space.shape))


class Climbs(PolicyGradient):
    def tell(self, state, points, losses):
        return super().tell(state, points, -losses)


class CountsHoles(PolicyGradient):
    def tell(self, state, points, losses):
        return super().tell(state, points, np.nan_to_num(losses, nan=0.0, posinf=1.0, neginf=2.0))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (StartsElsewhere, "not at the zero point"),
        (Climbs, "on a ladder"),
        (CountsHoles, "different states|moved although"),
    ],
)
def test_the_kit_catches_it_in_a_categorical_space_too(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_optimizer(broken())


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples is 1"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"gumbel": float("inf")}, "gumbel is inf"),
        ({"gumbel": 1.0, "as_published": True}, "needs as_published false"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PolicyGradient(**options)


# --- one policy per class ------------------------------------------------------------------------

SPACE = Space("categorical", (3, 2, 4), True)


def test_a_candidate_moves_one_class_and_leaves_the_others_at_their_best():
    optimizer = PolicyGradient(samples=5)
    logits = stream(21, "test").standard_normal(SPACE.shape)
    state = optimizer.init(SPACE)._replace(logits=logits)
    points = optimizer.ask(state, stream(22, "test"))
    assert points.shape == (15, 3, 2, 4)
    still = np.eye(4)[logits.argmax(axis=-1)]
    for k, point in enumerate(points):
        others = np.arange(3) != k % 3
        np.testing.assert_array_equal(point[others], still[others])
    assert (points.sum(axis=-1) == 1).all()
    moved = points.reshape(5, 3, 3, 2, 4)[:, np.arange(3), np.arange(3)]
    assert len({sample.tobytes() for sample in moved[:, 0]}) > 1


@pytest.mark.parametrize("options", [{}, {"as_published": True, "lr": 1e-2}, {"gumbel": 0.5}])
def test_every_class_learns_from_its_own_samples_alone(options):
    """As if each had an optimiser to itself that heard these samples and losses."""
    optimizer = PolicyGradient(samples=6, **options)
    state, losses = optimizer.init(SPACE), stream(23, "test").standard_normal((2, 18))
    alone = [optimizer.init(Space("categorical", (2, 4))) for _ in range(3)]
    for step in range(2):
        points = optimizer.ask(state, stream(24, "test", step=step))
        state = optimizer.tell(state, points, losses[step])
        for c in range(3):
            alone[c] = optimizer.tell(alone[c], points[c::3, c], losses[step, c::3])
    for c in range(3):
        for name in ("logits", "first", "second"):
            np.testing.assert_array_equal(getattr(state, name)[c], getattr(alone[c], name))
    assert state.steps == 2


def test_a_class_without_answers_stays_where_it_is():
    optimizer = PolicyGradient(samples=4)
    state = optimizer.init(SPACE)
    points = optimizer.ask(state, stream(25, "test"))
    losses = stream(26, "test").standard_normal(12)
    losses[1::3] = np.nan
    told = optimizer.tell(state, points, losses)
    moved = (told.logits != 0).any(axis=(1, 2))
    assert moved.tolist() == [True, False, True]
