"""Answers in words through every wrapper and a ledger on disk: paid once, and told to nobody."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from fedbbpt.boxes.function import Function
from fedbbpt.budget import Budget
from fedbbpt.ledger import Ledger
from fedbbpt.testing.boxes import WORD_LAWS, Case
from fedbbpt.testing.faults import Faulty
from fedbbpt.testing.toys import CountingBox, MemoryStore
from fedbbpt.testing.wrappers import STANDARD, stacks
from fedbbpt.types import RenderedPrompt
from fedbbpt.wrappers.cached import Cached
from fedbbpt.wrappers.metered import Metered
from fedbbpt.wrappers.retrying import Retrying
from fedbbpt.wrappers.timed import Timed

TEMPLATES = ("Shorten what follows: {text}", "Who is it about? {text}", "Is it good? {text}")
PROMPTS = tuple(RenderedPrompt(template, (), "text") for template in TEMPLATES)
TEXTS = ("Ms. Quinby came with a fever", "Mr. Abernathy went home cured", "nobody came")
CASE = Case(PROMPTS, TEXTS)


def answer(prompts, examples):
    """Answers of every length, an empty one too."""
    return [[x[: len(p.template) - 15] if "o" in x else "" for x in examples] for p in prompts]


def box():
    return Function(answer, "words", gives=("text",))


SAID = box()(*CASE).texts


def silent(share):
    """The box, of which some atoms are never answered; and which."""
    holes = CountingBox(box(), nans=share, times=None)
    keys = [[atom.key for atom in box().split([p], TEXTS).atoms] for p in PROMPTS]
    return holes, [[holes.chosen("nans", share, key) for key in row] for row in keys]


@pytest.mark.parametrize("stack", [pytest.param(s, id=name) for name, s in stacks(STANDARD)])
def test_every_stack_passes_words_on(stack):
    for law in WORD_LAWS:
        law(stack(box()), CASE)
    assert stack(CountingBox(box(), raises=0.1, nans=0.3))(*CASE).texts == SAID


def test_what_is_not_answered_is_no_answer_is_dropped_and_not_kept():
    holes, picked = silent(0.4)
    store, account = MemoryStore(), Budget(100).open("train", "a")
    whole = Metered(Cached(Retrying(holes, sleep=lambda _: None), store), account)
    texts = whole(*CASE).texts
    assert 0 < sum(map(sum, picked)) < 9
    want = tuple(
        tuple(None if hole else text for hole, text in zip(*row, strict=True))
        for row in zip(picked, SAID, strict=True)
    )
    assert texts == want and "" in SAID[0]
    assert account.dropped == sum(map(sum, picked)) and len(store.rows) == 9 - account.dropped
    assert all(row.dtype == np.uint8 for row in store.rows.values())
    faulty = Faulty(box(), nans=0.4, seed=1)
    rows = faulty.evaluate(box().split(*CASE).atoms, range(9))
    assert {str(row.dtype) for row in rows} == {"uint8", "float64"}


def test_a_second_run_pays_nothing_and_the_file_tells_nothing(tmp_path):
    path = tmp_path / "ledger.sqlite"
    for run, paid in (("first", 9), ("second", 0)):
        ledger, inner = Ledger(), CountingBox(box())
        ledger.run = run
        ledger.open(path)
        account = Budget(100).open("train", "a")
        cached = Cached(Retrying(Timed(inner)), ledger.view("a", 0))
        assert Metered(cached, account)(*CASE).texts == SAID
        assert len(inner.asked) == paid and len(account.new) == 9
        assert (ledger.paid(), account.dropped) == (paid, 0)
        kept = b"".join(file.read_bytes() for file in tmp_path.glob("ledger.sqlite*"))
        private = [t for t in (*TEMPLATES, *TEXTS, *sum(SAID, ())) if len(t) > 3]
        assert len(private) == 10 and not [t for t in private if t.encode() in kept]
        ledger.close()
    with closing(sqlite3.connect(path)) as file:
        rows = [value for (value,) in file.execute("SELECT value FROM rows")]
    assert len(rows) == 9 and all(row.startswith(b"|u1:") for row in rows)
    assert {len(row) for row in rows} == {4 + 16 + len(t) for t in sum(SAID, ())}
