"""Arms without a model; the kit tests the rest."""

import numpy as np
import pytest

from fedbbpt.aggregators.pool import Pool
from fedbbpt.errors import ConfigError
from fedbbpt.optimizers.bandit import Bandit, _Arms
from fedbbpt.random import stream, word
from fedbbpt.types import Space, Update

LINE = np.arange(30.0)[:, None]


def start(points=LINE, **options):
    bandit = Bandit(**options)
    return bandit, bandit.init(Space("pool", points.shape[1:], points=points))


def known(state, rows, losses, turns=None, clients=None):
    none = np.zeros(len(rows), int)
    return state._replace(
        seen_points=np.array(rows, float)[:, None],
        seen_losses=np.array(losses, float),
        seen_weights=np.ones(len(rows)),
        seen_turns=none if turns is None else np.array(turns),
        seen_clients=(none + 1 if clients is None else np.array(clients)).astype(np.uint64),
    )


def rows(points):
    return points[:, 0].astype(int).tolist()


def test_every_arm_comes_first_once_and_from_the_ends_inwards():
    bandit, state = start(batch=4)
    asked = []
    for step in range(8):
        points = bandit.ask(state, stream(0, "test", step))
        asked.append(rows(points))
        state = bandit.tell(state, points, np.full(4, 0.5))
    assert asked[0][:3] == [0, 29, 14]
    every = [row for batch in asked for row in batch]
    assert sorted(every[:30]) == list(range(30))
    assert not set(asked[7][2:]) & set(asked[7][:2])  # the two left, then others again


def test_then_the_leader_and_the_lowest_bounds():
    """Bounds are lower where answers are few, however good others' means are."""
    bandit, state = start(LINE[:5], batch=3)
    told = [0] * 20 + [1] * 20 + [2] * 2 + [3] * 20 + [4] * 20
    means = np.array([0.3, 0.25, 0.5, 0.45, 0.9])
    turns = np.concatenate([np.arange(told.count(arm)) for arm in range(5)])
    state = known(state, told, means[told], turns)
    planned = bandit.plan(state, stream(0, "test"))
    assert rows(planned.next_points) == [1, 2, 0]
    assert planned.next_turns.tolist() == [20, 2, 20]
    np.testing.assert_array_equal(bandit.best(state), [1.0])
    expected = bandit.expected(state)
    np.testing.assert_allclose(expected[:, 0], means)
    np.testing.assert_allclose(expected[2], [0.5, np.sqrt(0.25 / 2), 2])


def test_bounds_are_those_of_the_divergence():
    """Of u answers with mean p the lower bound q solves u kl(p, q) = rate."""
    arms = _Arms(np.array([0.4, 1.0, 0.0, 0.7]), np.array([10.0, 3, 5, 0]), np.array([10, 3, 5, 0]))
    low = arms.lower(0.1)
    rate = np.log((1 + np.log(18)) / 0.1)
    kl = 0.4 * np.log(0.4 / low[0]) + 0.6 * np.log(0.6 / (1 - low[0]))
    assert 10 * kl == pytest.approx(rate)
    assert low[1] == pytest.approx(np.exp(-rate / 3))
    assert low[2] == 0 and low[3] == pytest.approx(0, abs=1e-9)


def test_arms_that_are_out_are_neither_asked_nor_best():
    """Arm 0 had luck once; on what both were tried on, arm 1 beats it beyond doubt."""
    bandit, state = start(LINE[:3], batch=2)
    told, turns = [0] * 15 + [1] * 40 + [2] * 15, [*range(15), *range(40), *range(15)]
    losses = [*[0.9] * 15, *[0.0] * 15, *[1.0] * 25, *[0.1] * 15]
    state = known(state, told, losses, turns)
    # Arm 1 has .625 on the whole and arm 0 .9: but on the same 15 examples, 0 and .9.
    standing = bandit._standing(state)
    assert standing.out.tolist() == [True, False, False]
    assert set(rows(bandit.ask(state, stream(0, "test")))) == {1, 2}
    assert not bandit.done(state)
    assert (
        bandit.done(known(state, told + [2] * 25, losses + [1.0] * 25, [*turns, *range(15, 40)]))
        is False
    )
    alone = known(
        state,
        [0] * 15 + [1] * 15 + [2] * 15,
        [*[0.9] * 15, *[0.0] * 15, *[0.9] * 15],
        [*range(15)] * 3,
    )
    assert bandit.done(alone)
    np.testing.assert_array_equal(bandit.best(alone), [1.0])


def test_five_clients_find_the_best_arm_of_noisy_answers():
    """Of 30 arms with error rates .2 to .8, by 0/1 answers of two examples a turn."""
    error = np.linspace(0.2, 0.8, 30)[np.random.default_rng(0).permutation(30)]
    ends = []
    for seed in range(4):
        bandit, state = start(batch=4, examples=2)
        pool, rng = Pool(), np.random.default_rng(seed)
        memory = pool.init(state)
        for number in range(40):
            plan = bandit.plan(state, stream(seed, "test", number))
            updates = []
            for k in range(5):
                client = bandit.init(Space("pool", (1,), points=LINE))._replace(
                    next_points=plan.next_points, next_turns=plan.next_turns
                )
                points = bandit.ask(client, stream(seed, "ask", number, f"c{k}"))
                wrong = rng.uniform(size=(len(points), 2)) < error[rows(points), None]
                told = bandit.tell(client, points, wrong.mean(axis=1))
                arrays = {name: getattr(told, name) for name in pool.reads}
                updates.append(Update(f"c{k}", number, 2.0, arrays))
            state, memory = pool.merge(plan, updates, memory)
        ends.append(error[int(bandit.best(state)[0])])
    assert np.mean(ends) < 0.28
    assert word("c0") in state.seen_clients


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"delta": 0.0}, "delta 0.0"),
        ({"delta": 1.5}, "delta is 1.5"),
        ({"examples": 0}, "examples is 0"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Bandit(**options)
