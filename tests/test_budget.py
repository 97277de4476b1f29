import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.budget import FEDERATION, Budget
from fedbbpt.errors import BudgetSpent

KEYS = st.lists(st.integers(0, 12).map(lambda i: bytes([i]) * 16), max_size=8)
A, B, C = (bytes([i]) * 16 for i in range(3))


def test_an_account_pays_an_atom_once():
    budget = Budget(100)
    job = budget.open("train", "a")
    job.charge([A, B, A])
    job.charge([B])
    assert job.new == [A, B]
    later = budget.open("train", "a")
    later.charge([B, C])
    assert later.new == [C]
    assert (budget.spent("train"), budget.left) == (3, 97)


def test_accounts_pay_each_for_themselves_but_not_for_what_the_federation_paid():
    budget = Budget(100)
    for account in ("a", "b"):
        budget.open("train", account).charge([A])
    budget.open("train", FEDERATION).charge([B])
    free = budget.open("train", "a")
    free.charge([A, B])
    assert free.new == []
    assert budget.spent("train") == 3


def test_the_federation_pays_for_what_a_client_has_paid_alone():
    budget = Budget(100)
    budget.open("train", "a").charge([A])
    common = budget.open("train", FEDERATION)
    common.charge([A])
    assert common.new == [A]


def test_purses_are_apart_and_only_training_is_limited():
    budget = Budget(2)
    budget.open("train", "a").charge([A])
    budget.open("select", "a").charge([A, B, C])
    assert (budget.spent("select"), budget.spent("evaluation"), budget.left) == (3, 0, 1)


def test_a_quota_pays_all_or_nothing():
    job = Budget(100).open("train", "a", quota=2)
    job.charge([A])
    with pytest.raises(BudgetSpent) as caught:
        job.charge([A, B, C])
    assert (caught.value.spent, caught.value.limit, caught.value.asked) == (1, 2, 2)
    assert str(caught.value) == (
        "budget.queries is 2, of which 1 is spent; the next request may take 2"
    )
    assert job.new == [A]
    job.charge([A, B])
    assert job.new == [A, B]


def test_a_quota_of_nothing_still_allows_what_is_paid():
    budget = Budget(100)
    budget.open("train", "a").charge([A])
    job = budget.open("train", "a", quota=0)
    job.charge([A])
    with pytest.raises(BudgetSpent):
        job.charge([B])


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), KEYS, st.integers(0, 6)), max_size=12))
def test_no_job_exceeds_its_quota_and_the_books_agree(jobs):
    budget, new = Budget(10**6), 0
    for account, keys, quota in jobs:
        job = budget.open("train", account, quota)
        try:
            job.charge(keys)
        except BudgetSpent:
            assert job.new == []
        assert len(job.new) <= quota
        new += len(job.new)
    assert budget.spent("train") == new
    assert budget.left == 10**6 - new


@given(
    st.lists(
        st.tuples(st.sampled_from(["train", "select"]), st.sampled_from(["", "a"]), KEYS),
        max_size=10,
    ),
    st.integers(0, 10),
)
def test_a_restored_budget_charges_like_the_one_that_was_lost(jobs, killed):
    """Cut off after some jobs; what was taken until then is what comes back."""
    whole, lost, lines = Budget(50), Budget(50), []
    for purse, account, keys in jobs[:killed]:
        for budget in (whole, lost):
            budget.open(purse, account).charge(keys)
        taken = lost.take()
        lines += [
            json.dumps({"purse": p, "account": a, "keys": new}) for (p, a), new in taken.items()
        ]
    again = Budget(50)
    again.restore(map(json.loads, lines))
    for purse, account, keys in jobs[killed:]:
        one, other = (budget.open(purse, account) for budget in (whole, again))
        one.charge(keys)
        other.charge(keys)
        assert one.new == other.new
    for purse in ("train", "select"):
        assert whole.spent(purse) == again.spent(purse)
    assert again.take().keys() <= whole.take().keys()


def test_taking_gathers_the_jobs_of_an_account_and_empties():
    budget = Budget(100)
    for keys in ([A, B], [B, C]):
        budget.open("train", "a").charge(keys)
    budget.open("train", "b")
    assert budget.take() == {("train", "a"): [key.hex() for key in (A, B, C)]}
    assert budget.take() == {}
