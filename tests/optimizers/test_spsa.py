"""SPSA with gradient correction beside its formulas."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedbbpt.aggregators.adam import Adam
from fedbbpt.aggregators.mean import Mean
from fedbbpt.errors import ConfigError
from fedbbpt.optimizers.spsa import Spsa
from fedbbpt.parts import Parts
from fedbbpt.random import stream
from fedbbpt.round import local_search, replay
from fedbbpt.testing.optimizers import check_optimizer
from fedbbpt.types import Job, Space, Update

PUBLISHED = {"directions": "segmented-uniform"}


def bowl(points, centre=1.0):
    return ((points - centre) ** 2).reshape(len(points), -1).sum(axis=1)


def start(spsa, shape, mean=None):
    state = spsa.init(Space("real", shape))
    return state if mean is None else state._replace(mean=np.array(mean, float))


def walk(spsa, state, steps, loss=bowl, first=0):
    for step in range(first, first + steps):
        points = spsa.ask(state, stream(0, "test", step=step))
        state = spsa.tell(state, points, loss(points))
    return state


@pytest.mark.parametrize(
    "options",
    [PUBLISHED, {"beta": 0.0, "a": 0.1}, {"draws": 1, "gamma": 0.0}, {"blocking": 0.0}],
    ids=lambda options: "-".join(options),
)
def test_keeps_the_laws(options):
    check_optimizer(Spsa(**options))


# --- the formulas --------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", ["rademacher", "segmented-uniform"])
def test_follows_the_paper(directions):
    """The published loop line by line, told the same directions."""
    gains = {"o": 1.0, "c": 0.03, "a": 0.02, "alpha": 0.4, "gamma": 0.2}
    spsa = Spsa(beta=0.7, draws=3, directions=directions, **gains)
    w, m = np.array([0.3, -0.2, 0.1, 0.05]), 0.0

    def loss(w):
        return np.log(np.cosh(w - 1.0)).sum() + w[0] * w[3]

    state = start(spsa, (2, 2), w.reshape(2, 2))
    for step in range(1, 8):
        points = spsa.ask(state, stream(1, "test", step=step))
        state = spsa.tell(state, points, np.array([loss(p.ravel()) for p in points]))
        ak = 0.02 / ((step + 1.0) ** 0.4)
        ck = 0.03 / (step**0.2)
        ghats = []
        for draw in range(3):
            perturb = (points[draw].ravel() - w) / ck
            ghats.append((loss(w + ck * perturb) - loss(w - ck * perturb)) / ((2 * ck) * perturb))
        ghat = sum(ghats) / 3
        m = 0.7 * m + ghat if step > 1 else ghat
        w = w - ak * (ghat + 0.7 * m)
        np.testing.assert_allclose(state.mean.ravel(), w, atol=1e-12, rtol=0)
        np.testing.assert_allclose(state.momentum.ravel(), m, atol=1e-11, rtol=0)
        assert state.step == step and state.step.dtype == np.int64


def test_golden_numbers():
    """One pair at w = (1, 2), c_2 = .5, D = (1, -1): g = (3 - 1) / (2 .5 D) = (2, -2).

    m = .5 (4, 0) + g = (4, -2); a_2 = .3 / (2 + 1) = .1; w - .1 (g + .5 m) = (.6, 2.3).
    """
    spsa = Spsa(a=0.3, c=1.0, alpha=1.0, gamma=1.0, o=1.0, beta=0.5, draws=1)
    state = start(spsa, (2,), [1.0, 2.0])
    state = state._replace(momentum=np.array([4.0, 0.0]), step=np.array(1))
    points = np.array([[1.5, 1.5], [0.5, 2.5]])
    told = spsa.tell(state, points, np.array([3.0, 1.0]))
    np.testing.assert_allclose(told.momentum, [4.0, -2.0], rtol=1e-15)
    np.testing.assert_allclose(told.mean, [0.6, 2.3], rtol=1e-15)


def test_pairs_mirror_each_other_and_draw_near():
    spsa = Spsa(c=0.5, gamma=0.5, draws=4)
    state = start(spsa, (3, 2), np.arange(6.0).reshape(3, 2))
    for steps, reach in ((0, 0.5), (3, 0.25)):
        points = spsa.ask(state._replace(step=np.array(steps)), stream(2, "test"))
        assert points.shape == (8, 3, 2)
        np.testing.assert_allclose(points[:4] + points[4:], np.stack(4 * [2 * state.mean]))
        np.testing.assert_allclose(np.abs(points - state.mean), reach)


def test_losses_are_subtracted_in_double_precision():
    """1 - 2**-30 is 1 in single precision, in which a box may have computed both losses."""
    spsa = Spsa(draws=1, c=1.0, gamma=0.0, beta=0.0, a=1.0, alpha=0.0)
    points = spsa.ask(start(spsa, (1,)), stream(0, "test"))
    told = spsa.tell(start(spsa, (1,)), points, np.array([1.0, 2.0**-30], np.float32))
    assert told.mean.dtype == np.float64
    assert abs(told.mean[0]) == (1 - 2.0**-30) / 2


# --- the directions ------------------------------------------------------------------------------


def test_laws_of_the_directions():
    def drawn(**options):
        spsa = Spsa(c=1.0, draws=50_000, **options)
        return spsa.ask(start(spsa, (4,)), stream(3, "test"))[:50_000]

    signs, sizes = drawn(), np.abs(drawn(**PUBLISHED))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    np.testing.assert_allclose(np.cov(signs.T), np.eye(4), atol=0.02)
    assert 0.5 <= sizes.min() < 0.501 and 0.999 < sizes.max() < 1.0
    np.testing.assert_allclose([sizes.mean(), sizes.var()], [3 / 4, 1 / 48], atol=1e-3)
    np.testing.assert_allclose(np.cov(drawn(**PUBLISHED).T), 7 / 12 * np.eye(4), atol=0.02)


def test_what_the_published_directions_cost():
    """On a slope v, g_i = v_i + sum_{j != i} v_j D_j / D_i, of variance sum v_j^2 E[D^2] E[1/D^2]:

    once the sum with signs, 7/12 * 2 = 7/6 of it with the published law.
    """
    slope = np.array([1.0, -2.0, 0.5, 1.5])
    variance = {}
    for directions in ("rademacher", "segmented-uniform"):
        spsa = Spsa(a=1.0, alpha=0.0, beta=0.0, draws=1, directions=directions)
        many = Spsa(draws=20_000, directions=directions)
        points = many.ask(start(many, (4,)), stream(4, "test")).reshape(2, -1, 4)
        moves = np.array(
            [spsa.tell(start(spsa, (4,)), p, p @ slope).mean for p in points.swapaxes(0, 1)]
        )
        np.testing.assert_allclose(-moves.mean(axis=0), slope, atol=0.1)
        variance[directions] = moves.var(axis=0).sum()
    expected = 3 * (slope**2).sum()
    assert variance["rademacher"] == pytest.approx(expected, rel=0.02)
    ratio = variance["segmented-uniform"] / variance["rademacher"]
    assert ratio == pytest.approx(7 / 6, abs=0.03)


# --- missing answers -----------------------------------------------------------------------------


def test_a_pair_with_an_unanswered_side_is_left_out():
    spsa, fewer = Spsa(draws=3), Spsa(draws=1)
    state = walk(spsa, start(spsa, (2, 3)), 2)
    points = spsa.ask(state, stream(5, "test"))
    losses = bowl(points)
    holes = losses.copy()
    holes[[0, 3 + 2]] = np.nan, np.inf
    told = spsa.tell(state, points, holes)
    expected = fewer.tell(state, points[[1, 4]], losses[[1, 4]])
    for ours, theirs in zip(told, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("blocking", [None, 0.0])
def test_without_a_whole_pair_nothing_changes(blocking):
    """Not even the counter, and no step is taken back."""
    spsa = Spsa(draws=2, blocking=blocking)
    state = walk(spsa, start(spsa, (3,)), 2)
    points = spsa.ask(state, stream(6, "test"))
    losses = bowl(points)
    losses[[0, 3]] = np.nan
    losses[4:5] += 100.0  # the current point, where it is asked
    told = spsa.tell(state, points, losses)
    for before, after in zip(state, told, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_point_too_far_out_to_move():
    """Where w + c and w - c are the same number there is no slope, and nothing is divided by 0."""
    spsa = Spsa(draws=1)
    state = start(spsa, (2,), [1e18, 0.0])
    points = spsa.ask(state, stream(7, "test"))
    told = spsa.tell(state, points, np.array([2.0, 1.0]))
    assert told.mean[0] == 1e18 and np.isfinite(told.mean).all() and told.mean[1] != 0


# --- gradient correction -------------------------------------------------------------------------


def test_the_correction_lengthens_the_step():
    """On a plane every g is the slope; far along, a step is a (g + b m) = a g / (1 - b)."""
    gains = {"a": 0.1, "alpha": 0.0, "draws": 1}

    def last_step(beta):
        spsa = Spsa(beta=beta, **gains)
        before = walk(spsa, start(spsa, (1,)), 200, loss=lambda points: points[:, 0])
        after = walk(spsa, before, 1, loss=lambda points: points[:, 0], first=200)
        return (before.mean - after.mean).item()

    assert last_step(0.0) == pytest.approx(0.1)
    assert last_step(0.9) == pytest.approx(1.0)


# --- in a federation -----------------------------------------------------------------------------


def updates(spsa, state, weights, steps=1, round=0):
    """What clients with bowls of their own send; each tries its own directions."""
    sent = []
    for number, weight in enumerate(weights):
        mine = state
        for step in range(steps):
            points = spsa.ask(mine, stream(8, "test", round, f"client-{number}", step))
            mine = spsa.tell(mine, points, bowl(points, number))
        arrays = {name: getattr(mine, name) for name in Mean().fields(spsa)}
        sent.append(Update(f"client-{number}", round, weight, arrays))
    return sent


def received(spsa, state):
    """A client's state as it comes out of a broadcast."""
    fresh = spsa.init(Space("real", state.mean.shape))
    return fresh._replace(**{name: getattr(state, name) for name in spsa.shares})


