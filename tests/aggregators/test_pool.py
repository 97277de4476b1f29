"""Observations of all clients together; the kit tests order, wire and memory."""

from importlib.util import module_from_spec, spec_from_file_location
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from fedbbpt import api
from fedbbpt.aggregators.pool import Pool, offsets
from fedbbpt.optimizers.bayes import Bayes
from fedbbpt.random import stream, word
from fedbbpt.types import Space, Update

POOL = np.random.default_rng(0).uniform(-1, 1, (50, 3))


def load_kit():
    path = Path(__file__).parents[1] / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start():
    return Bayes().init(Space("pool", (3,), points=POOL))


def sent(client, rows, losses, weight=4.0, round=0, turns=None):
    """What a client sends of its observations; NaN for no answer."""
    losses = np.array(losses, float)
    arrays = {
        "new_points": np.array(rows, float)[:, None],
        "new_losses": np.where(np.isfinite(losses), losses, 0.0),
        "new_turns": np.zeros(len(rows), int) if turns is None else np.array(turns),
        "answered": np.isfinite(losses),
    }
    return Update(client, round, weight, arrays)


def merged(pool, *rounds):
    """The state after some rounds of updates."""
    state = start()
    memory = pool.init(state)
    for updates in rounds:
        state, memory = pool.merge(state, updates, memory)
    return state


def test_observations_follow_each_other_clients_by_name():
    state = merged(
        Pool(level=False),
        [sent("b", [3, 5], [0.3, np.nan], 2.0), sent("a", [3, 7], [0.5, 0.7], 9.0)],
        [sent("c", [3], [0.1], 1.0)],
    )
    assert state.seen_points[:, 0].tolist() == [3, 7, 3, 5, 3]
    assert state.seen_losses.tolist() == [0.5, 0.7, 0.3, 0.0, 0.1]
    assert state.seen_weights.tolist() == [9, 9, 2, 0, 1]
    assert state.seen_clients.tolist() == [word(name) for name in "aabbc"]
    assert not len(state.new_points)


def test_a_harder_client_is_levelled():
    """Client b's examples cost .6 more. The mean, with weights 1 and 3, is .45 above a's losses."""
    easy, hard = sent("a", [0, 1], [0.1, 0.3], 1.0), sent("b", [0, 2, 1], [0.7, np.nan, 0.9], 3.0)
    state = merged(Pool(), [easy, hard])
    np.testing.assert_allclose(state.seen_losses, [0.55, 0.75, 0.55, 0.0, 0.75])


def test_the_mean_of_a_candidate_that_all_answered_stays_what_it_is():
    rng = np.random.default_rng(3)
    table, weights = rng.uniform(0, 1, (4, 6)), np.array([3.0, 1.0, 8.0, 5.0])
    sends = [sent(f"c{k}", range(6), table[k], weights[k]) for k in range(4)]
    state = merged(Pool(), sends)
    means = np.average(state.seen_losses.reshape(4, 6), axis=0, weights=weights)
    np.testing.assert_allclose(means, np.average(table, axis=0, weights=weights))
    spread = state.seen_losses.reshape(4, 6).mean(axis=1)
    np.testing.assert_allclose(spread, spread[0])


def test_candidates_that_only_the_easy_clients_answered_are_seen_for_what_they_are():
    """Additive losses are recovered but for one constant, whoever answered what and when."""
    worth, hard = np.array([0.1, 0.4, 0.2, 0.6]), {"a": 0.0, "b": 0.5, "c": 1.0}
    asked = [{"a": [0, 1], "b": [1, 2]}, {"c": [0, 3]}]
    rounds = [[sent(c, r, worth[r] + hard[c]) for c, r in turn.items()] for turn in asked]
    state = merged(Pool(), *rounds)
    above = state.seen_losses - worth[state.seen_points[:, 0].astype(int)]
    np.testing.assert_allclose(above, above[0])


def test_what_cannot_be_compared_stays():
    state = merged(Pool(), [sent("a", [0, 1], [0.1, 0.3]), sent("b", [2, 3], [0.7, np.nan])])
    np.testing.assert_allclose(state.seen_losses, [0.1, 0.3, 0.7, 0.0])
    none = np.zeros(0)
    assert offsets(none[:, None], none, none, none.astype(int), none.astype(int)).shape == (0,)
    alone = merged(Pool(), [sent("a", [0, 0], [0.1, 0.9])])
    np.testing.assert_array_equal(alone.seen_losses, [0.1, 0.9])
    silent = merged(Pool(), [sent("a", [0], [np.nan]), sent("b", [0], [np.nan])])
    np.testing.assert_array_equal(silent.seen_losses, 0.0)


@pytest.mark.parametrize("every", [1, 3])
def test_offsets_are_those_of_penalised_least_squares(every):
    """Beside a regression on dummies of candidates, clients and parts, written out: a part's own
    effect is as uncertain as one of its observations. With one part it is the plain regression.
    """
    rng = np.random.default_rng(5)
    points, clients = rng.integers(0, 6, (40, 1)).astype(float), rng.integers(0, 4, 40)
    losses, weights = rng.standard_normal(40), rng.uniform(1, 9, 40)
    turns = rng.integers(0, every, 40)
    part = every * clients + turns
    dummies = [np.eye(n)[which] for n, which in ((6, points[:, 0].astype(int)), (4, clients))]
    dummies = np.concatenate([*dummies, np.eye(4 * every)[part]], axis=1)
    root = np.sqrt(weights)[:, None]
    mean = np.bincount(part, weights) / np.bincount(part)
    prior = np.concatenate([np.zeros((4 * every, 10)), np.diag(np.sqrt(mean))], axis=1)
    system = np.concatenate([root * dummies, prior])
    right = np.concatenate([root[:, 0] * losses, np.zeros(4 * every)])
    solved = np.linalg.lstsq(system, right, rcond=None)[0]
    own = solved[6:10] - np.average(solved[6:10][clients], weights=weights)
    ours = offsets(points, losses, weights, clients, turns)
    np.testing.assert_allclose(ours, own[clients] + solved[10:][part], atol=1e-10)


