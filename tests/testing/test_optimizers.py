"""Every registered optimiser keeps the laws, and the laws catch those that do not."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from fedbbpt import registry
from fedbbpt.arrays import Array
from fedbbpt.optimizers.bayes import Bayes
from fedbbpt.optimizers.es import Es, EsState
from fedbbpt.testing.optimizers import LAWS, check_optimizer, small_spaces, space_of
from fedbbpt.types import Space

# An optimiser that is not named here is tried with its defaults.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "es": [{}, {"shaping": "rank"}, {"decay": 0.01, "pairs": 1, "lr": 0.3}],
    "bayes": [
        {},
        {"acquisition": "thompson", "ard": True, "lengthscale": "gamma"},
        {"kernel": "coupled", "repeats": True, "tolerance": 0.01},
    ],
    "cmaes": [
        {},
        {"covariance": "full", "popsize": 5},
        {"covariance": "isotropic", "step_size": "tpa", "active": False},
    ],
}
CASES = [
    pytest.param(name, options, id="-".join([name, *map(str, options.values())]))
    for name in registry.names("optimizers")
    for options in OPTIONS.get(name, [{}])
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_registered(name, options, law):
    optimizer = registry.make("optimizers", name, options, "method.optimizer")
    for space in small_spaces(optimizer):
        law(optimizer, space)


# --- each law catches one that breaks it ---------------------------------------------------------


class Broken(Es):
    """An optimiser to be spoilt in one place."""


class Uneven(Broken):
    def ask(self, state, rng):
        points = super().ask(state, rng)
        return points[[0, 5]] if state.mean.any() else points


class Unaddressed(Broken):
    def ask(self, state, rng):
        return super().ask(state, np.random.default_rng())


class SortsInPlace(Broken):
    def tell(self, state, points, losses):
        after = super().tell(state, points, losses)
        losses.sort()
        return after


class Averages(Broken):
    """Lets a missing answer count as zero."""

    def tell(self, state, points, losses):
        return super().tell(state, points, np.nan_to_num(losses))


class StartsElsewhere(Broken):
    def init(self, space):
        return EsState(np.ones(space.shape), np.array(0))


class Flat(Broken):
    def best(self, state):
        return state.mean.reshape(-1)


class KeepsALock(NamedTuple):
    mean: Array
    rows: Any


class NotData(Broken):
    state = KeepsALock

    def init(self, space):
        return KeepsALock(np.zeros(space.shape), 0)


class SharesTooMuch(Broken):
    shares = ("mean", "luck")


class FreeButNotShared(Broken):
    free = ("mean", "rows")


class ReadsTheLevel(Broken):
    """Steps by the losses themselves."""

    def tell(self, state, points, losses):
        after = super().tell(state, points, losses)
        return after._replace(mean=after.mean - 1e-3 * np.nansum(losses))


class Climbs(Broken):
    def tell(self, state, points, losses):
        return super().tell(state, points, -losses)


@dataclass(frozen=True)
class Forgets(Broken):
    """Loses precision on the way."""

    def tell(self, state, points, losses):
        after = super().tell(state, points, losses)
        return after._replace(mean=after.mean.astype(">f8"))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Uneven, "ask gave shape"),
        (Unaddressed, "other candidates for the same state"),
        (SortsInPlace, "tell changed one of its arguments"),
        (Averages, "different states|got into the state|moved although"),
        (StartsElsewhere, "not at the zero point"),
        (Flat, "best gave shape"),
        (NotData, "not an array"),
        (SharesTooMuch, "luck"),
        (FreeButNotShared, "'rows'. is called free, and not both"),
        (ReadsTheLevel, "called relative, but their level changes mean"),
        (Climbs, "on a quadratic"),
        (Forgets, "changed on the wire"),
    ],
)
def test_the_kit_catches(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_optimizer(broken(), Space("real", (3, 4)))


class OffThePool(Bayes):
    def ask(self, state, rng):
        return super().ask(state, rng) + 1e-9


class Twice(Bayes):
    def ask(self, state, rng):
        return super().ask(state, rng)[[0, 1, 2, 0]]


class StartsElsewhereInAPool(Bayes):
    def best(self, state):
        return super().best(state) if len(state.new_points) else state.pool[1]


class PlansAnew(Bayes):
    def plan(self, state, rng):
        return super().plan(state._replace(next_points=state.next_points[:0]), rng)


class TurnsOfItsOwn(Bayes):
    def turns(self, state, points):
        return np.full(len(points), len(state.new_points))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (OffThePool, "none of the 40 of the pool|not distinct rows"),
        (Twice, "not distinct rows"),
        (StartsElsewhereInAPool, "not at the zero point"),
        (PlansAnew, "made anew"),
        (TurnsOfItsOwn, "at a client"),
    ],
)
def test_the_kit_catches_in_a_pool(broken, sentence):
    with pytest.raises((AssertionError, ValueError), match=sentence):
        check_optimizer(broken(), space_of("pool", (4,)))


def test_check_optimizer_tries_everything():
    check_optimizer(registry.find("optimizers", "cmaes")())
