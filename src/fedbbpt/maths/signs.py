"""Does one answer better more often than it answers worse? The sign test, also for unlike clients.

Of examples on which two prompts differ, each is a coin that falls for the one or the other. If the
new prompt is right more often than the old at no client, or not in examples drawn at random from
all clients' together, then no coin is better than fair, and the chance of so many wins is at most
that of fair coins: the test is exact (McNemar, Psychometrika 1947). Where some clients gain what
others lose, wins vary less than those of fair coins (W. Hoeffding, *On the distribution of the
number of successes in independent trials*, Annals of Mathematical Statistics 1956). That is no
proof for wins and losses together; of a thousand such cases, worked out in full, none erred more
often than it may (tests/maths/test_signs.py).

Bets on the mean (:mod:`.betting`) would need no such footnote, but 1.3 to 1.9 times the examples
for the same power. Their strength is to go on as examples come; here all are there from the first.
"""

from __future__ import annotations

LEAST = 1e-300
"""Smaller chances are given as this, so that they have a logarithm."""


def chance(better: float, worse: float) -> float:
    """That of at least so many wins among the fair coins, 1 where there are none.

    Args:
        better, worse: how many examples are answered better, and worse.
    """
    from scipy.special import betainc  # a quarter of a second to load

    return max(LEAST, float(betainc(better, worse + 1, 0.5))) if better else 1.0
