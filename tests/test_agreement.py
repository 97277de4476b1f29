"""Noise agrees with nothing and does not fall; a search that works does both."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedbbpt.agreement import LEAST_ROUNDS, MEMORY, agreement, fall, levelled, signal
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.optimizers.es import Es
from fedbbpt.optimizers.policy_gradient import PolicyGradient
from fedbbpt.parts import Parts
from fedbbpt.random import stream
from fedbbpt.round import Played, Server
from fedbbpt.types import Job, Space, Update

REAL, DISCRETE = Space("real", (12,)), Space("categorical", (3, 8))
SEARCHES = [(Es(), REAL), (Cmaes(popsize=6), REAL), (PolicyGradient(), DISCRETE)]
SLOPE = stream(5, "slope").standard_normal(24)


def make_parts(optimizer, space, directions="distinct", wire="replay"):
    prompt = SimpleNamespace(space=space)
    return Parts(optimizer, prompt, None, None, directions, wire, {})


def played(parts, number, loss, clients=("a", "b"), seed=0):
    """A round at the starting point; ``loss`` maps (client, points) to losses."""
    state = parts.optimizer.init(parts.prompt.space)
    job = Job("search", number, 1, seed, parts.broadcast(state))
    updates = [
        Update(c, number, 1.0, {"losses": loss(c, parts.candidates(job, c, 0, state))[None]})
        for c in clients
    ]
    return Played(Server(number + 1, state, {}), job, updates)


def slope(client, points):
    return points.reshape(len(points), -1) @ SLOPE[: points[0].size]


def cosines(parts, loss, rounds=40, seed=0):
    heading, found = np.zeros(parts.prompt.space.shape), []
    for number in range(rounds):
        cosine, heading = agreement(parts, played(parts, number, loss, seed=seed), heading)
        found.append(cosine)
    assert found[0] is None
    return np.array(found, np.float64)


@pytest.mark.parametrize("directions", ["distinct", "shared", "fixed"])
@pytest.mark.parametrize(("optimizer", "space"), SEARCHES)
def test_noise_agrees_with_nothing_and_a_slope_with_itself(optimizer, space, directions):
    parts, rng = make_parts(optimizer, space, directions), stream(0, "noise")
    noise = [
        signal(cosines(parts, lambda _, points: 1 + rng.standard_normal(len(points)), seed=seed))
        for seed in range(12)
    ]
    # Standard scores: their mean has a standard deviation of 1 / sqrt(12).
    assert abs(np.mean(noise)) < 3 / np.sqrt(12) and 0.4 < np.std(noise) < 1.8
    assert signal(cosines(parts, slope)) > 4


def test_the_cosine_is_that_of_the_losses_direction_and_the_heading():
    parts = make_parts(Es(pairs=3), REAL)
    this = played(parts, 4, slope)
    state = parts.receive(this.job.arrays)
    total = np.zeros(12)
    for update in this.updates:
        points = parts.candidates(this.job, update.client, 0, state)
        told = update.arrays["losses"][0]
        total += (told - told.mean()) @ points
    unit = total / np.linalg.norm(total)
    cosine, heading = agreement(parts, this, SLOPE[:12])
    assert cosine == pytest.approx(unit @ SLOPE[:12] / np.linalg.norm(SLOPE[:12]))
    np.testing.assert_allclose(heading, MEMORY * SLOPE[:12] + unit)


def test_unanswered_candidates_are_left_out():
    parts = make_parts(Es(pairs=3), REAL)

    def silent(client, points):
        return np.where(np.arange(len(points)) == 2, np.nan, slope(client, points))

    cosine, heading = agreement(parts, played(parts, 0, silent), SLOPE[:12])
    assert 0 < cosine < 1 and np.isfinite(heading).all()


@pytest.mark.parametrize(
    "loss",
    [lambda _, points: np.ones(len(points)), lambda _, points: np.full(len(points), np.nan)],
)
def test_losses_that_tell_nothing_leave_the_heading(loss):
    heading = np.arange(12.0)
    cosine, after = agreement(
        make_parts(Es(), REAL), played(make_parts(Es(), REAL), 0, loss), heading
    )
    assert cosine is None and after is heading


def test_without_losses_there_is_no_agreement():
    parts = make_parts(Es(), REAL, wire="state")
    this = played(parts, 0, slope)
    this = this._replace(updates=[Update("a", 0, 1.0, {"mean": np.ones(12)})])
    assert agreement(parts, this, np.ones(12))[0] is None


def test_a_client_that_could_not_pay_is_left_out():
    parts = make_parts(Es(), REAL)
    this = played(parts, 0, slope)
    poor = Update("c", 0, 0.0, {"losses": np.array([])})
    both = this._replace(updates=[poor, *this.updates])
    assert agreement(parts, both, np.ones(12))[0] == agreement(parts, this, np.ones(12))[0]


def test_few_rounds_have_no_score():
    assert signal(np.full(LEAST_ROUNDS - 2, 0.5)) is None
    assert signal(np.full(LEAST_ROUNDS - 1, 0.5)) == pytest.approx(np.sqrt(LEAST_ROUNDS - 1))
    assert fall(np.arange(LEAST_ROUNDS - 1.0)) is None
    assert fall(np.arange(float(LEAST_ROUNDS))) == pytest.approx(-np.sqrt(LEAST_ROUNDS - 1))


def test_a_fall_is_scored_by_ranks():
    rng, rounds = stream(1, "fall"), np.arange(50)
    noise = [fall(rng.standard_normal(50)) for _ in range(400)]
    assert abs(np.mean(noise)) < 0.15 and 0.9 < np.std(noise) < 1.1
    falling = 1 - 0.02 * rounds + 0.1 * rng.standard_normal(50)
    assert fall(falling) > 5
    outlier = np.where(rounds == 49, 1e6, falling)
    assert fall(outlier) > 4
    assert fall(np.where(rounds % 7 == 3, np.nan, falling)) > 4
    assert fall(np.ones(50)) == 0


def test_a_clients_own_level_is_taken_out():
    level = {"easy": 0.2, "hard": 3.0}
    # The hard one takes part more often towards the end.
    who = ["hard" if n % 10 < n // 6 else "easy" for n in range(60)]
    events = [{"event": "merge"}] + [
        {"event": "client", "round": n, "client": c, "loss": level[c] - 0.01 * n}
        for n, c in enumerate(who)
        if n != 30
    ]
    losses = levelled(events, 60)
    assert np.isnan(losses[30]) and np.isfinite(np.delete(losses, 30)).all()
    raw = np.array([level[c] - 0.01 * n for n, c in enumerate(who)])
    assert fall(losses) > 4 and fall(raw) < 0
    assert np.nanmean(losses) == pytest.approx(np.delete(raw, 30).mean())


def test_losses_that_stay_at_the_clients_are_unknown():
    events = [{"event": "client", "round": 0, "client": "a", "loss": None}]
    assert np.isnan(levelled(events, 3)).all() and len(levelled(events, 3)) == 3
