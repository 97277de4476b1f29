"""The noise has the deviation that it says, and hides whatever leaves."""

import math

import numpy as np
import pytest
from scipy import stats

from fedbbpt.errors import ConfigError, Incompatible, Refused
from fedbbpt.maths.secret import secret_stream
from fedbbpt.shielding import in_order, protect
from fedbbpt.shields.clip import Clip
from fedbbpt.shields.noise import Noise

SECRET = bytes(32)


def noisy(arrays, norm=2.0, multiplier=0.5, fields=(), secret=SECRET):
    noise = in_order([Clip(norm, fields), Noise(multiplier)])[1]
    return noise.apply(arrays, 1.0, secret_stream(secret, 0, "test"))


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_it_is_gaussian_with_the_deviation_that_it_says(kind):
    sent = noisy({"mean": np.full((200, 200), 0.25, kind)})["mean"]
    assert sent.dtype == kind
    assert stats.kstest(sent.ravel().astype(np.float64), "norm", (0.25, 1.0)).pvalue > 1e-3
    assert abs(np.corrcoef(sent[:-1].ravel(), sent[1:].ravel())[0, 1]) < 0.02


def test_it_is_repeatable_with_the_secret_and_another_without():
    arrays = {"mean": np.zeros(50), "sigma": np.array(1.0)}
    one, again, other = (noisy(arrays, secret=s) for s in (SECRET, SECRET, b"1" * 32))
    assert all(np.array_equal(one[name], again[name]) for name in arrays)
    assert not np.isclose(one["mean"], other["mean"]).any()


def test_a_simulation_may_use_numpys_generator():
    noise = in_order([Clip(1.0), Noise(2.0)])[1]
    sent = noise.apply({"x": np.zeros(10_000)}, 1.0, np.random.default_rng(0))
    assert sent["x"].std() == pytest.approx(2.0, rel=0.03)


def test_fields_get_noise_of_their_own():
    sent = noisy({"a": np.zeros(50), "b": np.zeros(50)})
    assert not np.isclose(sent["a"], sent["b"]).any()


def test_the_last_bits_do_not_tell_what_was_there():
    """Both of two nearby values reach the very same set of results."""
    for value in (0.1, 1 / 3):
        sent = noisy({"x": np.full(100, value)})["x"]
        assert np.array_equal(sent * 2.0**20, np.rint(sent * 2.0**20))


def test_the_noise_of_a_sum_adds_up():
    """16 sites with multiplier 0.5 and norm 2: deviation 4 on the sum."""
    shields = in_order([Clip(2.0), Noise(0.5)])
    arrays = {"x": np.zeros(4000)}
    sites = [protect(shields, arrays, 1.0, bytes([k]) * 32, 0)["x"] for k in range(16)]
    assert stats.kstest(np.sum(sites, axis=0), "norm", (0, 4.0)).pvalue > 1e-3


@pytest.mark.parametrize("bare", [{"count": np.array(3)}, {"other": np.zeros(2)}])
def test_what_would_leave_without_noise_is_refused(bare):
    with pytest.raises(Incompatible, match=f"covers x, but {next(iter(bare))} would leave"):
        noisy({"x": np.zeros(2), **bare}, fields=("x", "count"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(Refused, match="x holds a value that is not finite"):
        noisy({"x": np.array([0.0, value])})


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan, math.inf])
def test_a_multiplier_that_is_none_is_refused(multiplier):
    with pytest.raises(ConfigError, match=r"noise\.multiplier is"):
        Noise(multiplier)
