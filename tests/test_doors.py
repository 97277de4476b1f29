"""The way to the models: who writes, how long, and what caps keep back for the final pass."""

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from fedbbpt import registry
from fedbbpt.config import resolve
from fedbbpt.doors import writer_of
from fedbbpt.errors import BudgetSpent
from fedbbpt.ledger import Ledger
from fedbbpt.storage import Hold
from fedbbpt.till import Caps, Tills
from fedbbpt.types import Receipt, RenderedPrompt
from fedbbpt.writing import Writing

WORDS, LABELS = RenderedPrompt("{text}", ()), RenderedPrompt("{text}", ("yes", "no"))


def box(**options):
    pytest.importorskip("httpx2")
    given = {"url": "http://127.0.0.1:9/v1", "model": "m", "key_env": "", **options}
    return registry.make("boxes", "openai_http", given, "box")


def config(**tables):
    prompt = {"instruction": "Do.", "template": "{instruction} {text}"}
    tree = {"task": "generate", "data": {"train": ""}, "prompt": prompt, **tables}
    return resolve({**tree, "method": {"name": "fedinstruct"}}, Path())


def test_a_follower_that_writes_gets_room_for_its_proposals():
    follower, writing = box(reply_tokens=20), Writing(proposals=10)
    writer = writer_of(config(), follower, writing)
    assert writer.longest(WORDS) == 480 and writer.longest(LABELS) == follower.longest(LABELS)
    assert follower.longest(WORDS) == 20 and writer.wire is follower.wire
    asked = [one.split([WORDS], ["x"]).atoms[0].key for one in (follower, writer)]
    assert asked[0] != asked[1] and b'"max_tokens": 480' in writer.request(WORDS, "x").body
    assert writer_of(config(), follower, None) is follower
    assert writer_of(config(), box(reply_tokens=480), writing).longest(WORDS) == 480


def test_a_writer_of_its_own_keeps_the_length_that_it_was_given():
    table = {"kind": "openai_http", "url": "http://127.0.0.1:9/v1", "model": "w", "key_env": ""}
    long = writer_of(config(writer=table), box(), Writing(proposals=10))
    assert long.model == "w" and long.longest(WORDS) == 480
    short = writer_of(config(writer={**table, "reply_tokens": 99}), box(), Writing(proposals=10))
    assert short.longest(WORDS) == 99


def test_what_writing_costs_says_nothing_of_the_final_pass():
    """Ten requests at a tenth of a dollar are to come; one for a dollar was for writing."""
    for writes, fits in ((True, True), (False, False)):
        tills = Tills(Caps(usd=3.0, final=10), lambda *_: None, dict)
        dear = tills.open("a", 0, False, writes)
        dear.settle(dear.reserve(1, 1.0), Receipt(0.0, 200, 1, 1, 1.0), {})
        plain = tills.open("a", 1, False)
        if fits:
            plain.settle(plain.reserve(1, 0.1), Receipt(0.0, 200, 1, 1, 0.1), {})
            assert plain.reserve(1, 0.1) == Hold(1, 0.1)  # 1.1 spent, 1.1 kept, 0.1 asked
            with pytest.raises(BudgetSpent):
                plain.reserve(1, 0.9)
        else:
            with pytest.raises(BudgetSpent):
                plain.reserve(1, 0.1)


def test_what_an_earlier_process_paid_for_writing_says_nothing_either(tmp_path):
    ledger = Ledger()
    ledger.run = "run"
    ledger.open(tmp_path / "ledger.sqlite")
    caps = Caps(usd=3.0, final=10)
    bill = Receipt(0.0, 200, 1, 1, 1.0)
    first = Tills(caps, ledger.book, ledger.bills, partial(ledger.bills, True))
    for cost, writes in ((1.0, True), (0.1, False)):
        till = first.open("a", 0, False, writes)
        till.settle(till.reserve(1, cost), bill._replace(usd=cost), {})
    assert ledger.bills(True)["a"].usd == 1.0 and ledger.bills()["a"].requests == 2
    resumed = Tills(caps, ledger.book, ledger.bills, partial(ledger.bills, True))
    assert resumed.open("a", 1, False).reserve(1, 0.1) == Hold(1, 0.1)
    ledger.close()


def test_a_ledger_of_an_earlier_version_gets_the_column_that_it_lacks(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TABLE requests(run TEXT, account TEXT, round INTEGER, at REAL, status INTEGER,"
            "prompt_tokens INTEGER, completion_tokens INTEGER, usd REAL, seconds REAL, "
            "named INTEGER, rows INTEGER)"
        )
        db.execute("INSERT INTO requests VALUES ('run', 'a', 0, 0, 200, 5, 5, .25, 0, 1, 1)")
        db.commit()
    ledger = Ledger()
    ledger.run = "run"
    ledger.open(path)
    ledger.book("a", 1, Receipt(0.0, 200, 1, 1, 0.5, writes=True), {})
    assert ledger.bills()["a"].usd == 0.75 and ledger.bills(True)["a"].usd == 0.5
    ledger.close()
