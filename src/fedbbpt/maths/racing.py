"""Which candidates are worse than another one beyond doubt, so that nobody need pay for them again.

Two candidates are compared on the same examples, client by client: each client is a stratum of its
own and counts by its share, however unlike the clients are. Either of two bounds may end the doubt,
each with half of the risk. Losses lie in [0, 1].

1. *Counts.* Of X = (1 + loss - other's loss) / 2 the first candidate's stratified mean x is above
   1/2 by luck with a probability of at most exp(-max{kl(x, 1/2) / w, 2 (x - 1/2)^2 / v}), with w
   the largest weight of an example and v the sum of the squares: W. Hoeffding, *Probability
   Inequalities for Sums of Bounded Random Variables*, JASA 1963, theorems 1 and 2. Theorem 1 is for
   equal weights; that w serves for others follows since the logarithm of a moment generating
   function is convex and 0 at 0, and concave in the mean of X in [0, 1]. A union bound over looks,
   with sum 1 / (r (r + 1)) = 1, covers all of them (Maron & Moore, *Hoeffding Races*, NIPS 1993).
2. *Bets.* Who bets on the candidate's being worse, in each part of the examples a share of the
   wealth, multiplies it by prod_k (1 + a w_k d_k), d_k the difference of mean losses at client k
   and w_k its share over the largest. If the candidate is no worse, sum_k w_k E d_k <= 0 and so,
   by the inequality of the means, the expected factor is at most 1; that the wealth ever gets to h
   then has a probability of at most 1 / h (Ville), whenever and how often one looks. It ends doubt
   much sooner where candidates agree on most examples (Waudby-Smith & Ramdas, *Estimating Means of
   Bounded Random Variables by Betting*, JRSS B 2024), and needs no number of examples.

A union bound over the rivals covers all comparisons.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, rel_entr

from fedbbpt.arrays import Array

STAKES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the wealth that are put at risk; each is the way of a quarter of it."""


def by_turn(group: Array, clients: Array, turns: Array, losses: Array) -> Array:
    """Observations as a table, their mean where one cell has several.

    Args:
        group: (n,) numbers of the candidates, 0 to u - 1.
        clients, turns: (n,) who was asked, on which part of its examples.
        losses: (n,).

    Returns:
        (u, c, t) of the clients and turns that occur, in ascending order; NaN where nothing is.
    """
    which, client = np.unique(clients, return_inverse=True)
    when, turn = np.unique(turns, return_inverse=True)
    total, count = np.zeros((2, int(group.max()) + 1, len(which), len(when)))
    np.add.at(total, (group, client.reshape(-1), turn.reshape(-1)), losses)
    np.add.at(count, (group, client.reshape(-1), turn.reshape(-1)), 1.0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def doubt(mean: Array, largest: Array, squares: Array) -> Array:
    """Logarithm of the most that chance gives a mean of at least this, if its expectation is 1/2.

    Args:
        mean: of numbers in [0, 1] with weights that add up to 1.
        largest: the largest of the weights; ``squares``: the sum of their squares.

    Returns:
        0 or less; of any shape that all three have.
    """
    mean = np.clip(mean, 0.0, 1.0)
    entropy = rel_entr(mean, 0.5) + rel_entr(1 - mean, 0.5)
    sure = np.maximum(entropy / largest, 2 * (mean - 0.5) ** 2 / squares)
    return np.where(mean > 0.5, -sure, 0.0)


def outclassed(
    losses: Array, shares: Array, delta: float, examples: int = 1, rivals: int | None = None
) -> Array:
    """Candidates that another one beats beyond doubt.

    Args:
        losses: (u, c, t) mean losses of u candidates at c clients on part t of their examples, NaN
            where there is no answer. What they have in common in a cell may be left out.
        shares: (c,) what each client's mean loss counts for, of sum 1.
        delta: with at most this probability the best of all candidates is ever among them. This
            supposes that candidates are tried on parts in order, each by all clients that have
            examples for it; if few clients are asked in a round it is an approximation.
        examples: behind each mean, at least; 1 is always safe.
        rivals: that any candidate has, untried ones included; u - 1 if left out. In a pool that
            grows from N to M, delta becomes delta (1 + log(M / N)).

    Returns:
        (u,) bool; none where losses of a cell differ by more than 1, as they are not in [0, 1].
    """
    rivals = len(losses) - 1 if rivals is None else rivals
    there = np.isfinite(losses).any(axis=0)
    spread = np.nanmax(losses[:, there], axis=0) - np.nanmin(losses[:, there], axis=0)
    if rivals < 1 or (spread > 1 + 1e-9).any():
        return np.zeros(len(losses), np.bool_)
    allowed = np.log(delta / 2 / rivals)
    worse = (by_count(losses, shares, examples) <= allowed) | (by_bets(losses, shares) <= allowed)
    return np.asarray(worse.any(axis=1))


def by_count(losses: Array, shares: Array, examples: int) -> Array:
    """(u, u) logarithms of the risk that row is no worse than column, by the first bound."""
    asked = np.isfinite(losses).swapaxes(0, 1)  # (c, u, t)
    told = np.where(asked, losses.swapaxes(0, 1), 0.0)
    one = asked.astype(np.float64)
    common = one @ one.swapaxes(1, 2)  # (c, u, u) parts that both were asked about
    sums = told @ one.swapaxes(1, 2) - one @ told.swapaxes(1, 2)
    share, parts = shares[:, None, None], np.maximum(common, 1.0)
    # A client that compared them on nothing may think the worst of the rival.
    mean = (share * np.where(common > 0, (1 + sums / parts) / 2, 0.0)).sum(axis=0)
    own = np.where(common > 0, share / (parts * examples), 0.0)
    squares = (share * own).sum(axis=0)
    looks = common.max(axis=0)
    largest, met = own.max(axis=0), looks > 0
    risk = doubt(mean, np.where(met, largest, 1.0), np.where(met, squares, 1.0))
    return np.where(met, risk + np.log(np.maximum(looks * (looks + 1), 1.0)), 0.0)


def by_bets(losses: Array, shares: Array) -> Array:
    """(u, u) logarithms of the risk that row is no worse than column, by the second bound."""
    asked = np.isfinite(losses)
    stakes = np.array(STAKES)[:, None, None] * (shares / shares.max())[:, None, None, None]
    wealth = np.zeros((len(STAKES), len(losses), len(losses)))
    with np.errstate(divide="ignore"):  # all may be lost
        missed = np.log1p(-stakes)
        for turn in range(losses.shape[2]):
            rows = np.flatnonzero(asked[:, :, turn].any(axis=1))
            factor = np.zeros((len(STAKES), len(rows), len(rows)))
            met = np.zeros(factor.shape[1:], np.bool_)
            for client, stake in enumerate(stakes):
                mine = losses[rows, client, turn]
                both = np.isfinite(mine)[:, None] & np.isfinite(mine)
                apart = np.where(both, mine[:, None] - mine, 0.0).clip(-1.0, 1.0)
                factor += np.where(both, np.log1p(stake * apart), missed[client])
                met |= both
            wealth[:, rows[:, None], rows] += np.where(met, factor, 0.0)
    return -np.asarray(logsumexp(wealth, axis=0, b=1 / len(STAKES)))
