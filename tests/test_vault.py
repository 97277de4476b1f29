"""What a node keeps to itself: a secret for each account and run, and what it said once."""

from itertools import product

import pytest

from fedbbpt.ledger import Ledger


@pytest.fixture
def opened(tmp_path):
    ledgers = []

    def open_(run="run", file="ledger.sqlite"):
        ledger = Ledger()
        ledger.open(tmp_path / file)
        ledger.run = run
        ledgers.append(ledger)
        return ledger

    yield open_
    for ledger in ledgers:
        ledger.close()


def test_a_secret_is_made_once_and_survives_the_process(opened):
    first = opened().secret("ash")
    assert len(first) == 32
    assert opened().secret("ash") == first


def test_no_two_accounts_runs_or_ledgers_have_the_same(opened):
    """Names are told apart from each other, too: the account "b" of "a" is not "ab" of ""."""
    places = list(product(("", "a", "ab"), ("", "a", "b", "ab"), ("x.sqlite", "y.sqlite")))
    made = {opened(run, file).secret(account) for run, account, file in places}
    assert len(made) == len(places)


def test_what_was_said_first_stays(opened):
    ledger = opened()
    assert ledger.once("ash", 3, "words", b"one") == b"one"
    assert ledger.once("ash", 3, "words", b"other") == b"one"
    assert opened().once("ash", 3, "words", b"other") == b"one"
    for account, round, what, run in (
        ("birch", 3, "words", "run"),
        ("ash", 4, "words", "run"),
        ("ash", 3, "answer", "run"),
        ("ash", 3, "words", "another"),
    ):
        assert opened(run).once(account, round, what, b"new") == b"new"
