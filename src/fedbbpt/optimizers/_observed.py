"""The state of searches that remember all that was tried, and what is left to try in a pool."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.maths.racing import by_turn, outclassed
from fedbbpt.protocols import Optimizer
from fedbbpt.types import Space

SPENT = 2**31
"""A turn for which no client has examples. It fills up a batch whose size is fixed when too few
candidates are left: who is asked about it pays nothing."""


class ObservedState(NamedTuple):
    """Observations, and the candidates to try next.

    A point is kept as w numbers: its row in the pool (w = 1), or all its coordinates. A turn is
    the part of its examples on which a client tried a candidate. Only what is next travels down.

    Attributes:
        pool: (N, *shape) the space's candidates, the first being the starting prompt; rows may be
            added at the end. (0, *shape) in a box.
        seen_points: (n, w), what the server knows to have been asked; repeats are welcome.
        seen_losses: (n,) of those, 0 where there was no answer.
        seen_weights: (n,) examples of each one's client, 0 where there was no answer.
        seen_turns: (n,) int64, 0 in a box.
        seen_clients: (n,) uint64, a word for who answered, :func:`fedbbpt.random.word`.
        new_points: (m, w), what was told since.
        new_losses, new_turns: (m,) likewise; a loss is 0 where there was no answer.
        answered: (m,), bool.
        next_points: (k, w), planned; they are asked before any others.
        next_turns: (k,) int64.
        finite: (), bool, whether the space is a pool; follows from it.
    """

    pool: Array
    seen_points: Array
    seen_losses: Array
    seen_weights: Array
    seen_turns: Array
    seen_clients: Array
    new_points: Array
    new_losses: Array
    new_turns: Array
    answered: Array
    next_points: Array
    next_turns: Array
    finite: Array


def start(space: Space) -> ObservedState:
    """Nothing observed, nothing planned.

    Raises:
        ConfigError: the space is a pool without candidates.
    """
    finite = space.kind == "pool"
    if finite and (space.points is None or not len(space.points)):
        raise ConfigError("the search is over a pool without candidates; it needs one or more")
    pool = np.array(space.points, np.float64) if finite else np.zeros((0, *space.shape))
    none = np.zeros((0, 1 if finite else math.prod(space.shape)))
    return ObservedState(
        pool=pool,
        seen_points=none,
        seen_losses=np.zeros(0),
        seen_weights=np.zeros(0),
        seen_turns=np.zeros(0, np.int64),
        seen_clients=np.zeros(0, np.uint64),
        new_points=none.copy(),
        new_losses=np.zeros(0),
        new_turns=np.zeros(0, np.int64),
        answered=np.zeros(0, np.bool_),
        next_points=none.copy(),
        next_turns=np.zeros(0, np.int64),
        finite=np.asarray(finite),
    )


def tell(state: ObservedState, points: Array, losses: Array, turns: Array | None) -> ObservedState:
    """The observations behind the others; what was planned is done with."""
    answered = np.isfinite(losses)
    turns = np.zeros(len(points), np.int64) if turns is None else turns
    told = (kept(state, points), np.where(answered, losses, 0.0), turns, answered)
    before = (state.new_points, state.new_losses, state.new_turns, state.answered)
    after = [np.concatenate(pair) for pair in zip(before, told, strict=True)]
    return state._replace(
        new_points=after[0],
        new_losses=after[1],
        new_turns=after[2],
        answered=after[3],
        next_points=state.next_points[:0],
        next_turns=state.next_turns[:0],
    )


# --- points as they are kept ---------------------------------------------------------------------


def flat(pool: Array) -> Array:
    """(N, d) of (N, *shape)."""
    return pool.reshape(len(pool), -1)


def kept(state: ObservedState, points: Array) -> Array:
    """(K, w) of (K, *shape) points; of rows that are in a pool twice the first.

    Raises:
        ValueError: a point is not in the pool.
    """
    if not state.finite:
        return points.reshape(len(points), -1)
    pool, rows = flat(state.pool), []
    for point in flat(points):
        found = np.flatnonzero((pool == point).all(axis=1))
        if not len(found):
            raise ValueError(f"a candidate was told that is none of the {len(pool)} of the pool")
        rows.append([float(found[0])])
    return np.array(rows).reshape(-1, 1)


def coordinates(state: ObservedState, points: Array) -> Array:
    """(K, d) of points as they are kept."""
    return flat(state.pool)[points[:, 0].astype(np.int64)] if state.finite else points


def shaped(state: ObservedState, points: Array) -> Array:
    """(K, *shape) of points as they are kept."""
    return coordinates(state, points).reshape(-1, *state.pool.shape[1:])


# --- what was tried ------------------------------------------------------------------------------


class History(NamedTuple):
    """All observations, what the server knew and what was told since.

    Attributes:
        points: (n, w); ``losses``: (n,).
        weights: (n,) of mean 1 among those the server knows, 0 where there was no answer. How many
            examples are behind a client's own losses is not its business to know: they count as
            much as others do on average.
        turns, clients: (n,); client 0 is whoever was told here.
    """

    points: Array
    losses: Array
    weights: Array
    turns: Array
    clients: Array

    def of(self, chosen: Array) -> History:
        """Some of them."""
        return History(*(field[chosen] for field in self))

    @property
    def answers(self) -> History:
        """Those with an answer."""
        return self.of(self.weights > 0)


def history(state: ObservedState) -> History:
    """What a state remembers."""
    known = state.seen_weights[state.seen_weights > 0]
    weights = state.seen_weights / (known.mean() if len(known) else 1.0)
    nobody = np.zeros(len(state.new_losses), np.uint64)
    pairs = (
        (state.seen_points, state.new_points),
        (state.seen_losses, state.new_losses),
        (weights, state.answered.astype(np.float64)),
        (state.seen_turns, state.new_turns),
        (state.seen_clients, nobody),
    )
    return History(*(np.concatenate(pair) for pair in pairs))


class Standing(NamedTuple):
    """How the M distinct candidates of a pool stand.

    Attributes:
        rows: (M,) in the pool; ``points``: (M, d).
        tried: (M,) bool.
        out: (M,) bool, worse than another one beyond doubt.
        closed: (M,) bool, out, or nobody had an answer when last asked: examples are used up.
        turns: (M,) int64, when each would be tried next; ``SPENT`` where it is closed.
    """

    rows: Array
    points: Array
    tried: Array
    out: Array
    closed: Array
    turns: Array

    def exhausted(self, repeats: bool) -> bool:
        """Whether no candidate is left to be tried, or no other one that could be the best."""
        left = ~self.closed if repeats else ~self.closed & ~self.tried
        return not left.any() or (len(self.out) > 1 and int((~self.out).sum()) == 1)


def standing(state: ObservedState, delta: float, examples: int) -> Standing:
    """Of the candidates of a pool.

    Args:
        state: over a pool.
        delta: see :func:`fedbbpt.maths.racing.outclassed`; 0 lets every candidate stay.
        examples: behind one observation, at least.
    """
    pool, every = flat(state.pool), history(state)
    rows = np.sort(np.unique(pool, axis=0, return_index=True)[1])  # a text may be in it twice
    answers = every.answers
    last, heard = np.full((2, len(pool)), -1)
    np.maximum.at(last, every.points[:, 0].astype(np.int64), every.turns)
    np.maximum.at(heard, answers.points[:, 0].astype(np.int64), answers.turns)
    out = np.zeros(len(pool), np.bool_)
    if delta > 0 and len(answers.losses):
        which, group = np.unique(answers.points[:, 0].astype(np.int64), return_inverse=True)
        table = by_turn(group, answers.clients, answers.turns, answers.losses)
        _, client = np.unique(answers.clients, return_inverse=True)
        share = np.zeros(table.shape[1])
        np.maximum.at(share, client.reshape(-1), answers.weights)
        out[which] = outclassed(table, share / share.sum(), delta, examples, len(rows) - 1)
    last, heard, out = last[rows], heard[rows], out[rows]
    closed = out | (heard < last)
    turns = np.where(closed, SPENT, last + 1)
    return Standing(rows, pool[rows], last >= 0, out, closed, turns)


def planned(state: ObservedState, points: Array, turns: Array | None = None) -> ObservedState:
    """With these points, as they are kept, behind those that were planned before."""
    turns = np.zeros(len(points), np.int64) if turns is None else turns
    return state._replace(
        next_points=np.concatenate([state.next_points, points.astype(np.float64)]),
        next_turns=np.concatenate([state.next_turns, turns]),
    )


class Observing(Optimizer[ObservedState]):
    """What searches that remember all they were told have in common; a subclass plans."""

    state: ClassVar[type[ObservedState]] = ObservedState
    shares: ClassVar[tuple[str, ...]] = ("next_points", "next_turns")

    @abstractmethod
    def _standing(self, state: ObservedState) -> Standing:
        """How a pool's candidates stand."""

    def init(self, space: Space) -> ObservedState:
        """Nothing observed.

        Raises:
            ConfigError: the space is a pool without candidates.
        """
        return start(space)

    def ask(self, state: ObservedState, rng: np.random.Generator) -> Array:
        """(batch, *shape) candidates: the planned ones, or those that it plans itself."""
        return shaped(state, self.plan(state, rng).next_points)

    def turns(self, state: ObservedState, points: Array) -> Array | None:
        """The planned turns, or how often each was tried before; nothing in a box, where hardly any
        is tried twice.
        """
        if not state.finite:
            return None
        rows = kept(state, points)
        if np.array_equal(rows, state.next_points):
            return state.next_turns
        now = self._standing(state)
        place = np.searchsorted(now.rows, rows[:, 0].astype(np.int64))
        return np.asarray(now.turns[place])

    def tell(self, state: ObservedState, points: Array, losses: Array) -> ObservedState:
        """The observations behind the others; a candidate without an answer is only noted.

        Raises:
            ValueError: a point is not in the pool.
        """
        return tell(state, points, losses, self.turns(state, points))


def refuse_bad_racing(name: str, delta: float, examples: int) -> None:
    """For the options of a search.

    Raises:
        ConfigError: one of them is out of range.
    """
    if not 0 <= delta < 1:
        raise ConfigError(f"{name} delta is {delta}; it must be at least 0 and below 1")
    if examples < 1:
        raise ConfigError(f"{name} examples is {examples}; it must be at least 1")
