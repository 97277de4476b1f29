"""Kinds of failures, and the seeded dice that choose them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.random import word

TRANSIENT = (
    "429",
    "429-retry-after",
    "500",
    "503",
    "timeout",
    "reset",
    "truncated",
    "cut-json",
    "not-json",
    "no-choices",
    "null-logprobs",
    "zero-logprobs",
    "minus-9999",
    "nan-logprobs",
    "wrong-count",
)
"""Failures that a client can tell from a good reply and that may pass when it asks again:

``429``, ``500``, ``503``: that status, 429 with or without Retry-After; ``timeout``: no byte comes;
``reset``: the connection is torn down; ``truncated``: it ends before the announced length;
``cut-json``: all that was announced comes, half a JSON text; ``not-json``: a proxy's HTML with
status 200; ``no-choices``: a reply with none; ``...-logprobs``, ``minus-9999``: all
log-probabilities are null, 0, NaN or -9999 (nothing is changed where none were asked for);
``wrong-count``: one reply too many, a wrong one in front."""

KINDS = (*TRANSIENT, "slow", "no-label")
"""All kinds: besides those above ``slow``, a good reply byte by byte, and ``no-label``, a reply in
which no label occurs, as a model may well give one."""


def evenly(share: float, kinds: Sequence[str] = TRANSIENT) -> dict[str, float]:
    """Each kind with its part of a share of all requests."""
    return dict.fromkeys(kinds, share / len(kinds))


class Dice:
    """Seeded decisions by content and count; safe in threads.

    Args:
        seed: other seeds, other decisions.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._tries: Counter[tuple[str, bytes]] = Counter()
        self._lock = threading.Lock()

    def throw(self, kind: str, key: bytes) -> float:
        """In [0, 1); another number each time that this is thrown."""
        with self._lock:
            self._tries[kind, key] += 1
            times = self._tries[kind, key]
        return self.fixed(f"{kind} {times}", key)

    def fixed(self, kind: str, key: bytes) -> float:
        """In [0, 1); always the same."""
        return word(f"{self.seed} {kind} {key.hex()}") / 2**64


def swap(row: Array, thrown: float) -> None:
    """The largest of a row changes places with another, chosen by a number in [0, 1)."""
    if len(row) > 1:
        best = int(np.argmax(row))
        other = (best + 1 + int(thrown * (len(row) - 1))) % len(row)
        row[[best, other]] = row[[other, best]]


def check_shares(shares: Mapping[str, float]) -> None:
    """Raise a ConfigError for what is not in [0, 1]; a sum may be rounded."""
    for name, share in shares.items():
        if not 0 <= share <= 1 + 1e-9:
            raise ConfigError(f"{name} is {share}; it must be a share from 0 to 1")
