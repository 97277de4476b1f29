"""Sealed answers: who asked reads them, and nobody else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.boxes._forms import Content, Pairs, Prompted
from fedbbpt.boxes._written import seal, unseal
from fedbbpt.errors import ConfigError
from fedbbpt.testing._pictures import PICTURES
from fedbbpt.types import RenderedPrompt

ASKED = RenderedPrompt("Shorten: {text}\nShort:", (), "text")
OTHER = replace(ASKED, template="Lengthen: {text}\nLong:")
ANSWER = "Ms. Quinby was seen on 3 May with a fever."
TEXT = "Ms. Quinby came in on the third of May; she had a fever."


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text())
def test_what_is_sealed_is_opened(answer, text):
    row = seal(answer, "box", ASKED, text)
    assert row.dtype == np.uint8 and row.shape == (16 + len(answer.encode()),)
    assert unseal(row, "box", ASKED, text) == answer
    assert row.tobytes() == seal(answer, "box", ASKED, text).tobytes()


@pytest.mark.parametrize(
    "example", [TEXT, 7, np.arange(3), PICTURES[0]], ids=lambda x: str(type(x))
)
def test_another_question_opens_nothing(example):
    row = seal(ANSWER, "box", ASKED, example)
    assert unseal(row, "box", ASKED, example) == ANSWER
    soft = replace(ASKED, soft=(np.zeros((2, 4), np.float32),))
    for question in (
        ("another", ASKED, example),
        ("box", OTHER, example),
        ("box", soft, example),
        ("box", ASKED, TEXT + " "),
        ("box", ASKED, PICTURES[1]),
    ):
        assert unseal(row, *question) is None


def test_a_row_that_was_changed_or_is_none_is_no_answer():
    row = seal(ANSWER, "box", ASKED, TEXT)
    for i in range(len(row)):
        changed = row.copy()
        changed[i] ^= 1
        assert unseal(changed, "box", ASKED, TEXT) is None
    for broken in (
        row[:-1],
        row[:16],
        row[:5],
        row[:0],
        row.astype(np.float64),
        np.array([np.nan]),
    ):
        assert unseal(broken, "box", ASKED, TEXT) is None
    none = seal(None, "box", ASKED, TEXT)
    assert np.isnan(none).all() and unseal(none, "box", ASKED, TEXT) is None
    assert unseal(seal("", "box", ASKED, TEXT), "box", ASKED, TEXT) == ""


def test_a_row_shows_nothing_and_two_answers_share_no_key_stream():
    one, other = (seal(text * 40, "box", ASKED, TEXT) for text in ("aaaa", "aaab"))
    masks = [row[16:] ^ np.frombuffer(b, np.uint8) for row, b in
             ((one, b"aaaa" * 40), (other, b"aaab" * 40))]  # fmt: skip
    assert (masks[0] == masks[1]).mean() < 0.1 and one[:16].tobytes() != other[:16].tobytes()
    assert ANSWER.encode()[:8] not in seal(ANSWER, "box", ASKED, TEXT).tobytes()
    # What the row is kept under does not open it.
    atom = Pairs("box").atom(Content(ASKED, -1, TEXT))
    assert unseal(seal(ANSWER, "box", ASKED, TEXT), "box", ASKED, atom.key) is None


def test_half_a_character_is_a_question_mark():
    assert unseal(seal("a\ud800b", "box", ASKED, "x"), "box", ASKED, "x") == "a?b"


@pytest.mark.parametrize("form", [Pairs, Prompted])
def test_a_grid_is_opened_answer_by_answer(form):
    form = form("box")
    grid = form.split([ASKED, OTHER, ASKED], [TEXT, "b", TEXT])
    assert len(grid.atoms) == 4
    rows = [
        seal(None if x == "b" and p is OTHER else f"{p.template[0]} of {x}", "box", p, x)
        for p, x in (atom.data for atom in grid.atoms)
    ]
    reply = grid.assemble(rows)
    first = (f"S of {TEXT}", "S of b", f"S of {TEXT}")
    assert reply.texts == (first, (f"L of {TEXT}", None, f"L of {TEXT}"), first)
    assert reply.scores.shape == (3, 3, 0)
    # Rows at the wrong places are no answers.
    assert grid.assemble(rows[1:] + rows[:1]).texts == ((None,) * 3,) * 3


def test_a_grid_has_labels_or_none():
    from fedbbpt.boxes.function import Function

    labelled = replace(ASKED, labels=("a", "b"))
    both = Function(lambda p, x: [["so"] * len(x)], gives=("scores", "text"))
    with pytest.raises(
        ConfigError, match="some prompts of a grid have labels and others have none"
    ):
        both([ASKED, labelled], [TEXT])
