import numpy as np
import pytest

from fedbbpt.budget import Budget
from fedbbpt.errors import BudgetSpent
from fedbbpt.testing.boxes import cases_for
from fedbbpt.testing.toys import CountingBox, MemoryStore, toy_box
from fedbbpt.wrappers.cached import Cached
from fedbbpt.wrappers.metered import Metered

CASE = cases_for(toy_box())[0]
KEYS = [atom.key for atom in toy_box().split(*CASE).atoms]


def test_distinct_atoms_are_charged_once():
    account = Budget(100).open("train", "a")
    metered = Metered(toy_box(), account)
    for _ in range(2):
        metered([*CASE.prompts, CASE.prompts[0]], [*CASE.examples, CASE.examples[0]])
    assert account.new == KEYS


def test_a_quota_pays_for_all_or_nothing():
    box = CountingBox(toy_box())
    account = Budget(100).open("train", "a", quota=len(KEYS) - 1)
    metered = Metered(box, account)
    said = f"is {len(KEYS) - 1}, of which 0 is spent; .* may take {len(KEYS)}"
    with pytest.raises(BudgetSpent, match=said):
        metered(*CASE)
    assert account.new == []
    assert box.calls == 0
    metered(CASE.prompts[:1], CASE.examples)
    assert len(account.new) == len(CASE.examples)


def test_a_quota_that_is_just_enough():
    account = Budget(100).open("train", "a", quota=len(KEYS))
    metered = Metered(toy_box(), account)
    metered(*CASE)
    metered(*CASE)
    assert len(account.new) == len(KEYS)


def test_what_a_ledger_holds_is_charged_all_the_same():
    """So a rerun is the same run."""
    store = MemoryStore()
    Cached(toy_box(), store)(*CASE)
    box, account = CountingBox(toy_box()), Budget(100).open("train", "a")
    Metered(Cached(box, store), account)(*CASE)
    assert account.new == KEYS
    assert box.calls == 0


def test_rows_that_were_not_answered_are_counted():
    box = CountingBox(toy_box(), nans=0.4, times=None)
    account = Budget(100).open("train", "a")
    rows = Metered(box, account)(*CASE).scores
    assert account.dropped == sum(box.chosen("nans", 0.4, key) for key in KEYS) > 0
    assert np.isnan(rows).any()
    assert account.new == KEYS


def test_half_an_answer_is_none():
    box = toy_box()
    evaluate = box.evaluate
    box.evaluate = lambda atoms, wanted: [
        np.array([np.inf, *row[1:]]) for row in evaluate(atoms, wanted)
    ]
    account = Budget(100).open("train", "a")
    Metered(box, account)(*CASE)
    assert account.dropped == len(KEYS)


def test_an_empty_grid_costs_nothing():
    account = Budget(100).open("train", "a", quota=0)
    assert Metered(toy_box(), account)(CASE.prompts, ()).scores.shape[1] == 0
    assert account.new == []
