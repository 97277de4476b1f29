"""Threshold shares: enough of them give the secret back, fewer fit every secret."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.maths.shamir import PRIME, join, split


def draw(seed=0):
    return np.random.default_rng(seed).bytes


@given(st.integers(0, 2**512 - 1), st.integers(1, 6), st.integers(0, 3), st.integers(0, 99))
def test_any_threshold_of_them_are_enough(secret, threshold, more, seed):
    shares = split(secret, threshold, threshold + more, draw(seed))
    for some in combinations(enumerate(shares, start=1), threshold):
        assert join(dict(some)) == secret
    assert join(dict(enumerate(shares, start=1))) == secret


def test_golden_numbers():
    """Secret 5, f(x) = 5 + 3 x: shares 8, 11, 14."""
    shares = split(5, 2, 3, lambda count: (3).to_bytes(count, "big"))
    assert shares == [8, 11, 14]
    assert join({1: 8, 3: 14}) == 5


@pytest.mark.parametrize("other", [0, 1, 2**511])
def test_fewer_fit_every_secret(other):
    """With two of three known, each third value belongs to exactly one secret."""
    shares = split(2**256 - 12345, 3, 3, draw())
    known = {1: shares[0], 2: shares[1]}
    # f(0) = 3 f(1) - 3 f(2) + f(3) for a parabola.
    third = (other - 3 * known[1] + 3 * known[2]) % PRIME
    assert join({**known, 3: third}) == other


def test_a_wrong_share_gives_another_secret():
    shares = dict(enumerate(split(7, 3, 5, draw()), start=1))
    shares[2] = (shares[2] + 1) % PRIME
    assert join({at: shares[at] for at in (1, 2, 3)}) != 7


@pytest.mark.parametrize("secret, threshold, count", [(-1, 1, 2), (2**512, 1, 2), (1, 3, 2)])
def test_what_cannot_be_split_is_refused(secret, threshold, count):
    with pytest.raises(ValueError, match="can be made"):
        split(secret, threshold, count, draw())


@pytest.mark.parametrize("shares", [{}, {0: 1}, {1: PRIME}, {1: -1}])
def test_what_is_no_share_is_refused(shares):
    with pytest.raises(ValueError, match="not numbered field elements"):
        join(shares)
