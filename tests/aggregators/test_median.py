from typing import NamedTuple

import numpy as np
import pytest

from fedbbpt.aggregators.mean import Mean
from fedbbpt.aggregators.median import Median
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.optimizers.spsa import Spsa
from fedbbpt.types import Space, Update


class State(NamedTuple):
    mean: np.ndarray
    step: np.ndarray
    other: np.ndarray


STATE = State(np.zeros(2), np.array(4), np.array(5.0))


def update(client, weight, mean, step=5):
    return Update(client, 0, weight, {"mean": np.array(mean), "step": np.array(step)})


def test_golden_numbers():
    """Of 1, 1 and 3 examples the last client has over half; of one each nobody has."""
    updates = [update("a", 1, [2.0, 9.0]), update("b", 1, [1.0, -7.0]), update("c", 3, [0.0, 1.0])]
    state, memory = Median().merge(STATE, updates, {})
    np.testing.assert_array_equal(state.mean, [0.0, 1.0])
    equal = [update(u.client, 1, u.arrays["mean"]) for u in updates]
    np.testing.assert_array_equal(Median().merge(STATE, equal, {})[0].mean, [1.0, 1.0])
    assert state.other is STATE.other
    assert memory == {}


@pytest.mark.parametrize(("steps", "merged"), [([5, 6], 6), ([5, 5, 6], 5), ([4, 7, 9], 7)])
def test_counts_stay_counts(steps, merged):
    """Rounded up, as a mean of them is."""
    updates = [update(f"{k}", 1, [0.0, 0.0], step) for k, step in enumerate(steps)]
    state, _ = Median().merge(STATE, updates, {})
    assert state.step == merged
    assert state.step.dtype == STATE.step.dtype
    two, _ = Median().merge(STATE, updates[:2], {})
    assert two.step == Mean().merge(STATE, updates[:2], {})[0].step


def test_it_reads_what_the_optimiser_averages():
    assert Median().fields(Cmaes()) == ("mean", "sigma")
    assert Median().fields(Spsa()) == Spsa.averages


def test_a_field_without_numbers_stays_without():
    """SPSA keeps no point before where it blocks no step."""
    start = Spsa().init(Space("real", (2,)))
    updates = [Update(f"{k}", 0, 1.0, start._asdict()) for k in range(3)]
    assert Median().merge(start, updates, {})[0].previous.shape == (0,)


def test_two_of_five_liars_move_nothing_out():
    honest = [update(f"{k}", 1, [0.1 * k, 1.0]) for k in range(3)]
    liars = [update(f"liar {k}", 1, [1e300, -1e300], 2**40) for k in range(2)]
    state, _ = Median().merge(STATE, [*liars, *honest], {})
    assert 0 <= state.mean[0] <= 0.2
    assert state.mean[1] == 1
    assert state.step == 5
