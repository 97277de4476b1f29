"""What plug-ins need of storage, wired in where a federation is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from fedbbpt.arrays import Array
from fedbbpt.types import Receipt


class Store(Protocol):
    """Where paid rows are kept, as seen by one account in one round."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """The rows that are known, by key."""

    def put(self, rows: Mapping[bytes, Array]) -> None:
        """Record rows durably; returns only when they would survive a kill."""

    def claim(self, keys: Sequence[bytes]) -> list[bytes]:
        """Which of the keys to pay for now: the others are known by now, or another process is
        paying for them. Where nothing is left to pay for, it waits a moment first.
        """

    def release(self, keys: Sequence[bytes]) -> None:
        """End the claims, whether or not there are rows now."""


class Hold(NamedTuple):
    """What a till keeps back for a request until its price is known.

    Attributes:
        tokens: most tokens that it can be billed for, of prompt and reply.
        usd: most that it can cost.
    """

    tokens: int
    usd: float


class Till(Protocol):
    """Who pays for requests over a wire, in tokens and money."""

    def reserve(self, tokens: int, usd: float) -> Hold:
        """Keep back the most that a request can cost, before it is sent.

        Raises:
            BudgetSpent: a cap cannot pay for it.
        """

    def settle(self, hold: Hold, receipt: Receipt, rows: Mapping[bytes, Array]) -> None:
        """Give the hold back and record the request with the rows that it brought, by atom key;
        returns only when they would survive a kill.
        """
