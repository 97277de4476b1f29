"""What a box keeps that answers prompts without labels, beside the laws of all boxes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fedbbpt.black_box import AtomicBox
from fedbbpt.testing._cases import Case
from fedbbpt.testing._require import require
from fedbbpt.types import RenderedPrompt


def answers_in_words(box: AtomicBox, case: Case) -> None:
    """K x B texts and no scores, no label named."""
    reply = box(*case)
    shape = (len(case.prompts), len(case.examples), 0)
    require(reply.scores.shape == shape, f"scores have shape {reply.scores.shape}, not {shape}")
    said = _said(box, *case)
    fits = len(said) == shape[0] and all(len(row) == shape[1] for row in said)
    require(fits, f"texts are {[len(row) for row in said]}, not {shape[0]} rows of {shape[1]}")
    whole = all(isinstance(text, str) for row in said for text in row)
    require(whole, "an answer is no text, though nothing failed")


def half_a_grid_of_words(box: AtomicBox, case: Case) -> None:
    """No examples, no prompts, or neither."""
    prompts, examples = case
    require(_said(box, prompts, ()) == ((),) * len(prompts), "without examples there are texts")
    require(box((), examples).scores.shape[:2] == (0, len(examples)), "without prompts: scores")
    require(not box((), ()).texts, "an empty grid has texts")


def words_do_not_depend_on_the_rest(box: AtomicBox, case: Case) -> None:
    """A question has one answer: whatever is asked beside it, in whatever order, however often."""
    prompts, examples = case
    said = _said(box, *case)
    back = _said(box, prompts[::-1], examples[::-1])
    require(said == tuple(row[::-1] for row in back[::-1]), "another order gave other texts")
    again = _said(box, (*prompts, prompts[0]), (*examples, examples[0]))
    repeated = tuple((*row, row[0]) for row in (*said, said[0]))
    require(again == repeated, "repeats in a grid changed texts")
    alone = _said(box, prompts[:1], examples[1:2])
    require(alone == ((said[0][1],),), "a question asked alone was answered otherwise")
    rows = [row.dtype for row in box.evaluate(box.split(*case).atoms, [0])]
    require(rows == [np.uint8], f"a row of words is {rows}; it must be sealed, and uint8")


def threads_agree_in_words(box: AtomicBox, case: Case) -> None:
    """Calls at the same time give the same texts as calls one after another."""
    alone = _said(box, *case)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda _: _said(box, *case), range(2)))
    require(together == [alone] * 2, "two threads at once got other texts than one")


def _said(
    box: AtomicBox, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]
) -> tuple[tuple[str | None, ...], ...]:
    texts = box(prompts, examples).texts
    require(texts is not None, "the prompts have no labels, and the reply has no texts")
    return texts or ()
