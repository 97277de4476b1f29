"""The norm after clipping, whatever the values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedbbpt.errors import ConfigError
from fedbbpt.maths.secret import SecretStream
from fedbbpt.shields.clip import Clip

NONE = SecretStream(b"")
VALUES = {
    kind: arrays(kind, array_shapes(min_dims=0, max_dims=2), elements=st.floats(width=width))
    for kind, width in ((np.float32, 32), (np.float64, 64))
}


def norm(*found):
    values = np.concatenate([a[np.isfinite(a)].astype(np.float64).ravel() for a in found])
    return math.hypot(*values)


@given(VALUES[np.float64], VALUES[np.float32], st.floats(1e-6, 1e6))
def test_the_norm_is_never_above(mean, sigma, most):
    sent = Clip(most).apply({"mean": mean, "sigma": sigma}, 1.0, NONE)
    assert norm(*sent.values()) <= most * (1 + 1e-12)
    for name, before in (("mean", mean), ("sigma", sigma)):
        assert sent[name].shape == before.shape and sent[name].dtype == before.dtype
        # No answer is no answer afterwards.
        assert np.array_equal(np.isfinite(sent[name]), np.isfinite(before))


def test_only_what_is_too_large_is_scaled_and_keeps_its_direction():
    small, large = {"mean": np.array([0.6, 0.8])}, {"mean": np.array([3.0, 4.0])}
    assert np.array_equal(Clip(1.0).apply(small, 1.0, NONE)["mean"], small["mean"])
    assert Clip(1.0).apply(large, 1.0, NONE)["mean"] == pytest.approx([0.6, 0.8], rel=1e-12)
    assert np.array_equal(large["mean"], [3.0, 4.0])


def test_fields_are_taken_together_and_others_left():
    sent = {"a": np.array([3.0]), "b": np.array([4.0]), "count": np.array(9), "c": np.array([7.0])}
    clipped = Clip(1.0, fields=("a", "b", "count")).apply(sent, 1.0, NONE)
    assert [clipped["a"][0], clipped["b"][0]] == pytest.approx([0.6, 0.8])
    assert clipped["count"] == 9 and clipped["c"] == 7


def test_squares_may_overflow_or_vanish():
    huge = Clip(1.0).apply({"x": np.array([3e200, 4e200])}, 1.0, NONE)["x"]
    assert huge == pytest.approx([0.6, 0.8])
    tiny = Clip(1e-200).apply({"x": np.array([3e-190, 4e-190])}, 1.0, NONE)["x"]
    assert tiny == pytest.approx([0.6e-200, 0.8e-200])


@pytest.mark.parametrize("most", [0.0, -1.0, math.nan, math.inf])
def test_a_norm_that_is_none_is_refused(most):
    with pytest.raises(ConfigError, match="must be a finite number above 0"):
        Clip(most)
