"""The laws of an optimiser: ``check_optimizer(MyOptimizer())``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, decode, encode, from_arrays, to_arrays
from fedbbpt.protocols import Optimizer
from fedbbpt.random import stream
from fedbbpt.testing._require import bits, finite, require
from fedbbpt.types import Space

SHAPES = {
    "real": (((5,), False), ((3, 4), False), ((3, 4), True)),
    "categorical": (((3, 4), False), ((1, 5), False), ((3, 2, 4), True)),
    "pool": (((4,), False), ((1,), False)),
}
"""By kind, (shape, separable) of the spaces that every law is tried on."""

Loss = Callable[[Array], Array]
Law = Callable[[Optimizer[Any], Space], None]


def check_optimizer(optimizer: Optimizer[Any], space: Space | None = None) -> None:
    """Try every law.

    Args:
        optimizer: with the options to be tested.
        space: the space to search; left out, small ones of every kind that it lists.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    for where in small_spaces(optimizer) if space is None else [space]:
        for law in LAWS:
            law(optimizer, where)


def small_spaces(optimizer: Optimizer[Any]) -> list[Space]:
    """A few of every kind that the optimiser searches."""
    return [
        space_of(kind, shape, separable)
        for kind in sorted(optimizer.spaces)
        for shape, separable in SHAPES.get(kind, SHAPES["real"])
    ]


def space_of(kind: str, shape: tuple[int, ...], separable: bool = False) -> Space:
    """A space; a pool has 40 points, the zero point and others that are mostly worse."""
    if kind != "pool":
        return Space(kind, shape, separable)
    points = stream(0, "kit pool").uniform(-1.0, 1.5, (40, *shape))
    points[0] = 0.0
    return Space(kind, shape, separable, points)


def loss_in(space: Space) -> Loss:
    """What the laws let an optimiser minimise in a space."""
    return ladder if space.kind == "categorical" else quadratic


def quadratic(points: Array, centre: float = 1.0) -> Array:
    """(K,) losses: a tenth of the squared distance from a point with equal coordinates.

    Flat enough for an optimiser that takes bare gradient steps.
    """
    return np.asarray(0.1 * ((points - centre) ** 2).reshape(len(points), -1).sum(axis=1))


def ladder(points: Array) -> Array:
    """(K,) losses of categorical points: in every row a later choice is better, 1 down to 0."""
    chosen = points.argmax(axis=-1).reshape(len(points), -1)
    return np.asarray(1.0 - chosen.mean(axis=-1) / (points.shape[-1] - 1))


def walk(optimizer: Optimizer[Any], space: Space, steps: int, state: Any = None) -> Any:
    """State after some steps on the space's loss, from the start or from a state."""
    state = optimizer.init(space) if state is None else state
    for step in range(steps):
        points = optimizer.ask(state, stream(0, "kit", step=step))
        state = optimizer.tell(state, points, loss_in(space)(points))
    return state


def received(optimizer: Optimizer[Any], space: Space, state: Any) -> Any:
    """What a client makes of the server's state."""
    shared = {name: getattr(state, name) for name in optimizer.shares}
    return optimizer.init(space)._replace(**shared)


# --- the laws ------------------------------------------------------------------------------------


def candidates_keep_their_shape(optimizer: Optimizer[Any], space: Space) -> None:
    """Every ask gives (K, *shape) finite numbers, with one K from the first step to the last; in a
    pool K of its rows.
    """
    first = optimizer.ask(optimizer.init(space), stream(0, "kit"))
    require(first.ndim == 1 + len(space.shape), f"ask gave shape {first.shape} in {space}")
    for steps in (0, 1, 4):
        state = walk(optimizer, space, steps)
        points = optimizer.ask(state, stream(1, "kit", steps))
        expected = (len(first), *space.shape)
        require(
            points.shape == expected,
            f"after {steps} steps ask gave shape {points.shape}, expected {expected}",
        )
        require(np.isfinite(points).all(), f"after {steps} steps ask gave {points}")
        if space.kind == "pool":
            assert space.points is not None
            rows, distinct = {p.tobytes() for p in space.points}, {p.tobytes() for p in points}
            fine = distinct <= rows and len(distinct) == len(points)
            require(fine, f"after {steps} steps ask gave {points}, not distinct rows of the pool")


