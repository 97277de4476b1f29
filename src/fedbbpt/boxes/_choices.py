"""From what an API says to a row of scores: log-probabilities of labels, or the label it names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._wire import Again
from fedbbpt.types import NO_LABEL

SURE = 0.9
"""Probability of a label that was named outright. Only its being above 1/C matters to the loss
"error"; a cross-entropy then counts mistakes."""
NEVER = -1000.0
"""Below this a log-probability is a server's way to say that it has none (-9999)."""
MARKS = " ▁ĠĊ\n\t"


class Read(NamedTuple):
    """A (C,) row of log-probabilities, and whether the reply named any label."""

    row: Array
    named: bool


def by_probability(labels: Sequence[str], tops: Mapping[str, float | None]) -> Read:
    """Scores from the log-probabilities of the likeliest next tokens.

    A label gets what belongs to the tokens that begin it and no other label. One that is not
    among them is less likely than the least likely token given, and gets that as a bound.

    Args:
        labels: C label words.
        tops: token -> log-probability, as far as the server lists them.

    Raises:
        Again: the numbers are no log-probabilities.
    """
    given = {token: _checked(token, value) for token, value in tops.items()}
    real = {token: value for token, value in given.items() if value > NEVER}
    if not real:
        raise Again("the reply lists no log-probabilities")
    if np.exp(list(real.values())).sum() > 1.01:
        raise Again("the reply's probabilities add up to more than one: they are not real")
    row = np.full(len(labels), -np.inf)
    for token, value in real.items():
        at = begun_by(token, labels)
        if at is not None:
            row[at] = np.logaddexp(row[at], value)
    named = bool(np.isfinite(row).any())
    if not named:
        return Read(np.full(len(labels), NO_LABEL), False)
    row[~np.isfinite(row)] = min(real.values())
    return Read(_normalised(row), True)


def begun_by(token: str, labels: Sequence[str]) -> int | None:
    """The one label that begins with this token, if there is one and no other does."""
    piece = token.strip(MARKS).casefold()
    found = [i for i, label in enumerate(labels) if piece and label.casefold().startswith(piece)]
    exact = [i for i in found if labels[i].casefold() == piece]
    found = exact or found
    return found[0] if len(found) == 1 else None


def by_id(ids: Sequence[int], found: Mapping[int, float | None]) -> Read:
    """Scores from the log-probabilities of the labels' own tokens.

    Raises:
        Again: one lacks, or they are no log-probabilities.
    """
    if lacking := set(ids) - found.keys():
        raise Again(f"the reply lacks the log-probability of token {min(lacking)}")
    row = np.array([_checked(f"token {one}", found[one]) for one in ids])
    if row.min() <= NEVER or np.exp(row).sum() > 1.01:
        raise Again("the reply's log-probabilities are not real")
    return Read(_normalised(row), True)


def by_name(labels: Sequence[str], text: str) -> Read:
    """Scores from a reply in words: the label that it names first, as a whole word.

    Of two labels at the same place the longer one counts ("very good" before "very").
    """
    places = []
    for i, label in enumerate(labels):
        found = re.search(rf"(?<!\w){re.escape(label.strip())}(?!\w)", text, re.IGNORECASE)
        if found:
            places.append((found.start(), -len(label), i))
    if not places:
        return Read(np.full(len(labels), NO_LABEL), False)
    row = np.full(len(labels), np.log((1 - SURE) / max(1, len(labels) - 1)))
    row[min(places)[2]] = np.log(SURE)
    return Read(row, True)


def by_option(labels: Sequence[str], shares: Mapping[str, float]) -> Read:
    """Scores from a probability for every label.

    Raises:
        Again: a label has none, or they are no probabilities.
    """
    try:
        values = np.array([float(shares[label]) for label in labels])
    except (KeyError, TypeError, ValueError) as error:
        raise Again(f"the reply lacks a probability for {error}") from error
    if not (np.isfinite(values).all() and (values >= 0).all() and 0 < values.sum() <= 1.01):
        raise Again("the reply's probabilities are not real")
    return Read(_normalised(np.log(np.maximum(values, 1e-30))), True)


def _checked(token: str, value: float | None) -> float:
    if value is None or not np.isfinite(value):
        raise Again(f"the log-probability of '{token[:20]}' is {value}")
    if value > 1e-3:
        raise Again(f"the log-probability of '{token[:20]}' is {value}, above 0")
    return float(value)


def _normalised(row: Array) -> Array:
    total: Array = row - np.logaddexp.reduce(row)
    return total
