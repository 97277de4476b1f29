"""Which words of a model's vocabulary a soft prompt is nearest to: all that can be read of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.senses import Vocabulary
from fedbbpt.types import RenderedPrompt

WORDS = 4
"""Words for each place."""
CHUNK = 4096
"""Tokens compared at a time, so that a large vocabulary is never copied whole."""
GAPS = {"label": "{label}", "text": "{text}"}


def nearest(
    prompt: RenderedPrompt, vocabulary: Vocabulary | None, classes: Sequence[str]
) -> dict[str, Any]:
    """What is kept of it among the events.

    Cosines, as everywhere where input embeddings are compared: frequent words have shorter ones.

    Args:
        prompt: the chosen one, soft.
        vocabulary: the box's tokens.
        classes: class names in class order.

    Returns:
        ``prompts``: for every soft prompt (one for all classes, or one each) its places, each with
        ``was``, the ``words``, the ``cosine`` of the first, and ``moved``, the length of the
        change against that of the embedding it began at. Or ``lack``: why not.
    """
    if vocabulary is None:
        return {"lack": "the model shows no vocabulary"}
    if getattr(vocabulary, "far", False):
        return {"lack": "the model's vocabulary is behind a gateway, and is large"}
    several = len(prompt.soft) > 1
    starts = [_starts(prompt, vocabulary, label) for label in (prompt.labels if several else ("",))]
    now = np.concatenate([s + start for s, (_, start) in zip(prompt.soft, starts, strict=True)])
    words, cosines = _words(vocabulary, now)
    found, row = [], 0
    for which, (soft, (names, start)) in enumerate(zip(prompt.soft, starts, strict=True)):
        places = []
        for name, moved, began in zip(names, soft, start, strict=True):
            length = float(np.linalg.norm(began))
            places.append(
                {
                    "was": name,
                    "words": words[row],
                    "cosine": round(float(cosines[row]), 3),
                    "moved": round(float(np.linalg.norm(moved)) / length, 3) if length else None,
                }
            )
            row += 1
        found.append({"class": classes[which] if several else None, "places": places})
    return {"prompts": found}


def _starts(prompt: RenderedPrompt, vocabulary: Vocabulary, label: str) -> tuple[list[str], Array]:
    """(name, embedding) of what each row of a soft prompt is added to; zeros where it stands for
    itself. Behind the template's own tokens the last row moves all words of the label alike.
    """
    rows, hidden = prompt.soft[0].shape
    if prompt.mode != "add":
        return [f"new token {i + 1}" for i in range(rows)], np.zeros((rows, hidden), np.float32)
    gap = GAPS.get(prompt.side, "")
    ids, slots = vocabulary.layout(prompt.template.replace(gap, "\0"), label or "this")
    own = {slot: one for one, slot in zip(ids, slots, strict=True) if slot >= 0}
    names = [vocabulary.decode([own[slot]]).strip() for slot in sorted(own)]
    embedded = vocabulary.embed([own[slot] for slot in sorted(own)])
    if len(names) < rows:
        inner = [one for one, slot in zip(ids, slots, strict=True) if slot == -1]
        names.append(label or "(the label)")
        middle = vocabulary.embed(inner).mean(axis=0) if label and inner else np.zeros(hidden)
        embedded = np.concatenate([embedded, middle[None].astype(np.float32)])
    return names[:rows], embedded[:rows]


def _words(vocabulary: Vocabulary, rows: Array) -> tuple[list[list[str]], Array]:
    """For each of N rows the nearest words, and the cosine of the first."""
    ids = vocabulary.ordinary()
    wanted, kept = _unit(rows), min(2 * WORDS, len(ids))
    best = np.full((len(rows), 0), 0.0)
    names = np.zeros((len(rows), 0), np.int64)
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        cosines = wanted @ _unit(vocabulary.embed(some.tolist())).T
        best = np.concatenate([best, cosines], axis=1)
        names = np.concatenate([names, np.broadcast_to(some, cosines.shape)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :kept]
        best = np.take_along_axis(best, order, axis=1)
        names = np.take_along_axis(names, order, axis=1)
    texts = [[vocabulary.decode([one]).strip() for one in row] for row in names.tolist()]
    # "Great" and "great" say the same.
    once = [list({text.casefold(): text for text in row[::-1]}.values())[::-1] for row in texts]
    return [row[:WORDS] for row in once], best[:, 0]


def _unit(rows: Array) -> Array:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1.0))
