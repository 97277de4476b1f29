"""What the laws of boxes ask: three prompts of a kind on a side, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fedbbpt.black_box import AtomicBox
from fedbbpt.errors import ConfigError
from fedbbpt.prompts.soft import Soft
from fedbbpt.random import stream
from fedbbpt.testing._pictures import PICTURES, Shade
from fedbbpt.testing._require import require
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


def cases_for(box: AtomicBox, examples: Sequence[Any] | None = None) -> list[Case]:
    """Three prompts of every kind on every side that the box accepts.

    Soft prompts need the box's vocabulary, and so do token prompts. Left out, examples are
    pictures where the box sees such, else texts.
    """
    if examples is None:
        examples = EXAMPLES if box.vision is None else PICTURES
    cases = [case for side in sorted(box.sides) for case in _on(box, side, WORDS, tuple(examples))]
    require(cases, f"{box.name} takes {sorted(box.accepts)}: no prompt of the kit fits")
    return cases


def word_cases_for(box: AtomicBox) -> list[Case]:
    """The same without labels, on the text side; none for a box that gives no text."""
    if "text" not in box.gives:
        return []
    cases = _on(box, "text", (), EXAMPLES) if "text" in box.sides else []
    require(cases, f"{box.name} gives text, but no prompt of the kit fits")
    return cases


def _on(
    box: AtomicBox, side: str, labels: tuple[str, ...], examples: tuple[Any, ...]
) -> list[Case]:
    """The cases of one side."""
    start = _start(box, side, labels)
    template, made = start.template, list[Sequence[RenderedPrompt]]()
    if side == "image":
        shades = (None, Shade(0.2), Shade(-0.1))
        made += [[replace(start, visual=visual) for visual in shades]] * ("image" in box.accepts)
    elif "text" in box.accepts:
        texts = [template, f"So {template}", f"Well, {template}"]
        made.append([replace(start, template=t) for t in texts])
    if side != "image" and box.vocabulary is not None:
        if "tokens" in box.accepts:
            ids = [int(i) for i in box.vocabulary.ordinary()[:4]]
            tokens = [tuple(ids[:2]), tuple(ids[1:3]), tuple(ids[1:4])]
            for place in ("before", "after"):
                made.append([replace(start, tokens=(t,), place=place) for t in tokens])
            if side == "label":
                turns = [(*tokens[i:], *tokens[:i]) for i in range(len(WORDS))]
                made.append([replace(start, tokens=turn) for turn in turns])
        if "soft" in box.accepts:
            for mode, per_class in (("add", False), ("insert", False), ("add", side == "label")):
                soft = Soft(box.vocabulary, template, WORDS, side, mode, 2, "", 4, per_class)
                points = stream(0, "kit").standard_normal((3, *soft.space.shape))
                made.append([replace(prompt, labels=labels) for prompt in soft.render(points)])
    return [Case(tuple(prompts), examples) for prompts in made]


def _start(box: AtomicBox, side: str, labels: tuple[str, ...]) -> RenderedPrompt:
    """The kit's manual prompt, with a mask where the box needs one."""
    start = RenderedPrompt(TEMPLATES[side], labels, side)
    try:
        box.prepare(start)
    except ConfigError:
        start = replace(start, template=start.template + " {mask}")
        box.prepare(start)
    return start
