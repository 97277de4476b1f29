"""What a model that takes images can do, found out by showing it three made-up pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.errors import ConfigError
from fedbbpt.patient import REPEATS, Finding
from fedbbpt.random import stream
from fedbbpt.types import Picture, RenderedPrompt

ASKED = REPEATS + 1
"""Calls of one examination."""
SIDE = 96
CLOSE = 1e-4
"""Nats by which rows of other batches may differ: bits do, answers do not."""
COARSE = 0.5
"""Share of classes with the least of all probabilities from which an output is called rounded."""
FEW = 5
"""Labels that are named in a finding."""


def _made_up() -> tuple[Picture, ...]:
    """A red disc on white, blue stripes, and noise: nobody's."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disc = (rows - SIDE / 2) ** 2 + (columns - SIDE / 2) ** 2 < (SIDE / 3) ** 2
    red, blue = np.array([200, 30, 30], np.uint8), np.array([20, 40, 160], np.uint8)
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    striped = np.where((columns // 8 % 2 == 0)[..., None], blue, white // 8)
    noise = stream(0, "eyesight").integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return tuple(map(Picture, (np.where(disc[..., None], red, white), striped, noise)))


PICTURES = _made_up()


def examine(box: AtomicBox, prompt: RenderedPrompt, labels: Sequence[str]) -> Iterator[Finding]:
    """What a box is found to make of pictures.

    Args:
        box: takes images.
        prompt: with which a model without classes of its own is asked.
        labels: of the config, where it has examples.
    """
    takes = f"takes {_list(box.accepts)} on the {_list(box.sides)} side"
    yield Finding("capabilities", True, f"{takes}; gives {_list(box.gives)}")
    if box.vision is not None:
        height, width = box.vision.size
        yield Finding("input", True, f"{width} x {height} pixels")
    if "classes" in box.gives:
        yield Finding("classes", True, f"{box.hidden} of its own")
    rows, seconds = [], []
    try:
        for _ in range(REPEATS):
            began = time.perf_counter()
            rows.append(_rows(box, prompt, PICTURES))
            seconds.append((time.perf_counter() - began) / len(PICTURES))
        alone = _rows(box, prompt, PICTURES[:1])
    except Exception as error:  # whatever a user's model raises is a finding
        yield Finding("answers", False, f"{type(error).__name__}: {error}")
        return
    yield (sound := _sound(np.array(rows), getattr(box, "scores", "")))
    if not sound.ok:
        return
    yield _repeatable(np.array(rows))
    yield _by_itself(rows[0][0], alone[0])
    yield Finding("latency", True, f"{1000 * median(seconds):.1f} ms an image, the median")
    if labels and "classes" in box.gives:
        yield _resolved(box, labels)


def _rows(box: AtomicBox, prompt: RenderedPrompt, pictures: Sequence[Picture]) -> Array:
    """(B, S) log-probabilities of the model's own classes, or of the prompt's."""
    if "classes" not in box.gives:
        scores: Array = box([prompt], pictures).scores[0]
        return scores
    known = box([], pictures).embeddings
    assert known is not None  # it lists "classes"
    return known


def _sound(rows: Array, scores: str) -> Finding:
    """Whether (R, B, S) answers are log-probabilities that differ between two pictures."""
    if not np.isfinite(rows).all():
        return Finding("answers", False, "scores that are not finite")
    shares, least = np.exp(rows), rows.min(axis=-1, keepdims=True)
    floored = (rows == least).sum(axis=-1) > 1
    # Where an output is rounded, a class at zero is given half a step: these may add up.
    above = np.where(floored[..., None] & (rows == least), 0.0, shares).sum(axis=-1)
    if (above > 1.05).any() or (shares.sum(axis=-1) < 0.95).any():
        return Finding("answers", False, "scores whose probabilities do not add up to one")
    if (rows[0] == rows[0, 0]).all():
        return Finding("answers", False, "the same scores for different pictures")
    return Finding(
        "answers", True, "log-probabilities, and others for another picture", _odd(rows, scores)
    )


def _odd(rows: Array, scores: str) -> str:
    """What may be set wrong although the answers can be used."""
    count = rows.shape[-1]
    back = rows + (1 - rows.sum(axis=-1, keepdims=True)) / count
    if scores == "logits" and back.min() >= 0 and back.max() <= 1:
        return (
            "no class is ever much likelier than another; if the output holds probabilities "
            "already, set box.scores = 'probabilities'"
        )
    if count > 2 and (rows == rows.min(axis=-1, keepdims=True)).mean() > COARSE:
        return (
            "most probabilities are rounded to zero; its logits, where box.output can name them "
            "and box.scores = 'logits', say more"
        )
    return ""


def _repeatable(rows: Array) -> Finding:
    spread = float(np.ptp(rows, axis=0).max())
    same = f"{REPEATS} times the same" if spread == 0 else f"within {spread:.2g} nats"
    return Finding("repeatable", spread == 0, same)


def _by_itself(together: Array, alone: Array) -> Finding:
    """Whether an answer depends on the other pictures of its call."""
    gap = float(np.abs(together - alone).max())
    if gap <= CLOSE:
        return Finding("each by itself", True, "the same alone and beside others")
    advice = "set it to inference, where batch normalisation goes by what it was trained on"
    return Finding("each by itself", False, f"{gap:.2g} nats apart alone and beside others", advice)


def _resolved(box: AtomicBox, labels: Sequence[str]) -> Finding:
    """Which labels name classes of the model."""
    lost = [label for label in labels if not _names(box, label)]
    told = f"{len(labels) - len(lost)} of {len(labels)} name classes of the model"
    if not lost:
        return Finding("labels", True, told)
    few = ", ".join(f"'{label}'" for label in lost[:FEW]) + ", ..." * (len(lost) > FEW)
    advice = "say in prompt.labels which classes they are, or set prompt.mapping = 'learned'"
    return Finding("labels", None, f"{told}; not {few}", advice)


def _names(box: AtomicBox, label: str) -> bool:
    try:
        box.prepare(RenderedPrompt("", (label,), "image"))
    except ConfigError:
        return False
    return True


def _list(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
