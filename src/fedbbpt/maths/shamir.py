"""Threshold shares of a secret: any t of n give it back, fewer say nothing about it (Shamir 1979).

The secret is the value at 0 of a polynomial of degree t - 1 over a prime field, whose other
coefficients are random; share i is its value at i. Lagrange's formula gives the value at 0 from
any t of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

PRIME = 2**521 - 1
"""A Mersenne prime, with room for 64 bytes."""

SHARE_BYTES = 66


def split(secret: int, threshold: int, count: int, draw: Callable[[int], bytes]) -> list[int]:
    """Shares 1 to ``count`` of a secret.

    Args:
        secret: 0 or more, below 2**512.
        threshold: how many shares are enough, t.
        count: how many there are, n.
        draw: gives that many secret random bytes.

    Raises:
        ValueError: the secret does not fit, or not 1 <= t <= n.
    """
    if not 0 <= secret < 2**512 or not 1 <= threshold <= count:
        raise ValueError(f"no {threshold} of {count} shares of a secret below 2**512 can be made")
    # 9 bytes more than the field has, so that the remainder is even to one in 2**71.
    above = [int.from_bytes(draw(75), "big") % PRIME for _ in range(threshold - 1)]
    return [_value([secret, *above], at) for at in range(1, count + 1)]


def join(shares: Mapping[int, int]) -> int:
    """The secret from t shares by their numbers.

    It cannot tell whether they belong together: wrong ones give a wrong secret, so whoever joins
    needs something to hold it against.

    Raises:
        ValueError: there is no share, or one has no number from 1 or is not of the field.
    """
    if not shares or min(shares) < 1 or not all(0 <= y < PRIME for y in shares.values()):
        raise ValueError(f"shares {sorted(shares)} are not numbered field elements")
    factors = _at_zero(tuple(sorted(shares)))
    return sum(factor * shares[at] for at, factor in factors) % PRIME


def _value(coefficients: list[int], at: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * at + coefficient) % PRIME
    return value


@lru_cache(maxsize=64)
def _at_zero(places: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Each place with the value at 0 of the polynomial that is 1 there and 0 at the others."""
    factors = []
    for at in places:
        over, under = 1, 1
        for other in places:
            if other != at:
                over, under = over * other % PRIME, under * (other - at) % PRIME
        factors.append((at, over * pow(under, -1, PRIME) % PRIME))
    return tuple(factors)
