"""The laws of an aggregator: ``check_aggregator(MyMerge(), SomeOptimizer())``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice, permutations
from typing import Any

import numpy as np

from fedbbpt.arrays import decode, encode, from_arrays, to_arrays
from fedbbpt.maths.merge import pooled
from fedbbpt.protocols import Aggregator, Optimizer
from fedbbpt.random import stream
from fedbbpt.testing._require import bits, finite, require
from fedbbpt.testing.optimizers import quadratic, received, space_of, walk
from fedbbpt.types import Space, Update

SHAPE = (2, 3)
CENTRES = (-1.0, 0.5, 1.0, 2.0)
"""Each client's own optimum."""

Law = Callable[[Aggregator, Optimizer[Any]], None]


def check_aggregator(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """Try every law.

    Args:
        aggregator: with the options to be tested.
        optimizer: one whose states it merges.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    for law in LAWS:
        law(aggregator, optimizer)


def fits(aggregator: Aggregator, optimizer: Optimizer[Any]) -> bool:
    """Whether the aggregator says that it can merge the optimiser's states."""
    known = set(optimizer.state._fields)
    return set(aggregator.needs) <= known and bool(aggregator.fields(optimizer))


def space_for(optimizer: Optimizer[Any]) -> Space:
    """A box, or for an optimiser that searches only pools a pool."""
    return space_of("pool" if optimizer.spaces == {"pool"} else "real", SHAPE)


def some_updates(
    aggregator: Aggregator,
    optimizer: Optimizer[Any],
    state: Any,
    round: int = 0,
    centres: Sequence[float] = CENTRES,
) -> list[Update]:
    """Clients' answers to a broadcast, after three steps towards their own optimum, or one where
    all try the same candidates. If the merge needs more of them, the optima begin again.
    """
    centres = [*islice(cycle(centres), max(len(centres), aggregator.least))]
    space, updates = space_for(optimizer), []
    plan = optimizer.plan(state, stream(0, "kit plan", round))
    for k, centre in enumerate(centres):
        local = received(optimizer, space, plan)
        name = None if aggregator.shared else f"client {k}"
        for step in range(1 if aggregator.shared else 3):
            points = optimizer.ask(local, stream(0, "kit", round, name, step))
            local = optimizer.tell(local, points, quadratic(points, centre))
        fields = aggregator.fields(optimizer)
        arrays = {name: np.array(getattr(local, name)) for name in fields}
        if aggregator.loss:
            arrays["loss"] = quadratic(np.asarray(optimizer.best(local))[None], centre)[0]
        updates.append(Update(f"client {k}", round, 3.0 + k, arrays))
    return updates


def _played(aggregator: Aggregator, optimizer: Optimizer[Any], rounds: int, wire: bool) -> Any:
    """State and memory after some rounds; over a wire between them if asked."""
    state = optimizer.init(space_for(optimizer))
    memory = aggregator.init(state)
    for round in range(rounds):
        updates = some_updates(aggregator, optimizer, state, round)
        state, memory = aggregator.merge(state, updates, memory)
        if wire:
            memory = decode(encode(memory))
            state = from_arrays(optimizer.state, decode(encode(to_arrays(state))))
    return state, memory


# --- the laws ------------------------------------------------------------------------------------


def declares_its_fields(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """What it reads and needs are fields of the state."""
    known = set(optimizer.state._fields)
    for name, fields in (("needs", aggregator.needs), ("fields", aggregator.fields(optimizer))):
        extra = set(fields) - known
        require(not extra, f"{name} lists {sorted(extra)}, but the state has {sorted(known)}")
    require(aggregator.fields(optimizer), "the aggregator reads nothing")


def order_does_not_matter(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """Whoever answers first, the bits are the same."""
    state, memory = _played(aggregator, optimizer, 1, wire=False)
    updates = some_updates(aggregator, optimizer, state, 1)
    merged = {bits(aggregator.merge(state, list(p), memory)) for p in permutations(updates)}
    require(len(merged) == 1, f"{len(merged)} results from the same updates in other orders")


def nobody_changes_nothing(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """A round without any update leaves state and memory as they are."""
    state, memory = _played(aggregator, optimizer, 2, wire=False)
    merged = bits(aggregator.merge(state, [], memory))
    require(merged == bits((state, memory)), "a merge of no updates changed something")


def merge_leaves_its_arguments_alone(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """State, updates and memory stay as they were; merged twice gives the same."""
    state, memory = _played(aggregator, optimizer, 2, wire=False)
    updates = some_updates(aggregator, optimizer, state, 2)
    before = bits((state, memory, [update.arrays for update in updates]))
    merged = [bits(aggregator.merge(state, updates, memory)) for _ in range(2)]
    after = bits((state, memory, [update.arrays for update in updates]))
    require(before == after, "merge changed one of its arguments")
    require(merged[0] == merged[1], "merging the same twice gave different results")


def memory_is_data(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """State and memory that went over the wire every round end with the same bits."""
    start = optimizer.init(space_for(optimizer))
    state, memory = _played(aggregator, optimizer, 3, wire=False)
    for name, value in memory.items():
        require(isinstance(value, np.ndarray), f"memory {name} is a {type(value).__name__}")
    require(type(state) is optimizer.state, f"the merged state is a {type(state).__name__}")
    for name, one, other in zip(state._fields, start, state, strict=True):
        same = (one.dtype, one.ndim) == (np.asarray(other).dtype, np.asarray(other).ndim)
        require(same, f"merging made state field {name} something else: {other!r}")
    wired = bits(_played(aggregator, optimizer, 3, wire=True))
    require(wired == bits((state, memory)), "after a wire in every round the bits differ")


def any_number_may_answer(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """From the least to all of them: the state stays finite and so does the best point."""
    state, memory = _played(aggregator, optimizer, 1, wire=False)
    updates = some_updates(aggregator, optimizer, state, 1)
    for count in range(aggregator.least, 1 + len(updates)):
        after, kept = aggregator.merge(state, updates[:count], memory)
        require(finite(after), f"{count} updates led to {after}")
        best = np.asarray(aggregator.best(optimizer, after, kept))
        fine = best.shape == SHAPE and np.isfinite(best).all()
        require(fine, f"after {count} updates the best point is {best}")


def no_answer_is_left_out(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """Where losses are read, a client that got no answer for its own is left out."""
    if not aggregator.loss:
        return
    state, memory = _played(aggregator, optimizer, 1, wire=False)
    updates = some_updates(aggregator, optimizer, state, 1)
    without = bits(aggregator.merge(state, updates[1:], memory))
    for bad in (np.nan, np.inf, -np.inf):
        arrays = {**updates[0].arrays, "loss": np.array(bad)}
        unheard = replace(updates[0], arrays=arrays)
        merged = bits(aggregator.merge(state, [unheard, *updates[1:]], memory))
        require(merged == without, f"a client whose own loss is {bad} was not left out")


def a_sum_is_enough(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """A merge that reads sums makes the same of the mean as of all updates, to the bit."""
    if not aggregator.sums:
        return
    require(aggregator.least == 1, "one update stands for all, but the merge needs more")
    require(not aggregator.loss, "a merge of sums cannot tell clients by their losses")
    state, memory = _played(aggregator, optimizer, 1, wire=False)
    updates = some_updates(aggregator, optimizer, state, 1)
    mean = pooled(updates, lambda update: update)
    each, one = (bits(aggregator.merge(state, u, memory)) for u in (updates, [mean]))
    require(each == one, "the mean of the updates does not stand for them")


def clients_that_agree_are_followed(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """Clients with the same optimum pull the best point towards it."""
    state = optimizer.init(space_for(optimizer))
    memory = aggregator.init(state)
    for round in range(25):
        updates = some_updates(aggregator, optimizer, state, round, centres=(1.0,) * 4)
        state, memory = aggregator.merge(state, updates, memory)
    best = np.asarray(aggregator.best(optimizer, state, memory))[None]
    start, end = quadratic(np.concatenate([np.zeros_like(best), best]))
    require(end < start, f"in 25 rounds the loss went from {start:.3f} to {end:.3f}")


def weights_matter(aggregator: Aggregator, optimizer: Optimizer[Any]) -> None:
    """A client with more examples counts more. Not one of ``LAWS``: ranking by loss ignores it."""
    state = walk(optimizer, space_for(optimizer), 1)
    memory = aggregator.init(state)
    updates = some_updates(aggregator, optimizer, state)
    heavy = [replace(updates[0], weight=1000.0), *updates[1:]]
    one, other = (bits(aggregator.merge(state, u, memory)[0]) for u in (updates, heavy))
    require(one != other, "the weights of the updates change nothing")
    scaled = [replace(update, weight=4 * update.weight) for update in updates]
    same = bits(aggregator.merge(state, scaled, memory)[0]) == one
    require(same, "weights four times as large changed the merge: they must count as shares")


LAWS: tuple[Law, ...] = (
    declares_its_fields,
    order_does_not_matter,
    nobody_changes_nothing,
    merge_leaves_its_arguments_alone,
    memory_is_data,
    any_number_may_answer,
    no_answer_is_left_out,
    a_sum_is_enough,
    clients_that_agree_are_followed,
)
