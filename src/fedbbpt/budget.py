"""The budget: every distinct atom is charged once to each account that asks for it.

An account is a client, or the federation itself for what it asks on behalf of all. What the
federation has paid is free for its clients. So the count depends neither on threads nor on what a
ledger already holds, and is the same in one process and over many machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from fedbbpt.errors import BudgetSpent

FEDERATION = ""
PURSES = ("train", "select", "evaluation")


class Away(NamedTuple):
    """Queries that were charged on another machine.

    Attributes:
        charged: distinct atoms, as here.
        paid: those that its ledger did not know.
        dropped: those that stayed unanswered.
    """

    charged: int
    paid: int
    dropped: int


class Account:
    """What one account may still spend in one job.

    Attributes:
        quota: most atoms to charge in this job, or ``None``.
        new: atoms charged in this job so far, in order.
        dropped: atoms of this job that stayed unanswered.
    """

    def __init__(self, paid: set[bytes], common: set[bytes], quota: int | None) -> None:
        self._paid, self._common, self.quota = paid, common, quota
        self.new: list[bytes] = []
        self.dropped = 0

    def charge(self, keys: Sequence[bytes]) -> None:
        """Charge the atoms that were not charged before: all of them, or none.

        Raises:
            BudgetSpent: the quota cannot pay for them.
        """
        fresh = [k for k in dict.fromkeys(keys) if k not in self._paid and k not in self._common]
        if self.quota is not None and len(self.new) + len(fresh) > self.quota:
            raise BudgetSpent(len(self.new), self.quota, len(fresh))
        self._paid.update(fresh)
        self.new += fresh


class Budget:
    """All accounts of a run.

    Args:
        limit: training queries of the whole run; selection and evaluation are counted apart and
            not limited.
        each: training queries of each client, or ``None``.
    """

    def __init__(self, limit: int, each: int | None = None) -> None:
        self.limit, self.each = limit, each
        self._paid: dict[tuple[str, str], set[bytes]] = {}
        self.away: dict[tuple[str, str], Away] = {}
        self._open: list[tuple[str, str, Account]] = []

    def open(self, purse: str, account: str, quota: int | None = None) -> Account:
        """An account's view for one job. Jobs of one account never run at the same time."""
        paid = self._paid.setdefault((purse, account), set())
        common = self._paid.setdefault((purse, FEDERATION), set())
        if self.each is not None and purse == "train" and account != FEDERATION:
            own = max(0, self.each - len(paid))
            quota = own if quota is None else min(quota, own)
        job = Account(paid, common, quota)
        self._open.append((purse, account, job))
        return job

    def report(self, purse: str, account: str, more: Away) -> None:
        """Charge what an account was charged on another machine, where its keys are."""
        was = self.away.get((purse, account), Away(0, 0, 0))
        self.away[purse, account] = Away(*(a + b for a, b in zip(was, more, strict=True)))

    def spent(self, purse: str) -> int:
        """Queries charged to a purse by all accounts."""
        here = sum(len(paid) for (p, _), paid in self._paid.items() if p == purse)
        return here + sum(away.charged for (p, _), away in self.away.items() if p == purse)

    def left_of(self, account: str) -> float:
        """Training queries that a client's own cap still allows."""
        if self.each is None:
            return inf
        place = ("train", account)
        away = self.away[place].charged if place in self.away else 0
        return max(0, self.each - len(self._paid.get(place, ())) - away)

    def keys(self) -> list[bytes]:
        """The key of every charge on this machine, as often as it was charged."""
        return [key for paid in self._paid.values() for key in paid]

    @property
    def left(self) -> int:
        """Training queries that may still be charged."""
        return self.limit - self.spent("train")

    def take(self) -> dict[tuple[str, str], list[str]]:
        """What was charged since the last call: (purse, account) -> keys in hexadecimal."""
        jobs, self._open = self._open, []
        charged: dict[tuple[str, str], list[str]] = {}
        for purse, account, job in jobs:
            if job.new:
                charged.setdefault((purse, account), []).extend(key.hex() for key in job.new)
        return charged

    def restore(self, charges: Iterable[Mapping[str, Any]]) -> None:
        """Put back what an earlier process of the same run was charged.

        Args:
            charges: "purse", "account" and "keys" as :meth:`take` gave them.
        """
        for charge in charges:
            paid = self._paid.setdefault((charge["purse"], charge["account"]), set())
            paid.update(map(bytes.fromhex, charge["keys"]))
