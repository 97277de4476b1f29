"""Rounding that is right on average and never off by a step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import ConfigError, Refused
from fedbbpt.maths.secret import secret_stream
from fedbbpt.shielding import in_order
from fedbbpt.shields.clip import Clip
from fedbbpt.shields.noise import Noise
from fedbbpt.shields.quantise import Quantise


def draws(seed=0):
    return secret_stream(bytes(32), seed, "test")


def behind(bits, *before):
    return in_order([*before, Quantise(bits)])[-1]


@given(st.integers(1, 16), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_values_are_within_a_step(bits, norm, seed):
    quantise = behind(bits, Clip(norm))
    values = np.random.default_rng(seed).uniform(-norm, norm, (5, 7))
    values.flat[:2] = -norm, norm
    sent = quantise.apply({"x": values}, 1.0, draws(seed))
    assert sent["x.quantised"].dtype == (np.uint8 if bits <= 8 else np.uint16)
    opened = quantise.open(sent)["x"]
    step = 2 * norm / (2**bits - 1)
    assert np.abs(opened - values).max() < step * (1 + 1e-9)
    # The ends are numbers of the grid and stay themselves.
    assert opened.flat[:2] == pytest.approx([-norm, norm], rel=1e-12)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_they_are_right_on_average_with_the_variance_it_says(bits):
    quantise, n = behind(bits, Clip(1.0)), 40_000
    for value in (-0.95, -0.3, 0.0, 0.77):
        sent = quantise.apply({"x": np.full(n, value)}, 1.0, draws())
        found = quantise.open(sent)["x"]
        assert abs(found.mean() - value) < 4 * (quantise.step / 2) / math.sqrt(n)
        assert found.var() <= quantise.step**2 / 4 * 1.01


def test_the_place_of_a_mean_is_the_mean_of_places():
    """So a masked sum of places can be opened."""
    quantise, rng = behind(8, Clip(1.0)), np.random.default_rng(0)
    sent = [quantise.apply({"x": rng.uniform(-1, 1, 9)}, 1.0, draws(k)) for k in range(3)]
    weights = np.array([1.0, 2.0, 5.0]) / 8
    mean = {"x.quantised": weights @ [a["x.quantised"] for a in sent]}
    opened = weights @ [quantise.open(a)["x"] for a in sent]
    assert quantise.open(mean)["x"] == pytest.approx(opened, rel=1e-12)


def test_behind_noise_the_range_is_wider_and_ends():
    quantise = behind(8, Clip(1.0), Noise(0.5))
    assert quantise.step * 255 == pytest.approx(2 * (1 + 6 * 0.5))
    sent = quantise.apply({"x": np.array([-9.0, 9.0])}, 1.0, draws())
    assert quantise.open(sent)["x"] == pytest.approx([-4.0, 4.0])


def test_only_floating_fields_of_clip_are_touched():
    quantise = behind(8, Clip(1.0, ("x",)))
    sent = quantise.apply({"x": np.zeros(2), "y": np.ones(2), "n": np.array(3)}, 1.0, draws())
    assert sorted(sent) == ["n", "x.quantised", "y"]
    assert sorted(quantise.open(sent)) == ["n", "x", "y"]


def test_what_is_not_finite_is_refused():
    with pytest.raises(Refused, match="not finite"):
        behind(8, Clip(1.0)).apply({"x": np.array([math.nan])}, 1.0, draws())


@pytest.mark.parametrize("bits", [0, 17, -3])
def test_other_bits_are_refused(bits):
    with pytest.raises(ConfigError, match="must be from 1 to 16"):
        Quantise(bits)
