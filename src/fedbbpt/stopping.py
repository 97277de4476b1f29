"""Stop when it is enough: the search ends early once it is sure to have helped, or not to help.

At a few looks, at equal shares of the budget, each client compares the newest snapshot with the
starting prompt on its held-back examples. It sends how many are answered better and how many worse,
and what its bets on them come to, and nothing else; the server adds up. Answers are those that the
selection asks for anyway, and are charged with it.

*Improved.* More examples are answered better than worse, by a sign test (:mod:`.maths.signs`) at
the level alpha / looks. It ends the search, and that snapshot is handed out. No held-back example
has a part in the search; so of each snapshot that is no better than the start this happens with a
probability of at most alpha / looks, and of any with at most alpha (the sum of these), however much
the looks have in common, for they share their examples, and wherever the search then ends. As an
e-value that is the all-or-nothing bet: looks / alpha or nothing, and 1 is expected of it at most. A
mean of the looks' e-values would need less; but it would say that *some* snapshot is better, and
not which.

*Hopeless.* The snapshot is not better by ``worth``: bets (:mod:`.maths.betting`) at the same price,
on a sharper measure: the rise in the probability of the right answer, no example counting for more
than ``REACH``. Right and wrong change too rarely: if no answer of n examples changes, a gain of 1 %
cannot be excluded before n = 300. What a search has not begun to do in half of its budget it might
still do in the other; that it will not is no theorem but what searches do, so half is waited for.

So a search that helps a little, or of which few examples are held back, goes on to its budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, log, log10
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Arrays
from fedbbpt.black_box import BlackBox
from fedbbpt.config import Config
from fedbbpt.errors import Incompatible
from fedbbpt.guard import silent
from fedbbpt.maths.betting import evidence, log_wealth
from fedbbpt.maths.signs import chance
from fedbbpt.parts import Client, Parts, Phase
from fedbbpt.sections import REACH
from fedbbpt.types import Job, Update

IMPROVED, HOPELESS = "improved", "hopeless"
"""As ``stopped`` in ``result.json``."""
EARLY = {IMPROVED: "sure to be better", HOPELESS: "no improvement in sight"}
BETTER, SHORT = "better", "short"
"""How many examples are answered better and how many worse; and what bets come to on the snapshot's
being short of ``worth``."""
LATER = 1_000_000
"""Looks have numbers of rounds of their own, so many behind the last round of the search; so that
the search is the same, to the bit, whether anybody looks or not."""


def phases(config: Config) -> dict[str, Phase]:
    """The phase ``look``, where it is asked for."""
    if config.stop.when == "never":
        return {}
    worth, fields = config.stop.worth, (BETTER, SHORT)

    def look(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
        return compared(parts, client, job, box, worth)

    return {"look": Phase("look", "select", lambda _: fields, look, guard="mask", adds=fields)}


def compared(
    parts: Parts, client: Client, job: Job, box: BlackBox, worth: float
) -> tuple[Arrays, float]:
    """How a client's held-back examples fare under a snapshot, and how many there are.

    Examples that either prompt left without an answer are left out.

    Args:
        parts, client, job, box: of a phase; ``points`` are the start and a snapshot.
        worth: the least rise in the probability of right answers that a search is for.
    """
    batch = client.holdout
    reply = box(parts.snapshots(job.arrays["points"]), batch.inputs)
    answered = np.isfinite(parts.task.plain_loss(reply, batch)).all(axis=0)
    if not answered.any():
        return {}, 0.0
    right, sure = parts.task.score(reply, batch), parts.task.sure(reply, batch)
    gained, rose = ((each[1] - each[0])[answered] for each in (right, sure))
    short = (worth - np.clip(rose, -REACH, REACH)) / REACH
    counts = np.array([(gained > 0).sum(), (gained < 0).sum()], np.int64)
    return {BETTER: counts, SHORT: log_wealth(short)}, float(answered.sum())


def check_stop(config: Config, parts: Parts) -> None:
    """Refuse to stop early where held-back examples cannot say that it is enough.

    Raises:
        Incompatible: says why.
    """
    if config.stop.when == "never":
        return
    asked, never = "stop.when is 'sure', which", "set stop.when = 'never'"
    if config.method.kind == "baseline":
        raise Incompatible(f"{asked} is for searches, and {config.method.name} is none; {never}")
    if not config.rounds.holdout:
        raise Incompatible(
            f"{asked} needs held-back examples, and rounds.holdout is 0; set rounds.holdout, such "
            f"as 0.25, or {never}"
        )
    if parts.counts:
        raise Incompatible(
            f"{asked} tests a prompt on held-back examples, and prompt.mapping = "
            f"'{config.prompt.mapping}' changes it by the same examples afterwards; {never}"
        )
    if parts.aggregator.bears:
        raise Incompatible(
            f"{asked} believes every client, and {config.method.aggregator.name} is for clients "
            f"that lie; {never}"
        )
    if silent(parts, parts.phases["look"]):
        raise Incompatible(
            f"{asked} needs what held-back examples say, and behind the shield noise nothing of "
            f"them leaves; {never}"
        )


class Look(NamedTuple):
    """What one look says.

    Attributes:
        number: from 1; ``of``: how many there will be at most.
        clients, examples: behind it.
        better, worse: how many examples are answered so.
        improved: less the decimal logarithm of the chance of that; ``hopeless``: the decimal
            logarithm of what bets have made of 1.
        improved_at, hopeless_at: how much of it ends the search; ``None`` in the first half.
    """

    number: int
    of: int
    clients: int
    examples: int
    better: int
    worse: int
    improved: float
    hopeless: float
    improved_at: float
    hopeless_at: float | None

    @property
    def stopped(self) -> str:
        """Why the search is over, or nothing."""
        if self.improved >= self.improved_at:
            return IMPROVED
        if self.hopeless_at is not None and self.hopeless >= self.hopeless_at:
            return HOPELESS
        return ""


class Rule(NamedTuple):
    """When to look, and what is enough.

    Attributes:
        looks: how often at most.
        alpha: chance to stop wrongly, of either kind.
    """

    looks: int
    alpha: float

    @classmethod
    def of(cls, config: Config) -> Rule | None:
        """That of a config, or ``None`` for never."""
        table = config.stop
        return cls(table.looks, table.alpha) if table.when == "sure" else None

    def turn(self, done: float, made: int) -> int:
        """The number of the look that is due, 0 for none; numbers that were missed are lost.

        Args:
            done: share of the budget, or of the rounds, that is spent; there is nothing to be saved
                at its end.
            made: the number of the last look.
        """
        number = min(self.looks, int(done * (self.looks + 1)))
        return number if number > made and done < 1 else 0

    def judge(self, number: int, updates: Iterable[Update]) -> Look:
        """A look, from sums of clients, or their sum."""
        heard = [update for update in updates if update.weight]
        half = ceil((self.looks + 1) / 2)
        better, worse = (round(float(sum(u.arrays[BETTER][i] for u in heard))) for i in (0, 1))
        short = np.sum([u.arrays[SHORT] for u in heard], axis=0) if heard else np.zeros(1)
        return Look(
            number=number,
            of=self.looks,
            clients=len(heard),
            examples=round(sum(update.weight for update in heard)),
            better=better,
            worse=worse,
            improved=-log10(chance(better, worse)),
            hopeless=evidence(short) / log(10),
            improved_at=log10(self.looks / self.alpha),
            hopeless_at=log10((self.looks - half + 1) / self.alpha) if number >= half else None,
        )


def early(result: Mapping[str, Any]) -> str:
    """In plain words why a search ended early, from the content of ``result.json``."""
    why, queries = EARLY[result["stopped"]], result["queries"]
    return (
        f"Stopped early: {why} by the held-back examples, after {queries['train']:,} of "
        f"{queries['budget']:,} queries."
    )
