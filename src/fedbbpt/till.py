"""The tills: what requests over a wire may cost, for the federation and for each client.

A cap holds exactly however many requests are on the way: the most that a request can cost is kept
back before it is sent. What earlier processes of a run paid counts, since it is in the ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fedbbpt.arrays import Array
from fedbbpt.errors import BudgetSpent
from fedbbpt.storage import Hold
from fedbbpt.types import Receipt

RESERVE = 1.1
"""The final pass is taken to cost this much more than as many requests of the search did."""


class Bill(NamedTuple):
    """What was billed to someone, or may be.

    Attributes:
        requests: that brought something to be billed.
        tokens: of prompts and replies.
        usd: by the price table.
    """

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0

    def plus(self, other: Bill) -> Bill:
        """The sum."""
        return Bill(
            self.requests + other.requests, self.tokens + other.tokens, self.usd + other.usd
        )


@dataclass(frozen=True)
class Caps:
    """Most tokens and dollars; ``None`` for no cap.

    Attributes:
        tokens, usd: of the whole run, training and the rest.
        client_tokens, client_usd: of each client.
        final: requests of selection and evaluation, for which the search leaves enough.
    """

    tokens: int | None = None
    usd: float | None = None
    client_tokens: int | None = None
    client_usd: float | None = None
    final: int = 0


Record = Callable[[str, int, Receipt, Mapping[bytes, Array]], None]


@dataclass
class Tills:
    """One till per account and round, and the caps above them all.

    Attributes:
        caps: what they may spend.
        record: (account, round, receipt, rows) -> None, durable when it returns.
        past: what each account was billed by earlier processes; read when it is first needed.
        written: of that, what writing cost.
    """

    caps: Caps
    record: Record
    past: Callable[[], Mapping[str, Bill]]
    written: Callable[[], Mapping[str, Bill]] = dict
    _spent: dict[str, Bill] = field(default_factory=dict)
    _held: dict[str, Bill] = field(default_factory=dict)
    _written: Bill = field(default_factory=Bill)
    _read: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def open(self, account: str, round: int, final: bool, writes: bool = False) -> AccountTill:
        """The till of one account in one round; ``final`` once the search is over, ``writes`` for
        requests that say nothing of what the final pass will cost.
        """
        return AccountTill(self, account, round, final, writes)

    def hold(self, account: str, final: bool, hold: Hold) -> None:
        """Keep back; BudgetSpent if a cap cannot pay.

        Where only what others hold is in the way, it is waited for: most of that comes back.
        """
        with self._changed:
            if not self._read:
                self._spent, self._written = dict(self.past()), _sum(self.written())
                self._read = True
            while self._in_the_way(account, final, hold):
                self._changed.wait()
            self._held[account] = self._held.get(account, Bill()).plus(Bill(1, *hold))

    def _in_the_way(self, account: str, final: bool, hold: Hold) -> bool:
        """Whether others' holds are; BudgetSpent if what is spent is."""
        caps, spent, held = self.caps, _sum(self._spent), _sum(self._held)
        own, mine = self._spent.get(account, Bill()), self._held.get(account, Bill())
        apart = self._written
        plain = spent.plus(Bill(-apart.requests, -apart.tokens, -apart.usd))
        share = 0.0
        if plain.requests and not final:
            share = RESERVE * caps.final / plain.requests
        tokens, usd = spent.tokens + share * plain.tokens, spent.usd + share * plain.usd
        waits = False
        for name, cap, used, busy, asked in (
            ("tokens", caps.tokens, tokens, held.tokens, hold.tokens),
            ("usd", caps.usd, usd, held.usd, hold.usd),
            ("client_tokens", caps.client_tokens, own.tokens, mine.tokens, hold.tokens),
            ("client_usd", caps.client_usd, own.usd, mine.usd, hold.usd),
        ):
            if cap is not None and used + asked > cap:
                raise BudgetSpent(used, cap, asked, f"budget.{name}")
            waits = waits or (cap is not None and used + busy + asked > cap)
        return waits

    def settle(
        self, till: AccountTill, hold: Hold, receipt: Receipt, rows: Mapping[bytes, Array]
    ) -> None:
        """Give back what was held, and book what was billed."""
        account, receipt = till.account, receipt._replace(writes=till.writes)
        self.record(account, till.round, receipt, rows)
        tokens = receipt.prompt_tokens + receipt.completion_tokens
        with self._changed:
            self._held[account] = self._held[account].plus(Bill(-1, -hold.tokens, -hold.usd))
            if tokens or receipt.usd:
                bill = Bill(1, tokens, receipt.usd)
                self._spent[account] = self._spent.get(account, Bill()).plus(bill)
                if till.writes:
                    self._written = self._written.plus(bill)
            self._changed.notify_all()


class AccountTill(NamedTuple):
    """A :class:`fedbbpt.storage.Till` of one account in one round."""

    tills: Tills
    account: str
    round: int
    final: bool
    writes: bool

    def reserve(self, tokens: int, usd: float) -> Hold:
        """Keep back the most that a request can cost."""
        hold = Hold(tokens, usd)
        self.tills.hold(self.account, self.final, hold)
        return hold

    def settle(self, hold: Hold, receipt: Receipt, rows: Mapping[bytes, Array]) -> None:
        """Book the request with what it brought."""
        self.tills.settle(self, hold, receipt, rows)


def _sum(bills: Mapping[str, Bill]) -> Bill:
    total = Bill()
    for bill in bills.values():
        total = total.plus(bill)
    return total
