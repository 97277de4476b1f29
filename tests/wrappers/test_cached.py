import numpy as np
import pytest

from fedbbpt.errors import TransientError
from fedbbpt.testing.boxes import cases_for
from fedbbpt.testing.toys import CountingBox, MemoryStore, toy_box
from fedbbpt.wrappers.cached import Cached

CASE = cases_for(toy_box())[0]
ATOMS = toy_box().split(*CASE).atoms
KEYS = [atom.key for atom in ATOMS]


def test_what_is_known_is_not_asked_again():
    box, store = CountingBox(toy_box()), MemoryStore()
    first = Cached(box, store)(*CASE).scores
    np.testing.assert_array_equal(Cached(box, store)(*CASE).scores, first)
    assert box.asked == KEYS
    assert list(store.rows) == KEYS


def test_cached_twice_pays_once():
    box, inner, outer = CountingBox(toy_box()), MemoryStore(), MemoryStore()
    twice = Cached(Cached(box, inner), outer)
    for _ in range(2):
        np.testing.assert_array_equal(twice(*CASE).scores, toy_box()(*CASE).scores)
    assert box.asked == KEYS
    assert inner.rows.keys() == outer.rows.keys() == set(KEYS)


def test_only_the_missing_are_asked_for_but_all_are_shown():
    """A box that batches must see every atom, whatever is wanted of it."""
    box, store = CountingBox(toy_box()), MemoryStore()
    seen = []
    inner_evaluate = box.evaluate
    box.evaluate = lambda atoms, wanted: (
        seen.append((list(atoms), list(wanted))) or inner_evaluate(atoms, wanted)
    )
    Cached(box, store).evaluate(ATOMS, [1, 3])
    rows = Cached(box, store).evaluate(ATOMS, [4, 3, 0, 1])
    assert seen == [(list(ATOMS), [1, 3]), (list(ATOMS), [4, 0])]
    for i, row in zip([4, 3, 0, 1], rows, strict=True):
        np.testing.assert_array_equal(row, toy_box().evaluate(ATOMS, [i])[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_never_kept(bad):
    box, store = CountingBox(toy_box(), nans=0.4, times=1), MemoryStore()
    picked = {key for key in KEYS if box.chosen("nans", 0.4, key)}
    assert 0 < len(picked) < len(KEYS)
    evaluate = box.evaluate
    box.evaluate = lambda atoms, wanted: [
        np.where(np.isnan(row), bad, row) for row in evaluate(atoms, wanted)
    ]
    cached = Cached(box, store)
    rows = cached.evaluate(ATOMS, range(len(ATOMS)))
    assert {k for k, row in zip(KEYS, rows, strict=True) if not np.isfinite(row).all()} == picked
    assert set(store.rows) == set(KEYS) - picked
    assert np.isfinite(cached.evaluate(ATOMS, range(len(ATOMS)))).all()
    assert set(box.asked[len(KEYS) :]) == picked


def test_a_failed_call_keeps_nothing():
    store = MemoryStore()
    with pytest.raises(TransientError):
        Cached(CountingBox(toy_box(), raises=1.0), store)(*CASE)
    assert not store.rows


def test_rows_are_recorded_before_they_are_used():
    class Full(MemoryStore):
        def put(self, rows):
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        Cached(toy_box(), Full())(*CASE)


def test_a_store_may_know_more_than_is_asked_for():
    store = MemoryStore()
    Cached(toy_box(), store)(*CASE)
    box = CountingBox(toy_box())
    Cached(box, store)(CASE.prompts[:1], CASE.examples[:1])
    assert box.calls == 0


# --- when others pay for the same ----------------------------------------------------------------


class Neighbour(MemoryStore):
    """Somebody else claims some keys for a while; his rows come with the third look, or never."""

    def __init__(self, his, answers):
        super().__init__()
        self.his, self.answers, self.looks, self.held = set(his), answers, 0, set()

    def claim(self, keys):
        self.looks += 1
        if self.looks == 3:
            self.rows |= self.answers
            self.his.clear()
        mine = [key for key in keys if key not in self.his and key not in self.rows]
        self.held |= set(mine)
        return mine

    def release(self, keys):
        self.held -= set(keys)


def test_what_others_pay_for_is_waited_for():
    rows = dict(zip(KEYS, toy_box().evaluate(ATOMS, range(len(ATOMS))), strict=True))
    box, store = CountingBox(toy_box()), Neighbour(KEYS[:3], {k: rows[k] for k in KEYS[:3]})
    np.testing.assert_array_equal(Cached(box, store)(*CASE).scores, toy_box()(*CASE).scores)
    assert box.asked == KEYS[3:] and box.calls == 1 and store.looks == 3 and not store.held


def test_what_others_failed_to_pay_for_is_asked_after_all():
    box, store = CountingBox(toy_box()), Neighbour(KEYS[:3], {})
    np.testing.assert_array_equal(Cached(box, store)(*CASE).scores, toy_box()(*CASE).scores)
    assert box.asked == [*KEYS[3:], *KEYS[:3]] and not store.held


def test_claims_end_with_a_failure():
    store = Neighbour([], {})
    with pytest.raises(TransientError):
        Cached(CountingBox(toy_box(), raises=1.0), store)(*CASE)
    assert store.looks == 1 and not store.held
