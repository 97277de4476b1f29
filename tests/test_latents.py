"""Soft prompts that were written on, and what the answers to their texts say of them."""

import numpy as np

from fedbbpt.latents import Latents
from fedbbpt.optimizers.bayes import Bayes
from fedbbpt.sections import Part
from fedbbpt.types import Space, Update


def over(rows, losses):
    """A pool of four instructions, of which some were answered."""
    points = np.arange(8.0).reshape(4, 2) - [0.0, 1.0]
    points[0] = 0
    state = Bayes().init(Space("pool", (2,), points=points))
    n = len(rows)
    return state._replace(
        seen_points=np.array(rows, float)[:, None],
        seen_losses=np.array(losses, float),
        seen_weights=np.ones(n),
        seen_turns=np.zeros(n, np.int64),
        seen_clients=np.ones(n, np.uint64),
    )


def latents(**options):
    return Latents(2, Part(name="bayes", **options), seed=0)


def heard(*rows):
    return Update("ash", 0, 1.0, {"rows": np.array(rows, np.int64)})


def test_two_that_wrote_the_same_share_what_is_known_and_one_that_was_refused_is_a_hole():
    known = latents()
    asked = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])
    known.note(asked[:2], heard(0, 1), [1, 1])
    known.note(asked[2:], heard(1), [2])
    assert known.rows.tolist() == [1, 1, -1, 2]
    seen = known._seen(over([1, 1, 0, 2], [0.4, 0.6, 0.9, 0.1]))
    found = {tuple(p): [] for p in asked.tolist()}
    for point, loss, weight in zip(
        seen["seen_points"].tolist(), seen["seen_losses"], seen["seen_weights"], strict=True
    ):
        found[tuple(point)].append((loss, weight))
    assert found[0.1, 0.2] == found[0.3, 0.4] == [(0.4, 1), (0.6, 1)]
    assert found[0.5, 0.6] == [(0.0, 0.0)] and found[0.7, 0.8] == [(0.1, 1)]


def test_the_first_cover_the_box_and_later_ones_go_where_it_is_good():
    known = latents(initial=8)
    first = known.next(over([], []), 8, 0)
    assert (
        first.shape == (8, 2) and (abs(first) <= 1).all() and first.min() < -0.5 < 0.5 < first.max()
    )
    known.note(first, heard(*range(8)), [1, 2, 3, 3, 3, 3, 3, 3])
    state = over([1, 1, 2, 2, 3, 3], [0.0, 0.1, 0.9, 0.8, 0.9, 0.9])
    again = [known.next(state, 4, made) for made in (1, 1, 2)]
    np.testing.assert_array_equal(again[0], again[1])
    assert len(np.unique(np.concatenate([first, again[0]]), axis=0)) == 12
    good = np.linalg.norm(again[0] - first[0], axis=1).min()
    assert good < np.linalg.norm(first[1:] - first[0], axis=1).mean()
