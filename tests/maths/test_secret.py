"""Numbers from a secret: the same again at an address, none in common between two."""

import hashlib

import numpy as np
import pytest
from scipy import stats

from fedbbpt.errors import ConfigError
from fedbbpt.maths.secret import secret_stream

SECRET = bytes(range(32))
ADDRESSES = [
    (SECRET, 0, "noise", b""),
    (SECRET[::-1], 0, "noise", b""),
    (SECRET, 1, "noise", b""),
    (SECRET, 0, "masks", b""),
    (SECRET, 0, "noise", b"x"),
    (SECRET, 0, "nois", b"ex"),
]


def test_an_address_gives_the_same_again_and_no_two_the_same():
    drawn = [secret_stream(*address).bytes(16) for address in ADDRESSES]
    assert len(set(drawn)) == len(ADDRESSES)
    assert drawn == [secret_stream(*address).bytes(16) for address in ADDRESSES]
    stream = secret_stream(SECRET, 0, "noise")
    assert len({stream.bytes(8) for _ in range(100)}) == 100


def test_it_is_shake_256_as_documented():
    h = hashlib.shake_256(b"fedbbpt secret stream 1")
    for part in (SECRET, (7).to_bytes(8, "big"), b"noise", b"content"):
        h.update(len(part).to_bytes(8, "big") + part)
    first = hashlib.shake_256(h.digest(64) + (1).to_bytes(8, "big")).digest(40)
    assert secret_stream(SECRET, 7, "noise", b"content").bytes(40) == first


def test_numbers_have_their_distributions_and_shapes():
    stream = secret_stream(SECRET, 0, "test")
    uniform, normal = stream.random((100, 200)), stream.standard_normal(20_000)
    assert uniform.shape == (100, 200) and 0 < uniform.min() and uniform.max() < 1
    assert (uniform * 2.0**53 % 2 == 1).all()
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert stream.random(()).shape == () and stream.standard_normal((0, 3)).shape == (0, 3)
    assert np.isfinite(stream.standard_normal(())).all()


def test_a_short_secret_is_refused():
    with pytest.raises(ConfigError, match="has 3 bytes; it must have 32"):
        secret_stream(b"abc", 0, "noise")