def same_address_same_candidates(optimizer: Optimizer[Any], space: Space) -> None:
    """All randomness comes from the generator that ask is given."""
    state = walk(optimizer, space, 2)
    before = bits(state)
    asked = [bits(optimizer.ask(state, stream(3, "kit", 7, "a", 2))) for _ in range(2)]
    require(asked[0] == asked[1], "ask gave other candidates for the same state and generator")
    require(bits(state) == before, "ask changed the state it was given")


def tell_leaves_its_arguments_alone(optimizer: Optimizer[Any], space: Space) -> None:
    """Tell makes a new state; told the same twice it makes the same."""
    state = walk(optimizer, space, 2)
    points = optimizer.ask(state, stream(1, "kit"))
    losses = loss_in(space)(points)
    before = bits((state, points, losses))
    told = [bits(optimizer.tell(state, points, losses)) for _ in range(2)]
    require(bits((state, points, losses)) == before, "tell changed one of its arguments")
    require(told[0] == told[1], "tell gave another state for the same arguments")


def state_is_data(optimizer: Optimizer[Any], space: Space) -> None:
    """A state is a NamedTuple of arrays; one that went over the wire goes on with the same bits."""
    kind = optimizer.state
    for steps in (0, 3):
        state = walk(optimizer, space, steps)
        require(type(state) is kind, f"the state is a {type(state).__name__}, not {kind.__name__}")
        for name, value in zip(kind._fields, state, strict=True):
            require(
                isinstance(value, np.ndarray) and value.dtype != object,
                f"state field {name} is a {type(value).__name__} after {steps} steps, not an array",
            )
        again = from_arrays(kind, decode(encode(to_arrays(state))))
        require(bits(again) == bits(state), f"the state after {steps} steps changed on the wire")
        ends = [bits(walk(optimizer, space, 2, start)) for start in (state, again)]
        require(ends[0] == ends[1], "a state that went over the wire went on differently")


