import numpy as np
import pytest

from fedbbpt.errors import ConfigError
from fedbbpt.optimizers.random_search import RandomSearch
from fedbbpt.types import Space

REAL, WORDS = Space("real", (4, 3)), Space("categorical", (2, 6))


def play(optimizer, space, loss, steps):
    """The state after some steps, and every candidate on the way."""
    state, seen = optimizer.init(space), []
    for step in range(steps):
        points = optimizer.ask(state, np.random.default_rng(step))
        seen.append(points)
        state = optimizer.tell(state, points, np.array([loss(point) for point in points]))
    return state, np.concatenate(seen)


@pytest.mark.parametrize("space", [REAL, WORDS], ids=lambda space: space.kind)
def test_the_best_of_all_candidates_is_kept(space):
    worth = np.random.default_rng(7).standard_normal(space.shape)
    state, seen = play(RandomSearch(samples=5), space, lambda p: ((p - worth) ** 2).sum(), 20)
    losses = ((seen - worth) ** 2).sum(axis=(1, 2))
    np.testing.assert_array_equal(RandomSearch().best(state), seen[losses.argmin()])


def test_candidates_lie_around_the_start_wherever_the_best_is():
    optimizer = RandomSearch(samples=4000, sigma=0.5)
    far = optimizer.init(REAL)._replace(point=np.full(REAL.shape, 9.0))
    points = optimizer.ask(far, np.random.default_rng(0))
    np.testing.assert_array_equal(points[0], far.point)
    assert abs(points[1:].mean()) < 0.01 and points[1:].std() == pytest.approx(0.5, rel=0.02)


def test_words_are_drawn_evenly():
    optimizer = RandomSearch(samples=3000)
    points = optimizer.ask(optimizer.init(WORDS), np.random.default_rng(0))
    assert set(np.unique(points)) == {0, 1} and (points.sum(axis=-1) == 1).all()
    np.testing.assert_array_equal(points[0], [[1, 0, 0, 0, 0, 0]] * 2)
    np.testing.assert_allclose(points[1:].mean(axis=0), 1 / 6, atol=0.03)


def test_what_is_not_answered_is_not_kept():
    optimizer = RandomSearch(samples=2)
    state = optimizer.init(REAL)
    points = optimizer.ask(state, np.random.default_rng(0))
    after = optimizer.tell(state, points, np.array([1.0, np.nan, 0.5]))
    np.testing.assert_array_equal(after.point, points[2])
    after = optimizer.tell(state, points, np.array([np.nan, 0.1, 0.5]))
    np.testing.assert_array_equal(after.point, state.point)


@pytest.mark.parametrize("options", [{"samples": 0}, {"sigma": 0.0}, {"sigma": np.inf}])
def test_bad_options(options):
    with pytest.raises(ConfigError, match="samples >= 1 and a finite sigma"):
        RandomSearch(**options)
