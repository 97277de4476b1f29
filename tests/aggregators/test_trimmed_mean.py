from typing import NamedTuple

import numpy as np
import pytest

from fedbbpt.aggregators.mean import Mean
from fedbbpt.aggregators.trimmed_mean import TrimmedMean
from fedbbpt.errors import ConfigError
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.types import Update


class State(NamedTuple):
    mean: np.ndarray
    step: np.ndarray


STATE = State(np.zeros(2), np.array(4))


def updates(means, weights, steps=None):
    return [
        Update(
            f"{k}",
            0,
            weight,
            {"mean": np.array(mean), "step": np.array(5 if not steps else steps[k])},
        )
        for k, (mean, weight) in enumerate(zip(means, weights, strict=True))
    ]


def test_golden_numbers():
    """Five alike: the ends go. Weights 2, 2, 4 and a quarter at each end: (4 * 3) / 4."""
    five = updates([[float(x), -float(x)] for x in (8, 1, 3, 2, 100)], [6] * 5)
    np.testing.assert_allclose(TrimmedMean().merge(STATE, five, {})[0].mean, [13 / 3, -13 / 3])
    three = updates([[1.0, 0.0], [9.0, 0.0], [3.0, 0.0]], [2, 2, 4])
    np.testing.assert_allclose(TrimmedMean(trim=0.25).merge(STATE, three, {})[0].mean, [3.0, 0.0])


def test_nothing_trimmed_is_the_mean():
    rng = np.random.default_rng(0)
    some = updates(rng.standard_normal((6, 2)), rng.integers(1, 30, 6).astype(float))
    one, other = (rule.merge(STATE, some, {})[0].mean for rule in (TrimmedMean(trim=0.0), Mean()))
    np.testing.assert_allclose(one, other, rtol=1e-13)


def test_counts_stay_counts():
    state, _ = TrimmedMean().merge(STATE, updates([[0.0, 0.0]] * 5, [1] * 5, [5, 5, 6, 5, 900]), {})
    assert state.step == 6  # 16 / 3, rounded up
    assert state.step.dtype == STATE.step.dtype


def test_one_of_five_liars_moves_nothing_out():
    honest = [[0.1 * k, 1.0] for k in range(4)]
    state, _ = TrimmedMean().merge(STATE, updates([*honest, [-1e300, 1e300]], [9] * 5), {})
    assert 0 <= state.mean[0] <= 0.3
    assert state.mean[1] == 1


def test_it_reads_what_the_optimiser_averages():
    assert TrimmedMean().fields(Cmaes()) == ("mean", "sigma")


@pytest.mark.parametrize("trim", [-0.1, 0.5, 1.0, float("nan")])
def test_bad_options_are_refused(trim):
    with pytest.raises(ConfigError, match=r"trimmed_mean\.trim"):
        TrimmedMean(trim=trim)
