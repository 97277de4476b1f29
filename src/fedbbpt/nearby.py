"""What a model can do that sends no bill: one on this machine, a function, or a gateway's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np

from fedbbpt.black_box import AtomicBox
from fedbbpt.patient import PLAIN, QUESTION, REPEATS, SPOKEN, TEXTS, Finding, heard
from fedbbpt.types import RenderedPrompt, Reply


def examine(box: AtomicBox, prompt: RenderedPrompt) -> Iterator[Finding]:
    """Asks a few made-up texts, of which the box is told some several times.

    Args:
        box: any that takes texts.
        prompt: around the texts; without labels the answers are words.
    """
    takes = f"takes {listed(box.accepts)} on the {listed(box.sides)} side"
    yield Finding("capabilities", True, f"{takes}; gives {listed(box.gives)}")
    replies, seconds = [], []
    try:
        box.prepare(prompt)
        for _ in range(REPEATS):
            began = time.perf_counter()
            replies.append(box([prompt], TEXTS))
            seconds.append(time.perf_counter() - began)
    except Exception as error:  # whatever a user's function raises is a finding
        yield Finding("answers", False, f"{type(error).__name__}: {error}")
        return
    yield from (_sound if prompt.labels else _spoken)(replies)
    yield Finding("latency", True, f"{median(seconds):.3f} s for {len(TEXTS)} texts, the median")
    if "text" in box.gives:
        yield _question(box)


def asked(box: AtomicBox) -> int:
    """Calls that :func:`examine` makes."""
    return REPEATS + ("text" in box.gives)


def listed(names: frozenset[str]) -> str:
    """Names as people read them."""
    return ", ".join(sorted(names))


def _sound(replies: list[Reply]) -> Iterator[Finding]:
    """Whether scores are log-probabilities that differ between two texts, and stay the same."""
    rows = np.array([reply.scores[0] for reply in replies])
    yield _scores(rows)
    spread = float(np.nan_to_num(np.ptp(rows, axis=0)).max())
    same = f"{REPEATS} times the same" if spread == 0 else f"within {spread:.2g} nats"
    yield Finding("repeatable", spread == 0, same)


def _scores(rows: Any) -> Finding:
    """(R, B, C) of R replies."""
    if not np.isfinite(rows).all():
        return Finding("answers", False, "scores that are not finite")
    if np.abs(np.logaddexp.reduce(rows, axis=-1)).max() > 1e-3:
        return Finding("answers", False, "scores whose probabilities do not add up to one")
    if np.array_equal(rows[0, 0], rows[0, 1]):
        return Finding("answers", False, "the same scores for two different texts")
    return Finding("answers", True, "log-probabilities, and others for another text")


def _spoken(replies: list[Reply]) -> Iterator[Finding]:
    """Whether there are answers in words, and they stay the same."""
    said = [reply.texts[0] if reply.texts else () for reply in replies]
    if not said[0] or None in said[0]:
        yield Finding("answers", False, "no answer in words to a text")
    else:
        yield Finding("answers", True, "words")
    alike = len(set(said)) == 1
    seen = f"{REPEATS} times the same" if alike else "other words when asked again"
    yield Finding("repeatable", alike, seen)


def _question(box: AtomicBox) -> Finding:
    began = time.perf_counter()
    try:
        texts = box([PLAIN], [QUESTION]).texts
    except Exception as error:  # as above
        return Finding(SPOKEN, False, f"{type(error).__name__}: {error}")
    return heard(texts[0][0] if texts else None, time.perf_counter() - began)