def no_answer_is_left_out(optimizer: Optimizer[Any], space: Space) -> None:
    """NaN and infinities mean the same, no answer, and never enter a state."""
    state = walk(optimizer, space, 2)
    points = optimizer.ask(state, stream(1, "kit"))
    losses, number = loss_in(space)(points), np.arange(len(points))
    pair = number % max(1, len(points) // 2) == 0
    for holes in (number == 0, pair, number % 2 == 1, number > 0, number >= 0):
        told = []
        for bad in (np.nan, np.inf, -np.inf):
            try:
                with np.errstate(invalid="raise", divide="raise"):
                    after = optimizer.tell(state, points, np.where(holes, bad, losses))
            except FloatingPointError as error:
                raise AssertionError(f"tell computes with a loss of {bad}: {error}") from error
            require(finite(after), f"a loss of {bad} got into the state: {after}")
            told.append(bits(after))
        same = told[0] == told[1] == told[2]
        require(same, f"NaN, inf and -inf at {np.flatnonzero(holes)} led to different states")
        if holes.all():
            stays = bits(optimizer.best(after)) == bits(optimizer.best(state))
            require(stays, "the best point moved although no candidate was answered")


def starts_at_zero(optimizer: Optimizer[Any], space: Space) -> None:
    """The search starts at the starting prompt, the zero point."""
    state = optimizer.init(space)
    best = np.asarray(optimizer.best(state))
    require(best.shape == space.shape, f"best gave shape {best.shape}, expected {space.shape}")
    # A categorical point stands for the first largest entry of each row.
    moved = best.argmax(axis=-1) if space.kind == "categorical" else best
    require(not moved.any(), f"the search starts at {best}, not at the zero point")


def best_is_a_point(optimizer: Optimizer[Any], space: Space) -> None:
    """Best has the shape of the space, is finite and changes nothing."""
    state = walk(optimizer, space, 3)
    before = bits(state)
    best = np.asarray(optimizer.best(state))
    require(best.shape == space.shape, f"best gave shape {best.shape}, expected {space.shape}")
    require(np.isfinite(best).all(), f"best gave {best}")
    require(bits(state) == before, "best changed the state it was given")


def declares_its_fields(optimizer: Optimizer[Any], space: Space) -> None:
    """Shared and averaged fields are state fields, and a client can go on from the shared ones."""
    fields = set(optimizer.state._fields)
    require(space.kind in optimizer.spaces, f"{space.kind} is not in {optimizer.spaces}")
    for name in ("shares", "averages"):
        extra = set(getattr(optimizer, name)) - fields
        require(not extra, f"{name} lists {sorted(extra)}, but the state has {sorted(fields)}")
    require(optimizer.shares, "shares is empty: no client would ever hear of the others")
    client = received(optimizer, space, walk(optimizer, space, 3))
    points = optimizer.ask(client, stream(0, "kit"))
    after = optimizer.tell(client, points, loss_in(space)(points))
    require(finite(after), f"from the shared fields alone tell led to {after}")


def a_plan_reaches_the_clients(optimizer: Optimizer[Any], space: Space) -> None:
    """What the server planned, clients ask first: each the same, whatever its own generator says
    and though it knows the shared fields alone. Who asks without a plan makes the same one.
    """
    server = walk(optimizer, space, 3)
    before = bits(server)
    plan = optimizer.plan(server, stream(5, "kit"))
    require(bits(server) == before, "plan changed the state it was given")
    again = optimizer.plan(plan, stream(6, "kit"))
    require(bits(again) == bits(plan), "a plan was made anew although there was one")
    client = received(optimizer, space, plan)
    points = optimizer.ask(client, stream(7, "kit"))
    if before != bits(plan):
        unplanned = optimizer.ask(server, stream(5, "kit"))
        require(bits(unplanned) == bits(points), f"planned was {unplanned}, asked {points}")
    turns = [optimizer.turns(state, points) for state in (plan, client)]
    require(bits(turns[0] is None) == bits(turns[1] is None), "only one of both knows of turns")
    if turns[0] is not None:
        fine = turns[0].shape == (len(points),) and turns[0].dtype == np.int64
        require(fine and (turns[0] >= 0).all(), f"the turns are {turns[0]}, not (K,) int64 from 0")
        require(bits(turns[0]) == bits(turns[1]), f"{turns[1]} at a client, {turns[0]} planned")


def shields_can_trust_it(optimizer: Optimizer[Any], space: Space) -> None:
    """What it calls free is averaged, broadcast and of real numbers; and where it calls losses
    relative, their common level is nothing to it.
    """
    state = walk(optimizer, space, 2)
    bound = set(optimizer.free) - ({*optimizer.averages} & {*optimizer.shares})
    require(not bound, f"{sorted(bound)} is called free, and not both averaged and shared")
    for name in optimizer.free:
        kind = np.asarray(getattr(state, name)).dtype
        require(kind == np.float64, f"{name} is called free and holds {kind}")
    if optimizer.relative:
        points = optimizer.ask(state, stream(4, "kit"))
        losses = loss_in(space)(points)
        one, other = (optimizer.tell(state, points, losses + level) for level in (0.0, 0.5))
        for name, here, there in zip(state._fields, one, other, strict=True):
            same = np.allclose(here, there, rtol=1e-9, atol=1e-12)
            require(same, f"losses are called relative, but their level changes {name}")


def improves(optimizer: Optimizer[Any], space: Space) -> None:
    """A thousand candidates take a fifth off a 10-dimensional quadratic, or off a ladder.

    Sixty are enough for one that searches pools: it models all that it was told, which is dear.

    Tried in a vector of 10 or, for a separable or a categorical space, in 2 rows of 5 (for 2
    classes where it is both).
    """
    rows, loss = space.separable or space.kind == "categorical", loss_in(space)
    both = space.separable and space.kind == "categorical"
    shape = (2, 2, 5) if both else (2, 5) if rows else (10,)
    where = space_of(space.kind, shape, space.separable)
    state, origin = optimizer.init(where), np.zeros(where.shape)
    candidates = 60 if "pool" in optimizer.spaces else 1000
    steps = 1 + candidates // len(optimizer.ask(state, stream(0, "kit")))
    best = optimizer.best(walk(optimizer, where, steps))
    before, after = (float(loss(point[None])[0]) for point in (origin, best))
    require(
        after < 0.8 * before,
        f"the loss went from {before:.3f} to {after:.3f} on a {loss.__name__} in {where}",
    )


LAWS: tuple[Law, ...] = (
    declares_its_fields,
    candidates_keep_their_shape,
    same_address_same_candidates,
    tell_leaves_its_arguments_alone,
    state_is_data,
    starts_at_zero,
    best_is_a_point,
    a_plan_reaches_the_clients,
    shields_can_trust_it,
    improves,
    no_answer_is_left_out,
)
