"""Sums over clients: in order of their names, and a few at a time."""

import tracemalloc
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from fedbbpt.maths.merge import BLOCK, pooled, weighted_mean
from fedbbpt.random import stream
from fedbbpt.types import Update


def updates(count, dim=7):
    rng = stream(0, "updates")
    return [
        Update(
            f"{k:04}",
            0,
            float(rng.integers(1, 9)),
            {"x": rng.standard_normal(dim), "n": np.array(k)},
        )
        for k in range(count)
    ]


def as_they_are(update):
    return update


@pytest.mark.parametrize("count", [1, 2, BLOCK - 1, BLOCK])
def test_a_mean_of_few_is_one_product(count):
    sent = updates(count)
    weights = np.array([one.weight for one in sent])
    shares = weights / weights.sum()
    plain = np.tensordot(shares, np.array([one.arrays["x"] for one in sent]), axes=1)
    assert weighted_mean(sent, "x").tobytes() == plain.tobytes()


@pytest.mark.parametrize("count", [1, 5, BLOCK + 1, 5 * BLOCK + 3])
def test_one_update_holds_the_means_of_all(count):
    sent = updates(count)
    one = pooled(sent, as_they_are)
    weights = np.array([each.weight for each in sent])
    for name in ("x", "n"):
        values = np.array([each.arrays[name] for each in sent])
        np.testing.assert_allclose(
            one.arrays[name], np.average(values, axis=0, weights=weights), rtol=1e-13
        )
        assert one.arrays[name].tobytes() == weighted_mean(sent, name).tobytes()
        assert one.arrays[name].shape == values.shape[1:]
    assert (one.weight, one.round) == (weights.sum(), 0)


def test_the_order_does_not_matter_to_the_bit():
    few = updates(4)
    assert len({pooled(p, as_they_are).arrays["x"].tobytes() for p in permutations(few)}) == 1
    many = updates(3 * BLOCK)
    mixed = [many[k] for k in stream(1, "order").permutation(len(many))]
    assert weighted_mean(mixed, "x").tobytes() == weighted_mean(many, "x").tobytes()


def test_few_are_held_at_a_time():
    sent, size = updates(10 * BLOCK), 10_000

    def read(update):
        return replace(update, arrays={"state": np.full(size, update.weight)})

    tracemalloc.start()
    mean = pooled(sent, read).arrays["state"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    weights = np.array([one.weight for one in sent])
    assert mean == pytest.approx((weights**2).sum() / weights.sum())
    assert peak < 3 * BLOCK * 8 * size < 8 * size * len(sent) / 2
