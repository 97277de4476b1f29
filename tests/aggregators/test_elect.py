import math
from itertools import permutations

import numpy as np
import pytest

from fedbbpt.aggregators.elect import Elect, elect
from fedbbpt.errors import ConfigError
from fedbbpt.optimizers.coordinate import Coordinate
from fedbbpt.types import Space, Update

EVEN = np.full(3, 1 / 3)


def losses(*gains):
    """(m, K) losses of clients from their gains over the present point, which comes first."""
    table = np.array(gains, float)
    return 5.0 - np.concatenate([np.zeros((len(table), 1)), table], axis=1)


def test_one_client_alone_does_not_elect():
    """Mean gain +1/3. Without the first client the others keep the point, which gains it 0; with
    it they elect a candidate that costs each of them 1: on average -2/3 for those without a vote.
    """
    table = losses([3], [-1], [-1])
    assert elect(table, EVEN, 0.0) == 0
    assert elect(table, EVEN, -math.inf) == 1


def test_a_clear_candidate_is_elected():
    """Everybody elects it for everybody: gain .5, standard error sqrt(.02 / 3 / 2) = .0577."""
    table = losses([0.5, 0.2], [0.6, -0.2], [0.4, 0.0])
    assert elect(table, EVEN, 8.0) == 1
    assert elect(table, EVEN, 9.0) == 0


def test_the_vote_of_each_is_missing_where_it_would_count():
    """All elect candidate 1. Without client 0 the others elect candidate 2, so the unseen gains
    are .1 by candidate 2 and twice .1 by candidate 1: mean .1, without any error.
    """
    assert elect(losses([0.9, 0.1], [0.1, 0.2], [0.1, 0.2]), EVEN, 1e6) == 1
    # Their choice costs client 0 more than it gains the two.
    assert elect(losses([0.9, -0.9], [0.1, 0.2], [0.1, 0.2]), EVEN, 0.0) == 0


@pytest.mark.parametrize("z", [-math.inf, 0.0, 2.0])
def test_nothing_better_keeps_the_point(z):
    assert elect(losses([-0.1], [-0.2], [-0.1]), EVEN, z) == 0
    assert elect(losses([0.0], [0.0], [0.0]), EVEN, z) == 0
    assert elect(losses([], [], []), EVEN, z) == 0


@pytest.mark.parametrize("z", [-math.inf, 0.0])
def test_without_an_answer_nobody_wins(z):
    table = losses([0.9, 0.5], [0.9, 0.5], [0.9, 0.5])
    table[1, 1] = np.nan
    assert elect(table, EVEN, z) == 2
    table[2, 2] = np.inf
    assert elect(table, EVEN, z) == 0
    table = losses([0.9], [0.9], [0.9])
    table[0, 0] = np.nan  # how good is the point itself?
    assert elect(table, EVEN, z) == 0
    assert elect(np.full((3, 2), np.nan), EVEN, z) == 0


@pytest.mark.parametrize("z", [-math.inf, 0.0, 1e6])
def test_a_single_client_is_taken_at_its_word(z):
    assert elect(losses([0.1, 0.3, -1.0]), np.ones(1), z) == 2
    assert elect(losses([-0.1, -0.3]), np.ones(1), z) == 0


def test_who_has_more_examples_counts_more():
    table = losses([0.3, -0.1], [-0.1, 0.3], [-0.1, 0.3])
    assert elect(table, EVEN, -math.inf) == 2
    assert elect(table, np.array([0.8, 0.1, 0.1]), -math.inf) == 1
    # A client of no weight changes neither the gain nor, by much, its error.
    table = losses([0.5], [0.5], [-9.0])
    assert elect(table, np.array([0.5, 0.5, 0.0]), 0.0) == 1


# --- the merge -----------------------------------------------------------------------------------


def updates(state, tried, table, answered=None):
    """Clients' messages about the same candidates."""
    answered = np.isfinite(table) if answered is None else answered
    return [
        Update(f"c{k}", 0, 4.0, {"tried": tried, "losses": row, "answered": ok})
        for k, (row, ok) in enumerate(zip(table, answered, strict=True))
    ]


def test_the_point_moves_to_the_elected_candidate():
    optimizer = Coordinate()
    state = optimizer.init(Space("categorical", (2, 4)))._replace(idle=np.array(1))
    tried = optimizer.ask(state, np.random.default_rng(0))
    sent = updates(state, tried, losses([0.5, 0.1, 0], [0.5, 0.2, 0], [0.4, 0, 0]))
    merged = [Elect().merge(state, list(order), {})[0] for order in permutations(sent)]
    for after in merged:
        np.testing.assert_array_equal(after.point, tried[1])
        assert (int(after.step), int(after.idle)) == (1, 0)
    kept, _ = Elect(z=50.0).merge(state, sent, {})
    np.testing.assert_array_equal(kept.point, state.point)
    assert (int(kept.step), int(kept.idle)) == (1, 2)
    assert Elect().merge(state, [], {}) == (state, {})


def test_a_loss_that_stands_for_no_answer_is_not_read():
    """Searches write 0 there, which would beat everything."""
    optimizer = Coordinate()
    state = optimizer.init(Space("categorical", (2, 4)))
    tried = optimizer.ask(state, np.random.default_rng(0))
    table = losses([0.5, 0.1, 0], [0.5, 0.1, 0])
    answered = np.ones(table.shape, bool)
    table[0, 3], answered[0, 3] = 0.0, False
    after, _ = Elect().merge(state, updates(state, tried, table, answered), {})
    np.testing.assert_array_equal(after.point, tried[1])


def test_z_must_be_a_number():
    with pytest.raises(ConfigError, match=r"elect\.z is nan"):
        Elect(z=math.nan)
