"""Shields together: their order, what they need of each other, and which secret they use."""

import numpy as np
import pytest

from fedbbpt.errors import Incompatible
from fedbbpt.maths.secret import SecretStream
from fedbbpt.shielding import in_order, moved, placed, protect, revealed
from fedbbpt.shields.clip import Clip
from fedbbpt.shields.mask import Mask
from fedbbpt.shields.noise import Noise
from fedbbpt.shields.quantise import Quantise

SECRET = bytes(range(32))
ARRAYS = {"mean": np.linspace(-3, 3, 40), "sigma": np.array(0.5)}
ALL = in_order([Quantise(bits=12), Noise(0.5), Clip(1.0)])


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def test_their_order_is_their_own():
    assert [type(shield) for shield in in_order([Mask(), *ALL])] == [Clip, Noise, Quantise, Mask]
    assert ALL[1].std == 0.5
    assert ALL[2].step == pytest.approx(2 * (1 + 6 * 0.5) / 4095)


@pytest.mark.parametrize("shield", [Noise(1.0), Quantise()])
def test_what_needs_a_bound_is_refused_without(shield):
    with pytest.raises(Incompatible, match="needs the shield clip before it"):
        in_order([shield])
    with pytest.raises(Incompatible, match="has no shield clip before it"):
        shield.apply(ARRAYS, 1.0, SecretStream(b""))


def test_two_of_a_kind_are_refused():
    with pytest.raises(Incompatible, match="two shields clip"):
        in_order([Clip(1.0), Clip(2.0)])


def test_the_same_task_gives_the_same_update_and_only_with_the_secret():
    sent = protect(ALL, ARRAYS, 3.0, SECRET, 5)
    assert same(sent, protect(ALL, dict(reversed(ARRAYS.items())), 3.0, SECRET, 5))
    assert not same(sent, protect(ALL, ARRAYS, 3.0, SECRET[::-1], 5))
    assert not same(sent, protect(ALL, ARRAYS, 3.0, SECRET, 6))


def test_two_updates_never_get_the_same_noise():
    """Else their difference, which one value of the same noise would leave bare, is known."""
    shields = in_order([Clip(100.0), Noise(1.0)])
    other = {**ARRAYS, "sigma": np.array(0.5000001)}
    one, two = (protect(shields, arrays, 3.0, SECRET, 0) for arrays in (ARRAYS, other))
    assert np.abs(one["mean"] - two["mean"]).min() > 1e-3


def test_the_server_reads_what_was_sent():
    opened = revealed(ALL, protect(ALL, ARRAYS, 3.0, SECRET, 5))
    clipped = ALL[0].apply(ARRAYS, 3.0, SecretStream(b""))
    assert opened.keys() == ARRAYS.keys()
    # 6 standard deviations of the noise, and a step of the grid.
    assert np.abs(opened["mean"] - clipped["mean"]).max() < 6 * 0.5 + ALL[2].step


def test_what_moved_is_sent_in_place_of_where_it_is():
    base = {"mean": np.full(40, 100.0), "count": np.array(2), "other": np.zeros(3)}
    sent = {**ARRAYS, "mean": base["mean"] + 0.1, "count": np.array(5)}
    gone = moved(sent, base)
    assert gone["mean"] == pytest.approx(np.full(40, 0.1)) and gone["count"] == 5
    assert gone["sigma"] is sent["sigma"]
    # A norm of 1 leaves it alone, where 100 in each value would have been cut to nothing.
    clipped = ALL[0].apply({"mean": gone["mean"]}, 1.0, SecretStream(b""))
    assert placed(clipped, base)["mean"] == pytest.approx(sent["mean"])
    assert placed(gone, base)["count"] == 5


def test_every_shield_says_in_one_sentence_what_it_does():
    for shield in in_order([Mask(), *ALL]):
        said = shield.describe()
        assert said.startswith(type(shield).__name__.lower() + ": ")
        assert said.endswith(".") and "\n" not in said and ". " not in said
