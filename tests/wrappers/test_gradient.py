"""Gradients through the whole stack: charged before they are asked, recorded, timed, never kept."""

import numpy as np
import pytest

from fedbbpt.budget import Budget
from fedbbpt.errors import BudgetSpent
from fedbbpt.testing.toys import MemoryStore, ToyEncoder
from fedbbpt.types import RenderedPrompt
from fedbbpt.wrappers.cached import Cached
from fedbbpt.wrappers.metered import Metered
from fedbbpt.wrappers.retrying import Retrying
from fedbbpt.wrappers.timed import Timed

EXAMPLES, TARGETS = ("dull", "fine", "dull"), np.array([0, 1, 0])
SOFT = np.zeros((4, 8), np.float32)
PROMPT = RenderedPrompt("It was {label} .", ("bad", "good"), soft=(SOFT,))


class Slopes(ToyEncoder):
    gives = ToyEncoder.gives | {"gradients"}
    asked = 0

    def gradient(self, prompt, examples, targets):
        self.asked += 1
        return 0.5, np.full((1, 4, 8), float(len(examples)))


def stack(quota=None):
    leaf, store = Slopes(), MemoryStore()
    timer = Timed(leaf)
    account = Budget(100).open("train", "ash", quota)
    return Metered(Cached(Retrying(timer), store), account), leaf, store, account, timer


def test_every_distinct_example_is_charged_and_recorded():
    box, _, store, account, timer = stack()
    loss, slope = box.gradient(PROMPT, EXAMPLES, TARGETS)
    assert loss == 0.5 and slope.shape == (1, 4, 8) and (slope == 3).all()
    assert "gradients" in box.gives and timer.seconds > 0
    assert len(account.new) == 2 and set(account.new) == set(store.rows)
    assert all(np.isfinite(row).all() for row in store.rows.values())


def test_asked_again_it_is_worked_out_again_and_charged_once():
    box, leaf, _, account, _ = stack()
    for _ in range(2):
        box.gradient(PROMPT, EXAMPLES, TARGETS)
    assert (leaf.asked, len(account.new)) == (2, 2)


def test_whatever_changes_the_slope_is_another_query():
    box, _, _, account, _ = stack()
    moved = RenderedPrompt("It was {label} .", ("bad", "good"), soft=(SOFT + 1,))
    words = RenderedPrompt("It was {label} .", ("poor", "good"), soft=(SOFT,))
    for prompt, targets in ((PROMPT, [0]), (moved, [0]), (words, [0]), (PROMPT, [1])):
        box.gradient(prompt, ("dull",), np.array(targets))
    assert len(account.new) == 4
    # And none of them is a query for scores.
    box([PROMPT], ("dull",))
    assert len(account.new) == 4 + 3


def test_what_cannot_be_paid_is_not_asked():
    box, leaf, _, account, _ = stack(quota=1)
    with pytest.raises(BudgetSpent):
        box.gradient(PROMPT, EXAMPLES, TARGETS)
    assert (leaf.asked, account.new) == (0, [])