def test_a_round_of_one_step_is_a_step_of_all():
    """Two clients with equal weights take, round after round, the steps that one would take with
    the mean of their gradients: momentum and counter are kept.
    """
    one = Spsa(draws=2, a=0.05, gamma=0.3)
    state, w, m = start(one, (3,), [0.2, 0.0, -0.1]), np.array([0.2, 0.0, -0.1]), 0.0
    for round in range(6):
        gradients = []
        for number in range(2):
            rng = stream(8, "test", round, f"client-{number}", 0)
            points = one.ask(received(one, state), rng)
            losses = bowl(points, number)
            gradients += [(losses[i] - losses[2 + i]) / (points[i] - points[2 + i]) for i in (0, 1)]
        state, _ = Mean().merge(state, updates(one, received(one, state), [5.0, 5.0], 1, round), {})
        g = np.mean(gradients, axis=0)
        m = 0.9 * m + g
        w = w - 0.05 / (round + 2) ** 0.4 * (g + 0.9 * m)
        np.testing.assert_allclose(state.mean, w, atol=1e-12)
        np.testing.assert_allclose(state.momentum, m, atol=1e-12)
        assert state.step == round + 1


def test_the_counter_is_an_integer_whatever_the_weights():
    """A third, a third and a third do not make one in binary, but seven steps stay seven."""
    spsa = Spsa(draws=1, c=1.0, gamma=1.0)
    state = start(spsa, (2,))
    for round in range(5):
        weights = [0.1, 0.2, 0.7, 1 / 3]
        state, _ = Mean().merge(state, updates(spsa, received(spsa, state), weights, 7, round), {})
        told = walk(spsa, received(spsa, state), 1)
        assert told.step == 7 * (round + 1) + 1 and told.step.dtype == np.int64
        points = spsa.ask(received(spsa, state), stream(0, "test"))
        reach = 1.0 / (7 * (round + 1) + 1)
        np.testing.assert_allclose(np.abs(points - state.mean), reach, rtol=1e-12)


