"""The laws of a box: ``check_box(MyBox(...))``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from fedbbpt.black_box import AtomicBox
from fedbbpt.testing._cases import EXAMPLES, TEMPLATES, WORDS, Case, cases_for, word_cases_for
from fedbbpt.testing._pictures import Shade
from fedbbpt.testing._require import bits, require
from fedbbpt.testing._word_laws import (
    answers_in_words,
    half_a_grid_of_words,
    threads_agree_in_words,
    words_do_not_depend_on_the_rest,
)
from fedbbpt.types import RenderedPrompt

# As sorted() has it, which tests/test_house.py asks for.
__all__ = [  # noqa: RUF022
    "Case", "EXAMPLES", "LAWS", "TEMPLATES", "WORDS", "WORD_LAWS",
    "cases_for", "check_box", "check_names", "word_cases_for",
]  # fmt: skip

Law = Callable[[AtomicBox, Case], None]


def check_box(box: AtomicBox, cases: Sequence[Case] | None = None) -> None:
    """Try every law.

    Args:
        box: without a wrapper, or with any.
        cases: what to ask; left out, prompts of every kind and side that the box accepts, and the
            same without labels if it gives text.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    if cases is None:
        cases = [*(cases_for(box) if "scores" in box.gives else ()), *word_cases_for(box)]
    for case in cases:
        for law in LAWS if case.prompts[0].labels else WORD_LAWS:
            law(box, case)


def check_names(box: AtomicBox, other: AtomicBox, case: Case | None = None) -> None:
    """Two boxes whose answers may differ share no key.

    Args:
        box: the box.
        other: one of its kind with another model, revision or decoding.
        case: what to ask; left out, the first of :func:`cases_for`.
    """
    case = case or cases_for(box)[0]
    require(box.name != other.name, f"both boxes are named '{box.name}'")
    shared = set(_keys(box, case.prompts, case.examples)) & set(
        _keys(other, case.prompts, case.examples)
    )
    require(not shared, f"{box.name} and {other.name} share {len(shared)} keys")


def _keys(box: AtomicBox, prompts: Sequence[Any], examples: Sequence[Any]) -> list[bytes]:
    return [atom.key for atom in box.split(prompts, examples).atoms]


# --- the laws ------------------------------------------------------------------------------------


def declares_itself(box: AtomicBox, case: Case) -> None:
    """Name, kinds, sides and answers are declared in the known words."""
    require(isinstance(box.name, str) and box.name, f"the box's name is {box.name!r}")
    known = {
        "accepts": {"text", "tokens", "soft", "image"},
        "sides": {"label", "text", "image"},
        "gives": {"scores", "embeddings", "text", "gradients", "classes"},
    }
    for attribute, words in known.items():
        value = getattr(box, attribute)
        fits = isinstance(value, frozenset) and value and value <= words
        require(fits, f"{attribute} is {value!r}; it must be a frozenset of {sorted(words)}")
    if box.vocabulary is not None:
        ids = box.vocabulary.tokenise(EXAMPLES[0])
        shape = box.vocabulary.embed(ids).shape
        require(shape == (len(ids), box.vocabulary.hidden), f"embed gave shape {shape}")


def split_is_pure(box: AtomicBox, case: Case) -> None:
    """Splitting twice gives the same distinct atoms in the same order, equal prompts equal keys."""
    keys = _keys(box, *case)
    require(keys == _keys(box, *case), "splitting twice gave different atoms")
    require(len(set(keys)) == len(keys), "the atoms of a grid are not distinct")
    require(all(isinstance(key, bytes) for key in keys), "keys must be bytes")
    copies = [replace(prompt, template=str(prompt.template)) for prompt in case.prompts]
    require(keys == _keys(box, copies, case.examples), "equal prompts have different keys")


def answers_the_grid(box: AtomicBox, case: Case) -> None:
    """Scores are finite float64 of shape (K, B, C)."""
    scores = box(*case).scores
    expected = (len(case.prompts), len(case.examples), len(case.prompts[0].labels))
    require(scores.shape == expected, f"scores have shape {scores.shape}, expected {expected}")
    require(scores.dtype == np.float64, f"scores are {scores.dtype}, not float64")
    require(np.isfinite(scores).all(), "scores are not all finite")


def half_a_grid(box: AtomicBox, case: Case) -> None:
    """No examples, no prompts, or neither: replies of size zero, and embeddings where given."""
    prompts, examples = case
    k, b, c = len(prompts), len(examples), len(prompts[0].labels)
    shape = box(prompts, ()).scores.shape
    require(shape == (k, 0, c), f"without examples scores have shape {shape}")
    reply = box((), examples)
    require(reply.scores.shape[:2] == (0, b), f"without prompts: {reply.scores.shape}")
    require(box((), ()).scores.size == 0, "an empty grid has scores")
    alone, whole = set(_keys(box, prompts, ())), set(_keys(box, *case))
    require(alone <= whole, "what depends on prompts alone is not part of the grid")
    if "embeddings" in box.gives:
        held = reply.embeddings
        fits = held is not None and held.ndim == 2 and len(held) == b and np.isfinite(held).all()
        require(fits, "the box gives embeddings, but not of the bare examples")


