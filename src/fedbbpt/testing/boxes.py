"""The laws of a box: ``check_box(MyBox(...))``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.errors import ConfigError
from fedbbpt.prompts.soft import Soft
from fedbbpt.protocols import AtomicBox
from fedbbpt.random import stream
from fedbbpt.testing._pictures import PICTURES, Shade
from fedbbpt.testing._require import bits, require
from fedbbpt.types import RenderedPrompt

EXAMPLES = (
    "a lovely story, and moving",
    "dull",
    "the film was rather weak, and its story boring",
    "great",
)
TEMPLATES = {"label": "It was {label}.", "text": "{text} All in all it was", "image": "a {label}"}
WORDS = ("terrible", "great", "odd")


class Case(NamedTuple):
    """What a law asks a box: three different prompts of one kind on one side, and examples."""

    prompts: tuple[RenderedPrompt, ...]
    examples: tuple[Any, ...]


Law = Callable[[AtomicBox, Case], None]


def check_box(box: AtomicBox, cases: Sequence[Case] | None = None) -> None:
    """Try every law.

    Args:
        box: without a wrapper, or with any.
        cases: what to ask; left out, prompts of every kind and side that the box accepts.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    for case in cases_for(box) if cases is None else cases:
        for law in LAWS:
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


def cases_for(box: AtomicBox, examples: Sequence[Any] | None = None) -> list[Case]:
    """Three prompts of every kind on every side that the box accepts.

    Soft prompts need the box's vocabulary, and so do token prompts. Left out, examples are
    pictures where the box sees such, else texts.
    """
    cases: list[Case] = []
    if examples is None:
        examples = EXAMPLES if box.vision is None else PICTURES
    for side in sorted(box.sides):
        start = _start(box, side)
        template = start.template
        if side == "image":
            shaded = [replace(start, visual=visual) for visual in (None, Shade(0.2), Shade(-0.1))]
            cases += [Case(tuple(shaded), tuple(examples))] if "image" in box.accepts else []
            continue
        if "text" in box.accepts:
            texts = [template, f"So {template}", f"Well, {template}"]
            cases.append(Case(tuple(replace(start, template=t) for t in texts), tuple(examples)))
        if box.vocabulary is None:
            continue
        if "tokens" in box.accepts:
            ids = [int(i) for i in box.vocabulary.ordinary()[:4]]
            tokens = [tuple(ids[:2]), tuple(ids[1:3]), tuple(ids[1:4])]
            for place in ("before", "after"):
                made = [replace(start, tokens=(t,), place=place) for t in tokens]
                cases.append(Case(tuple(made), tuple(examples)))
            if side == "label":
                turns = [(*tokens[i:], *tokens[:i]) for i in range(len(WORDS))]
                made = [replace(start, tokens=turn) for turn in turns]
                cases.append(Case(tuple(made), tuple(examples)))
        if "soft" in box.accepts:
            for mode, per_class in (("add", False), ("insert", False), ("add", side == "label")):
                soft = Soft(box.vocabulary, template, WORDS, side, mode, 2, "", 4, per_class)
                points = stream(0, "kit").standard_normal((3, *soft.space.shape))
                cases.append(Case(tuple(soft.render(points)), tuple(examples)))
    require(cases, f"{box.name} takes {sorted(box.accepts)}: no prompt of the kit fits")
    return cases


def _start(box: AtomicBox, side: str) -> RenderedPrompt:
    """The kit's manual prompt, with a mask where the box needs one."""
    start = RenderedPrompt(TEMPLATES[side], WORDS, side)
    try:
        box.prepare(start)
    except ConfigError:
        start = replace(start, template=start.template + " {mask}")
        box.prepare(start)
    return start


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
        changes["label"] = replace(first, labels=(first.labels[0] + "ly", *first.labels[1:]))
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