@pytest.mark.parametrize("options", [{}, PUBLISHED, {"blocking": 0.0}])
def test_a_server_repeats_the_search_from_losses_alone(options):
    """Also from a state whose counter a merge made a float, and whatever was not answered."""
    spsa = Spsa(draws=2, c=0.3, a=0.3, **options)
    prompt = SimpleNamespace(space=Space("real", (2, 3)))
    parts = Parts(spsa, prompt, None, Mean(), "distinct", "replay", {})
    state = start(spsa, (2, 3))
    state, _ = Mean().merge(state, updates(spsa, state, [1, 2, 4], 3), {})
    job, losses = Job("search", 1, 4, 0, parts.broadcast(state)), []

    def box(step, points, turns):
        answers = bowl(points)
        answers[step] = np.nan
        losses.append(answers)
        return answers

    client = local_search(parts, job, "client-0", box)
    sent = Update("client-0", 1, 5.0, {"losses": np.array(losses)})
    fields = replay(parts, job, sent).arrays
    assert set(fields) == set(client._fields) and client.step == 7
    for name, value in fields.items():
        assert value.dtype == getattr(client, name).dtype
        np.testing.assert_array_equal(value, getattr(client, name))


@pytest.mark.parametrize("mean", [0.4, 0.5, 0.6])
def test_the_counter_goes_on_where_some_got_no_answer(mean):
    spsa = Spsa()
    state = start(spsa, (2,))._replace(step=np.array(mean))
    assert walk(spsa, state, 1).step == 2