def test_luck_is_found_out_though_nobody_else_is_asked_again():
    """Candidate 0 was lucky at first, on the examples that all had; then it is asked alone."""
    first = [sent(f"c{k}", range(8), [0.0, *[0.5] * 7]) for k in range(2)]
    again = [[sent(f"c{k}", [0], [0.8], turns=[turn]) for k in range(2)] for turn in range(1, 6)]
    state = merged(Pool(), first, *again)
    mean = state.seen_losses[state.seen_points[:, 0] == 0].mean()
    plain = (0.0 + 5 * 0.8) / 6
    assert 0.3 < mean < plain + 1e-9  # free effects would leave it at 0.0
    assert state.seen_turns.tolist() == [0] * 16 + [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_harder_parts_are_levelled():
    """All candidates are compared on part 0, the best four also on part 1, which is far harder."""
    rng = np.random.default_rng(3)
    worth = np.linspace(0, 0.4, 8)
    hard = rng.uniform(0.3, 0.5, 3)
    first = [sent(f"c{k}", range(8), worth) for k in range(3)]
    second = [sent(f"c{k}", range(4), worth[:4] + hard[k], turns=[1] * 4) for k in range(3)]
    state = merged(Pool(), first, second)
    means = [state.seen_losses[state.seen_points[:, 0] == row].mean() for row in range(8)]
    assert (np.diff(means) > 0).all()  # as they stand, candidate 3 would look worse than 4 to 7
    raw = merged(Pool(level=False), first, second)
    assert raw.seen_losses[raw.seen_points[:, 0] == 3].mean() > worth[5]


@pytest.mark.parametrize("bayes", [Bayes(), Bayes(acquisition="thompson")], ids=["ei", "thompson"])
def test_five_clients_find_the_best_of_a_pool_together(bayes):
    """Losses of few noisy examples, harder at some clients than candidates differ: 16 of 50
    candidates, and the one elected is among the best three.
    """
    worth = np.linalg.norm(POOL - POOL[31], axis=1)
    worth = 0.3 * worth / worth.max()
    places = []
    for seed in range(5):
        rng, state, pool = np.random.default_rng(seed), start(), Pool()
        memory, hard = pool.init(state), rng.uniform(0, 1, 5)
        for round in range(4):
            points, updates = bayes.ask(state, stream(seed, "test", round)), []
            rows = [int(np.flatnonzero((POOL == p).all(axis=1))[0]) for p in points]
            for k in range(5):
                weight = 4.0 + 4 * k
                noise = 0.1 / np.sqrt(weight) * rng.standard_normal(len(rows))
                told = bayes.tell(state, points, worth[rows] + hard[k] + noise)
                arrays = {name: getattr(told, name) for name in pool.reads}
                updates.append(Update(f"c{k}", round, weight, arrays))
            state, memory = pool.merge(state, updates, memory)
        best = bayes.best(state)
        places.append(int((worth < worth[(POOL == best).all(axis=1)][0]).sum()))
    assert np.median(places) <= 1 and max(places) <= 4


def test_levelling_keeps_the_clients_differences_out_of_the_noise():
    rng = np.random.default_rng(1)
    table = rng.uniform(0, 0.2, 8) + np.linspace(0, 1, 4)[:, None]
    sends = [sent(f"c{k}", range(8), row) for k, row in enumerate(table)]
    noise = [Bayes()._model(merged(Pool(level=level), sends)).noise for level in (True, False)]
    assert noise[0] < 0.05 * noise[1]


def test_the_order_of_updates_changes_no_bit():
    rng = np.random.default_rng(2)
    sends = [sent(f"c{k}", range(5), rng.uniform(size=5), 1.0 + k) for k in range(3)]
    results = {merged(Pool(), list(order)).seen_losses.tobytes() for order in permutations(sends)}
    assert len(results) == 1


@pytest.mark.parametrize("directions", ["shared", "distinct"])
def test_a_whole_run_is_the_same_whether_clients_send_losses_or_observations(
    directions, tmp_path, monkeypatch
):
    kit = load_kit()
    monkeypatch.syspath_prepend(kit.BOXES)
    ends = []
    for wire in ("replay", "state"):
        changes = {
            "method.optimizer": {"name": "bayes", "batch": 3, "initial": 6},
            "method.aggregator": {"name": "pool"},
            "method.directions": directions,
            "method.wire": wire,
            "rounds.steps": 1 if directions == "shared" else 2,
            "prompt.kind": "soft",
        }
        config = kit.write_config(tmp_path / wire, changes)
        api.run(config, tmp_path / wire / "out")
        result = kit.numbers(tmp_path / wire / "out")
        ends.append({key: result[key] for key in ("tuned", "baseline", "rounds", "queries")})
    assert ends[0] == ends[1]
    assert ends[0]["tuned"]["loss"] < ends[0]["baseline"]["loss"]
