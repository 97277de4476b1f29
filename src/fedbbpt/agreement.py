"""Whether a search gets anywhere: its rounds agree with each other, and its training loss falls.

Both are standard scores, about N(0, 1) where the losses are noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.parts import Parts
from fedbbpt.round import Played

MEMORY = 0.9
"""Share of the past that the heading keeps from round to round."""
LEAST_ROUNDS = 20
"""Shorter searches are not judged: a slow start looks like noise."""


def agreement(parts: Parts, played: Played, heading: Array) -> tuple[float | None, Array]:
    """Whether a round's losses fall in the direction in which those before it fell.

    A client's losses of its first step, of which the server can make the points, estimate a
    direction: sum_k (l_k - mean l) x_k, which an evolution strategy and the policy gradient have
    in common. The sum over clients, as a unit vector, is compared by its cosine with the heading,
    a decaying sum of the rounds before. Where losses are noise they are exchangeable between
    candidates, whatever these are, so the cosine's mean is zero. That of two moves of the server's
    state is not: Adam's momentum, averaged iterates and candidates that are the same in every
    round agree with themselves.

    Args:
        parts: make the candidates once more; nothing is paid.
        played: the round, with the losses that clients sent.
        heading: of the shape of a point, zero before the first round.

    Returns:
        the cosine, ``None`` where there is none (the first round; losses that stay at the clients
        or do not differ), and the next heading.
    """
    job, total = played.job, np.zeros_like(heading)
    state, points = parts.receive(job.arrays), None
    for update in played.updates if parts.wire == "replay" else ():
        if not update.weight:
            continue
        losses = update.arrays["losses"]
        if points is None or parts.directions == "distinct":
            points = parts.candidates(job, update.client, 0, state)
        heard = np.isfinite(losses[0])
        if heard.any():
            told = losses[0][heard]
            total += np.tensordot(told - told.mean(), points[heard], axes=1)
    length, before = np.linalg.norm(total), np.linalg.norm(heading)
    if not length:
        return None, heading
    unit = total / length
    cosine = float((unit * heading).sum() / before) if before else None
    return cosine, MEMORY * heading + unit


def signal(agreements: Array) -> float | None:
    """Standard score of the mean agreement: sum c / sqrt(sum c^2), for each cosine's mean is zero
    whatever came before it.

    Args:
        agreements: (R,) cosines of R rounds, NaN where there is none.

    Returns:
        ``None`` for too few rounds.
    """
    heard = agreements[np.isfinite(agreements)]
    if len(heard) < LEAST_ROUNDS - 1:
        return None
    return float(heard.sum() / np.sqrt((heard**2).sum()))


def levelled(events: Iterable[Mapping[str, Any]], rounds: int) -> Array:
    """(R,) mean training losses of the rounds, NaN where they stay at the clients.

    A client's loss counts as its distance to that client's mean over the run: where few clients
    take part in a round, who they are would show more than any progress.

    Args:
        events: all of a run.
        rounds: R.
    """
    names: dict[str, int] = {}
    sent = [
        (e["loss"], e["round"], names.setdefault(e["client"], len(names)))
        for e in events
        if e["event"] == "client" and e["loss"] is not None
    ]
    if not sent:
        return np.full(rounds, np.nan)
    losses, number, who = (np.array(each) for each in zip(*sent, strict=True))
    own = np.bincount(who, losses) / np.bincount(who)
    heard = np.bincount(number, minlength=rounds)
    total = np.bincount(number, losses - own[who] + losses.mean(), minlength=rounds)
    return np.where(heard > 0, total / heard.clip(min=1), np.nan)


def fall(losses: Array) -> float | None:
    """Standard score of how steadily the loss falls: minus its rank correlation with the round
    (Spearman's), times sqrt(R - 1). One outlier cannot make it.

    Args:
        losses: (R,) mean losses of R rounds, NaN where there is none.

    Returns:
        ``None`` for too few rounds.
    """
    heard = losses[np.isfinite(losses)]
    if len(heard) < LEAST_ROUNDS:
        return None
    _, place, count = np.unique(heard, return_inverse=True, return_counts=True)
    ranks = (count.cumsum() - count / 2)[place] - len(heard) / 2
    time = np.arange(len(heard)) - (len(heard) - 1) / 2
    length = np.sqrt((ranks**2).sum() * (time**2).sum())
    # Losses that are all the same do not fall.
    return float(-(ranks @ time) / length * np.sqrt(len(heard) - 1)) if length else 0.0