# --- blocking ------------------------------------------------------------------------------------


def test_a_step_that_made_it_worse_is_taken_back():
    spsa = Spsa(draws=1, blocking=0.5)
    before = walk(spsa, start(spsa, (2,)), 3)
    points = spsa.ask(before, stream(9, "test"))
    assert len(points) == 4
    np.testing.assert_array_equal(points[2:], [before.mean, before.previous])

    def told(now):
        return spsa.tell(before, points, np.array([2.0, 1.0, now, 1.0]))

    back, kept = told(1.51), told(1.5)
    np.testing.assert_array_equal(back.mean, before.previous)
    np.testing.assert_array_equal(back.previous, before.previous)
    assert not back.momentum.any() and back.step == 4
    free = Spsa(draws=1).tell(before, points[:2], np.array([2.0, 1.0]))
    np.testing.assert_array_equal(kept.mean, free.mean)
    np.testing.assert_array_equal(kept.momentum, free.momentum)
    np.testing.assert_array_equal(kept.previous, before.mean)
    for unknown in (np.nan, np.inf):
        np.testing.assert_array_equal(told(unknown).mean, free.mean)


@pytest.mark.parametrize("blocking", [None, 0.3])
def test_blocking_under_noise(blocking):
    """Gains that are too large at first: without blocking the search runs away."""
    noise = stream(10, "test")

    def noisy(points):
        return bowl(points) + 0.1 * noise.standard_normal(len(points))

    spsa = Spsa(a=1.0, c=0.3, beta=0.5, blocking=blocking)
    state = walk(spsa, start(spsa, (10,)), 80, loss=noisy)
    end = bowl(spsa.best(state)[None])[0]
    if blocking is None:
        assert end > 1000
    else:
        assert end < 1.0 < bowl(np.zeros((1, 10)))[0] / 4


def test_no_tolerance_under_noise_takes_good_steps_back():
    """Of steps that change nothing about half look worse, and with two deviations hardly any."""
    taken_back = {}
    for tolerance in (0.0, 0.3):
        noise, spsa = stream(11, "test"), Spsa(draws=1, a=1e-9, blocking=tolerance)
        state, count = start(spsa, (3,)), 0
        for step in range(200):
            points = spsa.ask(state, stream(12, "test", step=step))
            state = spsa.tell(state, points, 0.1 * noise.standard_normal(4))
            count += step > 0 and not state.momentum.any()
        taken_back[tolerance] = count
    assert 70 < taken_back[0.0] < 130 and taken_back[0.3] < 12


def test_a_merge_that_forgets_the_point_before_is_not_judged_by_it():
    """Adam reads the mean alone: the first step of every round has nothing to be worse than."""
    spsa, adam = Spsa(draws=1, blocking=0.0), Adam(lr=0.5)
    state = start(spsa, (2,))
    memory = adam.init(state)
    for _ in range(3):
        state, memory = adam.merge(
            state, updates(spsa, received(spsa, state), [1.0, 2.0], 2), memory
        )
    assert state.mean.any() and not state.previous.any()
    np.testing.assert_array_equal(spsa.best(state), state.mean)
    points = spsa.ask(received(spsa, state), stream(13, "test"))
    np.testing.assert_array_equal(points[2], points[3])


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"a": 0.0}, "spsa a is 0.0; it must be a positive number"),
        ({"c": float("nan")}, "spsa c is nan"),
        ({"alpha": -0.1}, "spsa alpha is -0.1; it must be 0 or more"),
        ({"gamma": float("inf")}, "spsa gamma is inf"),
        ({"o": -1.0}, "spsa o is -1.0"),
        ({"beta": 1.0}, "spsa beta is 1.0; it must be at least 0 and below 1"),
        ({"draws": 0}, "spsa draws is 0; it must be at least 1"),
        ({"directions": "gaussian"}, "spsa directions is 'gaussian'; it must be one of"),
        ({"blocking": -1e-3}, "spsa blocking is -0.001"),
    ],
)
def test_bad_options_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        Spsa(**options)
