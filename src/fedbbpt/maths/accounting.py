"""What a run with Gaussian noise gives away about one client: epsilon at a delta, and back.

A run is (epsilon, delta)-private if, whatever is seen of it, its probability with a client and
without that client differ by a factor of at most e**epsilon, but for a part of at most delta
(Dwork & Roth 2014). One unit is a client with all its examples, added or removed: its update
against nothing at all. To have one client's examples *replaced* by others moves a clipped update
by up to twice its norm: the epsilon of that is the one at half the multiplier.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

from fedbbpt.errors import ConfigError, MissingExtra


def epsilon_of(multiplier: float, rounds: int, delta: float, rate: float = 1.0) -> float:
    """The epsilon of a run at a delta.

    Args:
        multiplier: standard deviation of all the noise in what is seen, over the norm to which a
            client's contribution is clipped. Whoever sees each client's own update sees the
            noise of one client; whoever sees only a sum over K clients of equal weight, each with
            noise of multiplier z, sees sqrt(K) z, for the K that were summed and are honest.
        rounds: in which the client takes part; with a rate, those of the run.
        delta: commonly well below one over the number of clients in the world, 1e-5.
        rate: the probability with which a client takes part in a round, drawn for each client by
            itself (Poisson). A rate below 1 helps only against those who cannot know who took
            part: not the server, nor anybody else who knows the seed from which clients are
            picked. Against them count a client's own rounds, at rate 1.

    Returns:
        The exact value without sampling, where T rounds are one with multiplier z / sqrt(T)
        (Balle & Wang 2018, theorem 8); else an upper bound that is tight to some 1e-4, from the
        distribution of the privacy loss (Koskela et al. 2020). Infinite without noise.

    Raises:
        ConfigError: a number is out of range.
        MissingExtra: dp-accounting is not installed.
    """
    _check(multiplier, "multiplier", rounds, delta, rate)
    if multiplier == 0:
        return math.inf
    if rate == 1:
        return float(_library().get_epsilon_gaussian(multiplier / math.sqrt(rounds), delta))
    accountant = _library(".pld").PLDAccountant()
    accountant.compose(_run(multiplier, rounds, rate))
    return float(accountant.get_epsilon(delta))


def multiplier_for(epsilon: float, rounds: int, delta: float, rate: float = 1.0) -> float:
    """The smallest multiplier, to a thousandth of itself, with which a run keeps to an epsilon.

    Args:
        epsilon: wanted, above 0.
        rounds, delta, rate: as of :func:`epsilon_of`.

    Raises:
        ConfigError, MissingExtra: as there.
    """
    _check(epsilon, "epsilon", rounds, delta, rate)
    if epsilon == 0:
        raise ConfigError("epsilon is 0, which no noise can give; it must be above 0")
    enough = float(_library().get_sigma_gaussian(epsilon, delta)) * math.sqrt(rounds)
    if rate == 1:
        return enough
    little = enough / 2
    while epsilon_of(little, rounds, delta, rate) <= epsilon:
        enough, little = little, little / 2
    while enough - little > enough / 1000:
        middle = (enough + little) / 2
        if epsilon_of(middle, rounds, delta, rate) <= epsilon:
            enough = middle
        else:
            little = middle
    return enough


def _check(value: float, name: str, rounds: int, delta: float, rate: float) -> None:
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} is {value}; it must be a number from 0")
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; it must be 1 or more")
    if not 0 < delta < 1:
        raise ConfigError(f"delta is {delta}; it must be between 0 and 1")
    if not 0 < rate <= 1:
        raise ConfigError(f"rate is {rate}; it must be above 0 and at most 1")


def _run(multiplier: float, rounds: int, rate: float) -> Any:
    dp = _library()
    once = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(multiplier))
    return dp.SelfComposedDpEvent(once, rounds)


def _library(part: str = "") -> Any:
    try:
        return importlib.import_module(f"dp_accounting{part}")
    except ModuleNotFoundError:
        raise MissingExtra("dp-accounting", "privacy") from None
