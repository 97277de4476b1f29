"""Where texts are among each other: distances are kept, and the first text is at zero."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.maths.places import BUCKETS, ngrams, principal

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 20), st.integers(1, 16), st.integers(0, 9999))


def some(rows, columns, seed=0, rank=None):
    rng = np.random.default_rng(seed)
    rank = min(rows, columns) if rank is None else rank
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=2)


@given(SHAPES)
def test_the_first_is_zero_to_the_bit_and_all_hold_in_a_float32(shape):
    rows, columns, dim, seed = shape
    found = some(rows, columns, seed)
    places = principal(found, dim).places(found)
    assert places.shape == (rows, dim) and places.dtype == np.float64
    assert places[0].tobytes() == np.zeros(dim).tobytes()  # and not -0.0
    assert not np.signbit(places[places == 0]).any()
    assert places.astype(np.float32).astype(np.float64).tobytes() == places.tobytes()


@given(SHAPES)
def test_distances_stay_where_there_are_axes_enough_and_shrink_where_not(shape):
    rows, columns, dim, seed = shape
    found = some(rows, columns, seed)
    apart, placed = distances(found), distances(principal(found, dim).places(found))
    near = 1e-5 * max(1, apart.max())
    assert (placed <= apart + near).all()
    if dim >= min(rows - 1, columns):
        np.testing.assert_allclose(placed, apart, atol=near)


def test_of_too_few_axes_those_are_kept_that_tell_most():
    found = some(9, 30) * 0.01
    found[:, 7] += 5 * np.arange(9)
    axes = principal(found, 2)
    assert abs(axes.axes[0, 7]) > 0.99
    np.testing.assert_allclose(axes.axes @ axes.axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(axes.places(found)[:, 0], 5 * np.arange(9), atol=0.2)


def test_without_enough_directions_the_last_axes_are_empty():
    axes = principal(some(6, 10, rank=2), 5)
    assert axes.axes.shape == (5, 10) and not axes.axes[3:].any()
    assert principal(np.ones((1, 3)), 2).places(np.ones((1, 3))).tolist() == [[0.0, 0.0]]
    assert not principal(np.ones((4, 3)), 2).axes.any()


@given(SHAPES)
def test_the_same_embeddings_have_the_same_places_whatever_signs_the_solver_takes(shape):
    rows, columns, dim, seed = shape
    found = some(rows, columns, seed)
    axes = principal(found, dim)
    assert axes.places(found).tobytes() == principal(found.copy(), dim).places(found).tobytes()
    largest = np.take_along_axis(axes.axes, abs(axes.axes).argmax(axis=1)[:, None], axis=1)
    assert (largest >= 0).all()


def test_later_texts_are_put_among_the_others():
    """On the same axes, to the same bits as if they had been there."""
    found = some(8, 20)
    axes = principal(found, 16)
    middle = (found[2] + found[5]) / 2
    both = axes.places(np.stack([found[2], middle, found[5]]))
    np.testing.assert_allclose(both[1], (both[0] + both[2]) / 2, atol=1e-6)
    np.testing.assert_array_equal(axes.places(found)[[2, 5]], both[[0, 2]])


@given(SHAPES, st.integers(1, 9))
def test_axes_that_are_left_are_for_what_later_texts_bring(shape, later):
    """Of one text and another nothing is known but one direction: others are not all on it."""
    rows, columns, dim, seed = shape
    found, more = some(rows, columns, seed), some(later, columns, seed + 1)
    first = principal(found, dim)
    axes = first.extended(more)
    used = first.axes.any(axis=1)
    np.testing.assert_array_equal(axes.axes[used], first.axes[used])
    np.testing.assert_array_equal(axes.places(found)[:, used], first.places(found)[:, used])
    if not used.all():
        np.testing.assert_allclose(axes.places(found), first.places(found), atol=1e-6)
    both = np.concatenate([found, more])
    if dim >= min(len(both) - 1, columns):
        apart = distances(both)
        np.testing.assert_allclose(distances(axes.places(both)), apart, atol=1e-5 * apart.max())
    kept = axes.axes[axes.axes.any(axis=1)]
    np.testing.assert_allclose(kept @ kept.T, np.eye(len(kept)), atol=1e-9)


# --- likeness of letters -------------------------------------------------------------------------


def test_every_text_with_a_word_is_a_unit_vector():
    found = ngrams(["Write the plural.", "a", "naïve Größe", "42", "", " .!? "])
    assert found.shape == (6, BUCKETS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 1, 1, 0, 0])


def test_case_marks_and_order_of_words_count_for_nothing():
    first, other = ngrams(["Write the PLURAL!", "plural, the write"])
    np.testing.assert_array_equal(first, other)


def test_texts_that_share_words_are_alike():
    asked, near, far = ngrams(["Write the plural", "Write a plural form", "Sum up two numbers"])
    assert asked @ near > 0.5 > 0.2 > asked @ far


@pytest.mark.parametrize("size", [1, 3])
def test_a_text_by_itself_has_the_bits_that_it_has_in_company(size):
    texts = ["Write the plural.", "List the letters.", "Sum up."] * 2
    together = ngrams(texts)
    apart = np.concatenate([ngrams(texts[i : i + size]) for i in range(0, len(texts), size)])
    assert together.tobytes() == apart.tobytes()
    assert len(ngrams([])) == 0
