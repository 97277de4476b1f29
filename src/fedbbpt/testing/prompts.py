"""The laws of a prompt: ``check_prompt(MyPrompt(...))``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.protocols import BlackBox, Prompt
from fedbbpt.random import stream
from fedbbpt.senses import Vocabulary
from fedbbpt.testing._require import bits, require
from fedbbpt.types import RenderedPrompt

Law = Callable[[Prompt], None]


def check_prompt(prompt: Prompt) -> None:
    """Try every law.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    for law in LAWS:
        law(prompt)


def check_start(
    prompt: Prompt, start: RenderedPrompt, box: BlackBox, examples: Sequence[Any]
) -> None:
    """The zero point is the starting prompt: a box scores both alike, within 1e-5.

    Args:
        prompt: the prompt.
        start: what its zero point stands for, e.g. the manual prompt as plain text.
        box: takes both.
        examples: what to ask about.

    Raises:
        AssertionError: the scores differ.
    """
    zero = prompt.render(np.zeros((1, *prompt.space.shape)))
    gap = float(np.abs(box(zero, examples).scores - box([start], examples).scores).max())
    require(gap <= 1e-5, f"scores at the zero point are off those of the start by {gap:.1e}")


def check_text(prompt: Prompt, vocabulary: Vocabulary) -> None:
    """A discrete prompt is its text: a box's vocabulary reads it as the very tokens rendered.

    Args:
        prompt: sends tokens.
        vocabulary: of the box that it was made for.

    Raises:
        AssertionError: a text is read as other tokens.
    """
    for rendered in prompt.render(some_points(prompt, 100)):
        texts = prompt.read(rendered)
        require(len(texts) == len(rendered.tokens), f"{rendered.tokens} was read as {texts}")
        for text, ids in zip(texts, rendered.tokens, strict=True):
            again = vocabulary.tokenise(text)
            require(again == list(ids), f"{ids} was read as {text!r}, which is {again}")


def some_points(prompt: Prompt, count: int = 5) -> Array:
    """(count, *shape) different points, the zero point first."""
    points = stream(0, "kit").standard_normal((count, *prompt.space.shape))
    points[0] = 0.0
    return points


def _keys(rendered: Sequence[RenderedPrompt]) -> list[Any]:
    return [(p.kind, p.side, p.labels, p.keys) for p in rendered]


# --- the laws ------------------------------------------------------------------------------------


def one_prompt_per_point(prompt: Prompt) -> None:
    """K points give K prompts for the same classes, of a kind that the class declares."""
    rendered = prompt.render(some_points(prompt))
    require(len(rendered) == 5, f"5 points gave {len(rendered)} prompts")
    kinds, sends = {p.kind for p in rendered}, prompt.sends
    # A prompt of tokens that has none is plain text.
    known = sends | {"text"} if "tokens" in sends else sends
    require(kinds <= known, f"rendered prompts are {sorted(kinds)}, but sends is {sorted(sends)}")
    classes = {p.labels for p in rendered}
    require(len(classes) == 1 and len(rendered[0].labels) > 1, f"labels differ: {classes}")
    for each in rendered:
        require(each.side in ("label", "text"), f"a prompt stands on the side '{each.side}'")
        require(each.place in ("before", "after"), f"tokens stand '{each.place}' the template")
        for what in ("soft", "tokens"):
            many, most = len(getattr(each, what)), len(each.labels) if each.side == "label" else 1
            require(many in (0, 1, most), f"{many} {what} prompts for {classes}")
        many = len(prompt.read(each))
        require(many in (0, 1, len(each.labels)), f"{many} texts were read from {classes}")
        require(len(each.keys) == len(each.labels), f"{len(each.keys)} keys for {classes}")


def rendering_is_pure(prompt: Prompt) -> None:
    """The same points give the same prompts, and stay as they were."""
    points = some_points(prompt)
    before = bits(points)
    first, second = _keys(prompt.render(points)), _keys(prompt.render(points.copy()))
    require(first == second, "rendering the same points twice gave different prompts")
    require(bits(points) == before, "render changed the points it was given")
    points[0] = points[1]
    require(
        not points.size or _keys(prompt.render(points)) != first,
        "render looks at the array, not its numbers",
    )


def company_does_not_matter(prompt: Prompt) -> None:
    """A prompt is the same to the bit whatever is rendered beside it.

    So what was scored in a batch is what is exported alone.
    """
    points = some_points(prompt)
    together = _keys(prompt.render(points))
    backwards = _keys(prompt.render(points[::-1]))[::-1]
    require(together == backwards, "prompts depend on the order of the points")
    for count in (1, 2, 3):
        apart = [
            key
            for start in range(0, len(points), count)
            for key in _keys(prompt.render(points[start : start + count]))
        ]
        require(together == apart, f"rendered {count} at a time, the prompts have other bits")


def equal_points_equal_keys(prompt: Prompt) -> None:
    """Repeated points give equal keys; different points give different ones."""
    points = some_points(prompt)
    keys = _keys(prompt.render(points[[0, 1, 1, 2, 0]]))
    require(keys[1] == keys[2] and keys[0] == keys[4], "equal points gave different keys")
    require(
        0 in prompt.space.shape or len({key[-1] for key in keys}) == 3,
        "different points gave equal keys",
    )


def classes_are_separate(prompt: Prompt) -> None:
    """In a separable space a row of the point moves the prompt of its own class alone."""
    if not prompt.space.separable:
        return
    points = np.zeros((2, *prompt.space.shape))
    other = some_points(prompt, 2)[1]
    for row in range(prompt.space.shape[0]):
        points[1] = 0.0
        points[1, row] = other[row]
        still, moved = (p.keys for p in prompt.render(points))
        changed = [c for c, (a, b) in enumerate(zip(still, moved, strict=True)) if a != b]
        require(changed == [row], f"row {row} of the point changed the prompts of {changed}")


LAWS: tuple[Law, ...] = (
    one_prompt_per_point,
    rendering_is_pure,
    company_does_not_matter,
    equal_points_equal_keys,
    classes_are_separate,
)
