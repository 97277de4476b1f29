"""Epsilon beside the formulas of Balle & Wang 2018 and the integrals that define it."""

import importlib
import math
import sys

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import norm

from fedbbpt.errors import ConfigError, MissingExtra
from fedbbpt.maths.accounting import _run, epsilon_of, multiplier_for

DELTA = 1e-5


@pytest.fixture(autouse=True)
def library():
    pytest.importorskip("dp_accounting")


def gaussian_delta(epsilon, multiplier):
    """Balle & Wang 2018, theorem 8, of sensitivity 1."""
    half, far = 1 / (2 * multiplier), epsilon * multiplier
    return norm.cdf(half - far) - math.exp(epsilon) * norm.cdf(-half - far)


def sampled_delta(epsilon, multiplier, rate):
    """One round with Poisson sampling, by definition: the larger of the integrals of
    max(0, p - e**epsilon q) both ways, with p a mixture and q without the client.
    """
    x = np.linspace(-40 * multiplier, 40 * multiplier, 2_000_001)
    without = norm.pdf(x, 0, multiplier)
    mixed = (1 - rate) * without + rate * norm.pdf(x, 1, multiplier)
    both = ((mixed, without), (without, mixed))
    gaps = (np.maximum(0, p - math.exp(epsilon) * q) for p, q in both)
    return max(trapezoid(gap, x) for gap in gaps)


@pytest.mark.parametrize("multiplier, rounds", [(0.5, 1), (1, 1), (5, 1), (20, 1000), (3, 7)])
def test_without_sampling_it_is_the_closed_form(multiplier, rounds):
    epsilon = epsilon_of(multiplier, rounds, DELTA)
    assert gaussian_delta(epsilon, multiplier / math.sqrt(rounds)) == pytest.approx(DELTA, rel=1e-6)


def test_golden_numbers():
    """As printed by other accountants: multiplier 1, one round; and the classical bound is worse
    (Dwork & Roth 2014, theorem A.1, which holds for epsilon below 1).
    """
    assert epsilon_of(1, 1, DELTA) == pytest.approx(4.3772, abs=1e-4)
    classical = math.sqrt(2 * math.log(1.25 / DELTA)) / 0.9
    assert multiplier_for(0.9, 1, DELTA) < classical


@pytest.mark.parametrize("multiplier, rate", [(1, 0.1), (0.7, 0.5), (2, 0.3)])
def test_with_sampling_one_round_is_the_integral(multiplier, rate):
    epsilon = epsilon_of(multiplier, 1, DELTA, rate)
    assert sampled_delta(epsilon, multiplier, rate) == pytest.approx(DELTA, rel=5e-3)


def test_the_loss_distribution_agrees_with_the_closed_form_over_rounds():
    """At rate 1 the way that sampling takes must end where the exact one does."""
    pld = importlib.import_module("dp_accounting.pld")
    accountant = pld.PLDAccountant()
    accountant.compose(_run(8.0, 50, 1.0))
    assert accountant.get_epsilon(DELTA) == pytest.approx(epsilon_of(8.0, 50, DELTA), rel=1e-3)


def test_it_is_below_the_bound_of_the_moments():
    """Renyi divergences (Mironov 2017) bound the same from above, by a tenth or so."""
    orders = [1 + i for i in range(1, 64)]
    accountant = importlib.import_module("dp_accounting.rdp").RdpAccountant(orders)
    accountant.compose(_run(1.0, 100, 0.1))
    bound, tight = accountant.get_epsilon(DELTA), epsilon_of(1.0, 100, DELTA, 0.1)
    assert 0.8 * bound < tight < bound


def test_more_rounds_more_sampling_and_less_noise_cost_more():
    middle = epsilon_of(2, 20, DELTA, 0.2)
    assert epsilon_of(2, 10, DELTA, 0.2) < middle < epsilon_of(2, 40, DELTA, 0.2)
    assert epsilon_of(2, 20, DELTA, 0.1) < middle < epsilon_of(2, 20, DELTA)
    assert epsilon_of(3, 20, DELTA, 0.2) < middle < epsilon_of(1, 20, DELTA, 0.2)
    assert epsilon_of(0, 1, DELTA) == math.inf


@pytest.mark.parametrize("epsilon, rounds, rate", [(8, 20, 1), (1, 1000, 1), (3, 20, 0.5)])
def test_the_multiplier_for_an_epsilon_is_just_enough(epsilon, rounds, rate):
    multiplier = multiplier_for(epsilon, rounds, DELTA, rate)
    assert 0.995 * epsilon < epsilon_of(multiplier, rounds, DELTA, rate) <= epsilon * (1 + 1e-9)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: epsilon_of(-1, 1, DELTA), "multiplier is -1"),
        (lambda: epsilon_of(math.nan, 1, DELTA), "multiplier is nan"),
        (lambda: epsilon_of(1, 0, DELTA), "rounds is 0"),
        (lambda: epsilon_of(1, 1, 0), "delta is 0"),
        (lambda: epsilon_of(1, 1, DELTA, 0), "rate is 0"),
        (lambda: epsilon_of(1, 1, DELTA, 1.5), "rate is 1.5"),
        (lambda: multiplier_for(0, 1, DELTA), "epsilon is 0"),
        (lambda: multiplier_for(math.inf, 1, DELTA), "epsilon is inf"),
    ],
)
def test_numbers_out_of_range_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_without_the_library_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MissingExtra, match=r"dp-accounting is not installed.*fedbbpt\[privacy\]"):
        epsilon_of(1, 1, DELTA)
