import numpy as np
import pytest

from fedbbpt.errors import ConfigError
from fedbbpt.optimizers.coordinate import Coordinate
from fedbbpt.types import Space

CLASSES, SLOTS, SIZE = 3, 2, 5
SPACE = Space("categorical", (CLASSES, SLOTS, SIZE), separable=True)


def play(optimizer, loss, steps, space=SPACE, seed=0):
    """States after 0, 1, ... steps, and what was asked in each step."""
    states, asked = [optimizer.init(space)], []
    for step in range(steps):
        points = optimizer.ask(states[-1], np.random.default_rng([seed, step]))
        asked.append(points)
        values = np.array([loss(point) for point in points])
        states.append(optimizer.tell(states[-1], points, values))
    return states, asked


def flat(point):
    return 1.0


def changed(points):
    """The one (class, slot) at which candidates differ from the first, and their choices there."""
    where = np.argwhere((points[1:] != points[0]).any(axis=(0, -1)))
    assert len(where) == 1
    return tuple(where[0]), points[(slice(1, None), *where[0])].argmax(axis=-1).tolist()


def test_every_class_gets_a_token_before_one_gets_a_second():
    _, asked = play(Coordinate(), flat, CLASSES * SLOTS)
    places = [changed(points)[0] for points in asked]
    assert places == [(c, s) for s in range(SLOTS) for c in range(CLASSES)]
    assert all(changed(points)[1] == [1, 2, 3, 4] for points in asked)


def test_without_classes_the_slots_take_turns():
    _, asked = play(Coordinate(), flat, 4, Space("categorical", (2, 3)))
    assert [changed(points)[0] for points in asked] == [(0,), (1,), (0,), (1,)]


def test_candidates_stand_by_what_was_chosen_before():
    """Where slots add up, one round over all of them finds the best prompt."""
    worth = np.random.default_rng(1).standard_normal(SPACE.shape)
    states, asked = play(Coordinate(), lambda p: (p * worth).sum(), CLASSES * SLOTS)
    best = np.eye(SIZE)[worth.argmin(axis=-1)]
    np.testing.assert_array_equal(Coordinate().best(states[-1]), best)
    for state, points in zip(states, asked, strict=False):
        np.testing.assert_array_equal(points[0], state.point)
        assert (points.sum(axis=-1) == 1).all()


def test_it_is_done_when_everything_was_tried_in_vain():
    optimizer, rows = Coordinate(), CLASSES * SLOTS
    states, _ = play(optimizer, flat, rows)
    assert [optimizer.done(state) for state in states] == [False] * rows + [True]
    # A move in step 4 is reason to try all others again.
    states, _ = play(optimizer, lambda point: 1.0 - point[0, 1, 2], rows + 4)
    assert [i for i, state in enumerate(states) if optimizer.done(state)] == [rows + 4]


def test_width_draws_some_candidates():
    optimizer, rows = Coordinate(width=3), CLASSES * SLOTS
    states, asked = play(optimizer, flat, 4 * rows)
    assert {len(points) for points in asked} == {1 + 3}
    drawn = [tuple(changed(points)[1]) for points in asked]
    assert len(set(drawn)) > 1 and all(len(set(some)) == 3 and 0 not in some for some in drawn)
    # Two of the draws of 3 hold all 4 others; twice that before it gives up.
    done = [optimizer.done(state) for state in states]
    assert done == [False] * (4 * rows) + [True]


def test_width_as_large_as_the_list_is_all():
    for width in (SIZE - 1, SIZE, 99):
        optimizer = Coordinate(width=width)
        states, asked = play(optimizer, flat, CLASSES * SLOTS)
        assert len(asked[0]) == SIZE and optimizer.done(states[-1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_answer_no_move(bad):
    optimizer = Coordinate()
    state = optimizer.init(SPACE)
    points = optimizer.ask(state, np.random.default_rng(0))
    losses = np.array([2.0, bad, 1.0, 1.5, bad])
    after = optimizer.tell(state, points, losses)
    np.testing.assert_array_equal(after.point, points[2])
    losses[0] = bad  # nobody knows what there is to beat
    after = optimizer.tell(state, points, losses)
    np.testing.assert_array_equal(after.point, state.point)
    assert after.answered.tolist() == [False, False, True, True, False]


def test_width_is_checked():
    with pytest.raises(ConfigError, match=r"coordinate\.width is -1"):
        Coordinate(width=-1)
