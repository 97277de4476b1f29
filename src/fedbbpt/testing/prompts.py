"""The laws of a prompt: ``check_prompt(MyPrompt(...))``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedbbpt import registry
from fedbbpt.arrays import Array
from fedbbpt.black_box import BlackBox
from fedbbpt.protocols import Prompt
from fedbbpt.random import stream
from fedbbpt.senses import Vocabulary
from fedbbpt.testing._require import bits, require
from fedbbpt.types import Picture, RenderedPrompt

Law = Callable[[Prompt], None]


def check_prompt(prompt: Prompt) -> None:
    """Try every law. A pool needs three points or more.

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


def check_pixels(prompt: Prompt, size: tuple[int, int]) -> None:
    """A visual prompt makes pictures of pictures: as large and in range, each by itself, and the
    same ones again once it was kept and made anew.

    Args:
        prompt: sends images.
        size: (H, W) of the model that it was made for.

    Raises:
        AssertionError: it does not.
    """
    numbers = stream(0, "kit pictures")
    pictures = [Picture(numbers.integers(0, 256, (9, 7 + i, 3), np.uint8)) for i in range(4)]
    shades = numbers.integers(0, 256, (4, *size, 3)) / np.float32(255)
    images = shades.astype(np.float32)
    images[:2] = images[:2].round()  # some of it at the ends of the range
    before = bits(images)
    for point in (*some_points(prompt), 10 * some_points(prompt)[1]):
        visual = prompt.render(point[None])[0].visual
        require((visual is None) == (not point.any()), "the zero point alone changes no picture")
        if visual is None:
            continue
        seen = visual.on(images, pictures)
        made = f"{seen.dtype} of shape {seen.shape}"
        require(seen.dtype == np.float32 and seen.shape == images.shape, f"pictures became {made}")
        require((seen >= 0).all() and (seen <= 1).all(), "pixels left the range from 0 to 1")
        require(bits(images) == before, "a prompt changed the pictures it was given")
        alone = [visual.on(images[i : i + 1], pictures[i : i + 1]) for i in range(4)]
        same = bits(np.concatenate(alone)) == bits(seen)
        require(same, "what becomes of a picture depends on those beside it")
        facts = json.loads(json.dumps(dict(visual.facts)))
        again = registry.find("prompts", facts["prompt"]).restored(facts, dict(visual.arrays))
        require(again.key == visual.key, "kept and made anew, a prompt has another key")
        require(bits(again.on(images, pictures)) == bits(seen), "made anew, it does other things")


def some_points(prompt: Prompt, count: int = 5) -> Array:
    """(count, *shape) points, the zero point first: different ones, or those of a pool in turn."""
    if prompt.space.points is not None:
        return prompt.space.points[np.arange(count) % len(prompt.space.points)]
    points = stream(0, "kit").standard_normal((count, *prompt.space.shape))
    points[0] = 0.0
    return points


def _keys(rendered: Sequence[RenderedPrompt]) -> list[Any]:
    return [(p.kind, p.side, p.labels, p.keys) for p in rendered]


# --- the laws ------------------------------------------------------------------------------------


def one_prompt_per_point(prompt: Prompt) -> None:
    """K points give K prompts for the same classes, of a kind that the class declares."""
    points = some_points(prompt)
    require(not points[0].any(), "the first point of a pool is not the zero point")
    rendered = prompt.render(points)
    require(len(rendered) == 5, f"5 points gave {len(rendered)} prompts")
    kinds, sends = {p.kind for p in rendered}, prompt.sends
    # A prompt of tokens that has none is plain text.
    known = sends | {"text"} if "tokens" in sends else sends
    require(kinds <= known, f"rendered prompts are {sorted(kinds)}, but sends is {sorted(sends)}")
    classes = {p.labels for p in rendered}
    # Without labels an answer in words is asked for.
    require(len(classes) == 1 and len(rendered[0].labels) != 1, f"labels differ: {classes}")
    for each in rendered:
        sides = ("image",) if "image" in sends else ("label", "text")
        require(each.side in sides, f"a prompt stands on the side '{each.side}'")
        require(each.place in ("before", "after"), f"tokens stand '{each.place}' the template")
        for what in ("soft", "tokens"):
            many, most = len(getattr(each, what)), len(each.labels) if each.side == "label" else 1
            require(many in (0, 1, most), f"{many} {what} prompts for {classes}")
        many = len(prompt.read(each))
        require(many in (0, 1, len(each.labels)), f"{many} texts were read from {classes}")
        require(len(each.keys) == max(1, len(each.labels)), f"{len(each.keys)} keys for {classes}")


def rendering_is_pure(prompt: Prompt) -> None:
    """The same points give the same prompts, and stay as they were."""
    points = some_points(prompt)
    before = bits(points)
    first, second = _keys(prompt.render(points)), _keys(prompt.render(points.copy()))
    require(first == second, "rendering the same points twice gave different prompts")
    require(bits(points) == before, "render changed the points it was given")
    kept = prompt.render(points)
    points[0] = points[1]
    require(_keys(kept) == first, "a prompt changes with the array that it was rendered from")
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
