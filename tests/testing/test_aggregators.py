"""Every registered aggregator keeps the laws with every optimiser whose states it merges."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fedbbpt import registry
from fedbbpt.aggregators.adam import Adam
from fedbbpt.aggregators.cma import Cma
from fedbbpt.aggregators.krum import Krum
from fedbbpt.aggregators.mean import Mean
from fedbbpt.aggregators.median import Median
from fedbbpt.aggregators.trimmed_mean import TrimmedMean
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.optimizers.es import Es
from fedbbpt.testing.aggregators import LAWS, check_aggregator, fits, weights_matter

# A part that is not named here is tried with its defaults.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "adam": [
        {},
        {"averaging": 1.0},
        {"robust": "median"},
        {"robust": "trimmed_mean", "trim": 0.3},
        {"robust": "krum", "keep": 0},
    ],
    "cma": [{}, {"sigma": "code", "parents": 1.0}],
    "krum": [{}, {"keep": 0}, {"bad": 0, "keep": 2}],
    "pool": [{}, {"level": False}],
    "trimmed_mean": [{}, {"trim": 0.45}],
}
OPTIMIZERS: dict[str, list[dict[str, Any]]] = {
    # 300 observations without a process in between; tests/aggregators/test_pool.py has it.
    "bayes": [{"batch": 1, "initial": 300}],
    "bandit": [{"batch": 2}],
    "cmaes": [{"popsize": 5}, {"popsize": 5, "covariance": "full"}],
}


def made(group, options):
    return {
        f"{name}{number or ''}": registry.make(group, name, each, group)
        for name in registry.names(group)
        for number, each in enumerate(options.get(name, [{}]))
    }


CASES = [
    pytest.param(aggregator, optimizer, id=f"{one}-{other}")
    for one, aggregator in made("aggregators", OPTIONS).items()
    for other, optimizer in made("optimizers", OPTIMIZERS).items()
    if fits(aggregator, optimizer)
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("aggregator", "optimizer"), CASES)
def test_registered(aggregator, optimizer, law):
    law(aggregator, optimizer)


def test_every_aggregator_fits_some_optimiser():
    tried = {type(case.values[0]) for case in CASES}
    every = {registry.find("aggregators", name) for name in registry.names("aggregators")}
    assert tried == every


@pytest.mark.parametrize(
    "aggregator",
    [
        Mean(),
        Median(),
        TrimmedMean(),
        Krum(bad=0, keep=0),
        Adam(),
        Adam(robust="median"),
        Adam(robust="trimmed_mean"),
    ],
)
def test_weights_matter_to_a_mean(aggregator):
    weights_matter(aggregator, Es())


def test_ranking_looks_at_no_weight():
    with pytest.raises(AssertionError, match="change nothing"):
        weights_matter(Cma(), Cmaes(popsize=5))


# --- each law catches one that breaks it ---------------------------------------------------------


class Broken(Mean):
    """An aggregator to be spoilt in one place."""


class ReadsMore(Broken):
    reads = ("mean", "mood")


class TakesTheFirst(Broken):
    def merge(self, state, updates, memory):
        return super().merge(state, updates[:1], memory)


class Drifts(Broken):
    def merge(self, state, updates, memory):
        state, memory = super().merge(state, updates, memory)
        return state._replace(mean=state.mean + 0.1), memory


class InPlace(Broken):
    def merge(self, state, updates, memory):
        if updates:
            sorted(updates, key=lambda u: u.client)[0].arrays["mean"] *= 0.5
        return super().merge(state, updates, memory)


@dataclass(frozen=True)
class Hidden(Broken):
    """Keeps what it learnt to itself."""

    seen: list[int] = field(default_factory=list)

    def merge(self, state, updates, memory):
        self.seen.extend(update.round for update in updates)
        state, memory = super().merge(state, updates, memory)
        return state._replace(mean=state.mean + 1e-3 * len(self.seen)), memory


class Single(Broken):
    """Remembers in single precision what it uses in double."""

    def init(self, state):
        return {"last": np.zeros_like(state.mean)}

    def merge(self, state, updates, memory):
        if not updates:
            return state, memory
        state, _ = super().merge(state, updates, memory)
        return state._replace(mean=state.mean.astype(np.float32)), {"last": state.mean}


class NeedsThree(Broken):
    def merge(self, state, updates, memory):
        with np.errstate(divide="ignore"):
            state, memory = super().merge(state, updates, memory)
            scale = 1.0 / max(0, len(updates) - 2) if len(updates) > 2 else np.inf
        return (state._replace(mean=state.mean * scale) if updates else state), memory


class Flees(Broken):
    def merge(self, state, updates, memory):
        after, memory = super().merge(state, updates, memory)
        return after._replace(mean=2 * state.mean - after.mean), memory


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (ReadsMore, "mood"),
        (TakesTheFirst, "in other orders"),
        (Drifts, "no updates changed something"),
        (InPlace, "changed one of its arguments|in other orders"),
        (Hidden, "in other orders|different results"),
        (Single, "something else"),
        (NeedsThree, "led to"),
        (Flees, "the loss went from"),
    ],
)
def test_the_kit_catches(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_aggregator(broken(), Es())


def test_unanswered_losses_must_be_left_out():
    class Counts(Cma):
        def merge(self, state, updates, memory):
            state, memory = super().merge(state, updates, memory)
            return state._replace(sigma=state.sigma * (1 + 1e-9 * len(updates))), memory

    law = next(law for law in LAWS if law.__name__ == "no_answer_is_left_out")
    with pytest.raises(AssertionError, match="was not left out"):
        law(Counts(), Cmaes(popsize=5))


def test_check_aggregator_tries_everything():
    check_aggregator(Adam(), Es())
