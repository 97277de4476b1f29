"""The search by a linear model of scores; its laws are in tests/testing/test_optimizers.py."""

import numpy as np
import pytest

from fedbbpt.errors import ConfigError
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.optimizers.linear import FEWEST, Linear
from fedbbpt.random import stream
from fedbbpt.types import Space

SPACE, ROWS = Space("real", (20,)), Space("real", (3, 8), separable=True)
WANTED = np.array([0, 1, 2, 0, 1, 2])
TARGETS = np.eye(3)[WANTED]


def box(space, seed=0, bend=0.0):
    """Scores (K, 6, 3) that are linear in the point, or bent; rows move their own class alone."""
    rng = np.random.default_rng(seed)
    base, slope = rng.normal(size=(6, 3)), rng.normal(size=(*space.shape, 6))

    def ask(points):
        if len(space.shape) == 2:
            moved = np.einsum("kcd,cdb->kbc", points, slope)
        else:
            moved = np.einsum("kd,db->kb", points, slope)[..., None] * [1.0, 0.0, -1.0]
        return log_softmax(base + moved + bend * np.tanh(moved) ** 2)

    return ask


def cross_entropy(scores):
    return -scores[:, np.arange(6), WANTED].mean(axis=1)


def rounds(optimizer, space, ask, count):
    """The search of one client, and its loss at every point."""
    state, replies, losses = optimizer.init(space), [], []
    for number in range(count):
        state = optimizer.plan(state, stream(0, "test", number))
        points = optimizer.ask(state, stream(1, "test", number))
        scores = ask(points)
        replies.append(optimizer.study(state, points, scores))
        losses.append(cross_entropy(scores[:1])[0])
        known = type(replies[0])(*map(sum, zip(*replies, strict=True)))
        state = optimizer.learn(state, known, scores[0], TARGETS)
    return state, losses


@pytest.mark.parametrize("space", [SPACE, ROWS], ids=["one point", "a point for each class"])
def test_one_round_is_enough_for_a_linear_box(space):
    optimizer = Linear(candidates=24, ridge=1e-9, prox=1e-3)
    ask = box(space)
    state, (start,) = rounds(optimizer, space, ask, 1)
    assert cross_entropy(ask(optimizer.best(state)[None]))[0] < 0.3 * start


@pytest.mark.parametrize("space", [SPACE, ROWS], ids=["one point", "a point for each class"])
def test_a_bent_box_takes_some_rounds(space):
    _, losses = rounds(Linear(candidates=6, prox=0.05), space, box(space, bend=0.5), 12)
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("space", [SPACE, ROWS])
def test_what_was_asked_can_be_asked_again_from_what_travels(space):
    optimizer, state, asked = Linear(candidates=4, memory=3), Linear().init(space), []
    for number in range(5):
        state = state._replace(mean=state.mean + 1 / 3)
        state = optimizer.plan(state, stream(0, "test", number))
        asked.append(optimizer.ask(state, stream(0, "unlike", number)))
    client = Linear().init(space)._replace(**{f: getattr(state, f) for f in Linear.shares})
    earlier = optimizer.earlier(client)
    assert len(earlier) == len({name for name, _ in earlier}) == 3
    for (_, then), before in zip(earlier, asked[-3:], strict=True):
        np.testing.assert_array_equal(optimizer.ask(then, stream(9, "other")), before)


def test_rows_move_alone_and_the_point_itself_is_asked():
    state = Linear().init(ROWS)._replace(mean=np.full((3, 8), 0.25))
    points = Linear(candidates=5).ask(state, stream(0, "test"))
    assert points.shape == (1 + 5 * 3, 3, 8)
    assert (points[0] == 0.25).all()
    moved = (points[1:] != points[0]).any(axis=2)
    assert (moved.sum(axis=1) == 1).all() and (moved.sum(axis=0) == 5).all()


@pytest.mark.parametrize(
    ("space", "queries", "many"), [(SPACE, 31, 30), (ROWS, 31, 9), (SPACE, 1, 1)]
)
def test_a_round_costs_what_it_may(space, queries, many):
    sized = Linear().sized(space, queries)
    assert sized.candidates == many
    rows = space.shape[0] if space.separable else 1
    asked = sized.ask(sized.init(space), stream(0, "test"))
    assert len(asked) == 1 + many * rows
    assert Linear(candidates=7).sized(space, queries).candidates == 7
    assert len(Linear().ask(Linear().init(SPACE), stream(0, "test"))) == 1 + FEWEST


@pytest.mark.parametrize(
    "options", [{"sigma": 0}, {"ridge": 0}, {"prox": 0}, {"decay": -1}, {"candidates": -1}]
)
def test_options_out_of_range(options):
    with pytest.raises(ConfigError, match="linear needs"):
        Linear(**options)