def rows_do_not_depend_on_what_is_wanted(box: AtomicBox, case: Case) -> None:
    """A row has the same bits whichever others are wanted: known rows never regroup the rest."""
    atoms = box.split(*case).atoms
    rows = box.evaluate(atoms, range(len(atoms)))
    require(len(rows) == len(atoms), f"{len(rows)} rows for {len(atoms)} atoms")
    flat = all(isinstance(row, np.ndarray) and row.ndim == 1 for row in rows)
    require(flat, "rows must be arrays of one dimension, as a ledger keeps them")
    every = list(range(len(atoms)))
    for wanted in (every[::2], every[::-3], every[1:2], every[-1:], []):
        some = box.evaluate(atoms, wanted)
        same = bits(some) == bits([rows[i] for i in wanted])
        require(same, f"rows {wanted} of {len(atoms)} have other bits when asked for by themselves")


def keys_tell_apart(box: AtomicBox, case: Case) -> None:
    """Whatever can change the answer changes a key."""
    prompts, examples = case
    first, known = prompts[0], set(_keys(box, *case))
    for i in range(len(prompts)):
        some = set(_keys(box, [prompts[i]], examples))
        rest = set(_keys(box, [p for j, p in enumerate(prompts) if j != i], examples))
        require(some - rest, f"prompt {i} has no key of its own")
    changes: dict[str, RenderedPrompt] = {}
    if first.side == "image":
        # What its texts change depends on the box: some answer with classes of their own.
        changes["visual"] = replace(first, visual=Shade(0.1))
    else:
        if "scores" in box.gives:
            labels = (first.labels[0] + "ly", *first.labels[1:]) if first.labels else ("great",)
            changes["label"] = replace(first, labels=labels)
        changes["template"] = replace(first, template="Then " + first.template)
    if first.soft:
        changes["soft"] = replace(first, soft=tuple(s + np.float32(0.01) for s in first.soft))
        other = "add" if first.mode == "insert" else "insert"
        changes["mode"] = replace(first, mode=other)
    if first.tokens:
        changes["tokens"] = replace(first, tokens=tuple(ids[::-1] for ids in first.tokens))
        other = "before" if first.place == "after" else "after"
        changes["place"] = replace(first, place=other)
    for what, changed in changes.items():
        new = set(_keys(box, [changed], examples)) - known
        require(new, f"another {what} has the same keys")
    for i in range(len(examples)):
        some = set(_keys(box, prompts, [examples[i]]))
        rest = set(_keys(box, prompts, [x for j, x in enumerate(examples) if j != i]))
        require(some - rest, f"example {i} has no key of its own")


def repeats_are_free(box: AtomicBox, case: Case) -> None:
    """A repeated prompt or example is the same atom and has the same scores."""
    prompts, examples = (*case.prompts, case.prompts[0]), (*case.examples, case.examples[0])
    require(_keys(box, prompts, examples) == _keys(box, *case), "repeats in a grid made more atoms")
    # The rows are the same; what a box makes of them may be one product, whose last bits change
    # with its shape.
    scores, plain = box(prompts, examples).scores, box(*case).scores
    gap = max(
        float(np.abs(some).max())
        for some in (
            scores[:-1, :-1] - plain,
            scores[-1] - scores[0],
            scores[:, -1] - scores[:, 0],
        )
    )
    require(gap <= 1e-9, f"repeats in a grid changed scores by {gap:.1e}")


def gradients_are_slopes(box: AtomicBox, case: Case) -> None:
    """Where a box gives gradients of soft prompts: the loss is that of its scores, and along the
    gradient it rises as the gradient says.
    """
    prompt, examples = case.prompts[1], case.examples
    if "gradients" not in box.gives or not prompt.soft:
        return
    rows = np.arange(len(examples))
    targets = rows % len(prompt.labels)

    def loss(step: float) -> float:
        soft = tuple(
            (m + step * d).astype(np.float32) for m, d in zip(prompt.soft, along, strict=True)
        )
        scores = box([replace(prompt, soft=soft)], examples).scores[0]
        return -float(scores[rows, targets].mean())

    found, slope = box.gradient(prompt, examples, targets)
    steepness = float(np.linalg.norm(slope))
    require(slope.shape == np.shape(prompt.soft), f"the gradient has shape {slope.shape}")
    require(steepness > 0, "the gradient is zero")
    along = slope / steepness
    gap = abs(found - loss(0.0))
    require(gap < 1e-4, f"the gradient's loss is off the scores' by {gap:.1e}")
    # Rows are float32: a step this long still tells their differences from their rounding.
    step = 1e-2
    rise = (loss(step) - loss(-step)) / (2 * step)
    off = abs(rise - steepness)
    require(off < 0.02 * steepness + 1e-4, f"the loss rises by {rise:.4g}, not {steepness:.4g}")


def threads_agree(box: AtomicBox, case: Case) -> None:
    """Calls at the same time give the same bits as calls one after another."""
    prompts, examples = case
    calls: list[tuple[Any, Any]] = [(prompts, examples), (prompts[:1], examples[1:])] * 2
    alone = [bits(box(*call).scores) for call in calls]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda call: bits(box(*call).scores), calls))
    require(alone == together, "two threads at once got other scores than one")


LAWS: tuple[Law, ...] = (
    declares_itself,
    split_is_pure,
    answers_the_grid,
    half_a_grid,
    rows_do_not_depend_on_what_is_wanted,
    keys_tell_apart,
    repeats_are_free,
    gradients_are_slopes,
    threads_agree,
)

WORD_LAWS: tuple[Law, ...] = (
    declares_itself,
    split_is_pure,
    answers_in_words,
    half_a_grid_of_words,
    rows_do_not_depend_on_what_is_wanted,
    keys_tell_apart,
    words_do_not_depend_on_the_rest,
    threads_agree_in_words,
)
"""What a box keeps that answers prompts without labels."""
