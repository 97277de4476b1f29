"""Is a mean above 0? Betting on it: evidence that adds up over clients and needs no bell curve.

Who believes that the mean of g, a number in [-1, 1], is above 0 stakes a share b of the wealth on
each example; it is multiplied by 1 + b g. If the examples are independent and their means add up to
0 or less, the wealth that 1 has become is expected to be at most 1 whatever else is true of them:

    E prod_i (1 + b g_i) = prod_i (1 + b m_i) <= (1 + b mean m)^n <= 1

by the inequality of the means, so clients may differ as they like: some may gain and others lose.
The mean over several bets is such a number too, an *e-value*: it is h or more with a probability of
at most 1 / h (Markov). That a mean is below some number is the same with the difference to it.

Waudby-Smith & Ramdas, *Estimating means of bounded random variables by betting*, JRSS B 2024;
Shafer, *Testing by betting*, JRSS A 2021; Ramdas, Grünwald, Vovk & Shafer, *Game-theoretic
statistics and safe anytime-valid inference*, Statistical Science 2023.
"""

from __future__ import annotations

import numpy as np

from fedbbpt.arrays import Array

BETS = (0.2, 0.4, 0.6, 0.8)
"""Shares of the wealth that are staked; a quarter of it goes each way. The best bet is the mean
over the mean square, of paired right and wrong answers (more - fewer) / (more + fewer), and what
could be sure of a few dozen examples has one in this range. Below 1, so that no example ruins."""


def log_wealth(gains: Array) -> Array:
    """What 1 becomes at each bet, in logarithms; those of clients are added.

    Args:
        gains: (n,) at least -1; at most 1 is no need.

    Returns:
        (len(BETS),), 0 for no examples.
    """
    bets = np.array(BETS)[:, None]
    return np.asarray(np.log1p(bets * np.asarray(gains, np.float64)).sum(axis=1))


def evidence(wealth: Array) -> float:
    """Natural logarithm of the e-value of (len(BETS),) sums of logarithms; it does not overflow."""
    top = float(np.max(wealth))
    return top + float(np.log(np.mean(np.exp(wealth - top))))
