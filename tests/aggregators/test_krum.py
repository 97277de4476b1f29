from itertools import permutations
from typing import NamedTuple

import numpy as np
import pytest

from fedbbpt.aggregators.krum import Krum
from fedbbpt.errors import ConfigError
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.types import Update


class State(NamedTuple):
    mean: np.ndarray
    step: np.ndarray


STATE = State(np.zeros(1), np.array(4))


def update(client, mean, weight=1, step=5):
    return Update(client, 0, weight, {"mean": np.array([mean]), "step": np.array(step)})


FIVE = [
    update(name, x, w)
    for name, x, w in zip("abcde", (0.0, 1, 3, 2.5, 50), (1, 2, 3, 4, 5), strict=True)
]
"""Squares to the two next (bad = 1): a 1 + 6.25, b 1 + 2.25, c .25 + 4, d .25 + 2.25."""


def test_golden_numbers():
    assert Krum().merge(STATE, FIVE, {}) == (State(np.array([2.5]), np.array(5)), {})
    two, _ = Krum(keep=2).merge(STATE, FIVE, {})  # d and b
    assert two.mean[0] == pytest.approx((4 * 2.5 + 2 * 1) / 6)
    most, _ = Krum(keep=0).merge(STATE, FIVE, {})  # all but e
    assert most.mean[0] == pytest.approx((0 + 2 * 1 + 3 * 3 + 4 * 2.5) / 10)


def test_no_weight_buys_a_choice():
    heavy = [*FIVE[:4], update("e", 50.0, 1e6)]
    assert Krum().merge(STATE, heavy, {})[0].mean[0] == 2.5


def test_all_fields_are_judged_together():
    """A fine mean does not carry a false count in."""
    liar = update("0", 2.0, step=10**6)
    others = [update(u.client, float(u.arrays["mean"][0])) for u in FIVE[:4]]
    state, _ = Krum(keep=0).merge(STATE, [liar, *others], {})
    assert state.step == 5
    assert state.mean[0] == pytest.approx((0 + 1 + 3 + 2.5) / 4)


def test_equal_clients_are_told_by_name():
    """a and c have the same score, as mirror images."""
    mirrored = [update(name, x) for name, x in zip("eadcb", (-9.0, -1, 9, 1, 0), strict=True)]
    kept = {
        float(Krum(keep=2).merge(STATE, list(p), {})[0].mean[0]) for p in permutations(mirrored)
    }
    assert kept == {-0.5}  # b, which lies between, and a, not c


def test_counts_stay_counts():
    steps = [update(f"{k}", 0.0, step=step) for k, step in enumerate((5, 5, 6, 6, 6))]
    state, _ = Krum(keep=0).merge(STATE, steps, {})
    assert state.step == 6
    assert state.step.dtype == STATE.step.dtype


@pytest.mark.parametrize(
    ("options", "least"),
    [({}, 5), ({"bad": 0}, 3), ({"bad": 3}, 9), ({"keep": 6}, 7), ({"bad": 2, "keep": 0}, 7)],
)
def test_too_few_updates_are_refused(options, least):
    rule = Krum(**options)
    assert rule.least == least
    many = [update(f"{k}", float(k)) for k in range(least)]
    assert np.isfinite(rule.merge(STATE, many, {})[0].mean).all()
    with pytest.raises(ConfigError, match=f"krum got {least - 1} updates .* needs {least}"):
        rule.merge(STATE, many[1:], {})


def test_nobody_is_not_too_few():
    assert Krum().merge(STATE, [], {}) == (STATE, {})


@pytest.mark.parametrize(("bad", "least"), [(1, 5), (2, 7)])
def test_as_many_liars_as_it_bears_are_not_followed(bad, least):
    rng = np.random.default_rng(bad)
    honest = [update(f"{k}", x) for k, x in enumerate(rng.uniform(-1, 1, least - bad))]
    for lie in (1e300, -5.0, 1e6):
        liars = [update(f"liar {k}", lie) for k in range(bad)]
        for keep in (0, 1):
            state, _ = Krum(bad=bad, keep=keep).merge(STATE, [*liars, *honest], {})
            assert -1 <= state.mean[0] <= 1


def test_it_reads_what_the_optimiser_averages():
    assert Krum().fields(Cmaes()) == ("mean", "sigma")


@pytest.mark.parametrize("options", [{"bad": -1}, {"keep": -1}])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"krum\.(bad|keep)"):
        Krum(**options)
