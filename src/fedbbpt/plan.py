"""What a run will cost, before anything is paid: the whole run, rehearsed without its model.

Queries, requests and caps come out as in the run itself, up to what depends on the model's
answers: a search for words may run out of candidates and end early, and how many of its snapshots
differ is a guess. Tokens are counted in the very requests, by their bytes where the model's tokens
are not known. No query is sent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from fedbbpt import alone, api, registry
from fedbbpt.budget import PURSES
from fedbbpt.config import Config
from fedbbpt.errors import BudgetSpent, ConfigError
from fedbbpt.ledger import Ledger
from fedbbpt.protocols import AtomicBox
from fedbbpt.record import read_json, read_lines
from fedbbpt.rehearsal import Rehearsed, Tally
from fedbbpt.rundir import CHARGES, LEDGER, MARK, RunDir
from fedbbpt.sharing import Split
from fedbbpt.till import Bill
from fedbbpt.trees import Tree


class Cap(NamedTuple):
    """A cap and how near the run comes to it.

    Attributes:
        key: of the config.
        limit: what it says.
        expected: what the run, or the client that spends most, will have spent.
        binds: without it the run would spend more.
    """

    key: str
    limit: float
    expected: float
    binds: bool


class Share(NamedTuple):
    """What one account is charged and billed; ``""`` is the federation, asking for all.

    A query that two clients make is charged to both, and billed to the first.
    """

    client: str
    train: int
    select: int
    evaluation: int
    requests: int
    tokens: int
    usd: float


@dataclass(frozen=True)
class Plan:
    """What a run is expected to take.

    Attributes:
        box, method, clients, rounds, stopped: as in ``result.json``.
        queries: charged, by purse, and their sum as ``"total"``; ``"asked"`` is what the model
            has to answer, since what two clients both ask is charged twice and asked once.
        calls: to the box.
        requests: over a wire; ``None`` for a model on this machine, as are the next three.
        tokens: ``"prompt"`` and ``"completion"``.
        usd: by the price table; ``None`` also where no price is known.
        hours: by the limits, the concurrency and the latency.
        latency: seconds that a request is taken to need.
        caps: those that the config sets.
        shares: of every account that spends anything.
    """

    box: str
    method: str
    clients: int
    rounds: int
    stopped: str
    queries: dict[str, int]
    calls: int
    requests: int | None
    tokens: dict[str, int] | None
    usd: float | None
    hours: float | None
    latency: float
    caps: tuple[Cap, ...]
    shares: tuple[Share, ...]

    def tree(self) -> Tree:
        """As JSON has it."""
        caps, shares = [c._asdict() for c in self.caps], [s._asdict() for s in self.shares]
        return {**asdict(self), "caps": caps, "shares": shares}


def plan(
    config: Config,
    latency: float = 1.0,
    box: AtomicBox | None = None,
    split: Split | None = None,
) -> Plan:
    """What the run of a config will take. The model is asked nothing.

    Args:
        config: of the run.
        latency: seconds that a request over a wire needs; ``fedbbpt doctor`` measures it.
        box, split: as in :func:`fedbbpt.api.run`.

    Raises:
        UsageError: what a run would refuse, or a cap that cannot pay for its last pass.
    """
    if not 0 < latency < float("inf"):
        raise ConfigError(f"--latency is {latency:g}; it must be above 0 seconds")
    if box is None:
        box = registry.make("boxes", config.box.kind, config.box.options, "box")
    rehearsed = Rehearsed(box, int(_option(config, "max_concurrency") or 1))
    # Rows in a ledger that exists are other runs': the made-up ones must not get there.
    table = config.run.model_copy(update={"ledger": ""})
    with tempfile.TemporaryDirectory(prefix="fedbbpt-plan-") as folder:
        out = Path(folder) / "run"
        fresh = config.model_copy(update={"run": table})
        try:
            result = api.run(fresh, out, box=rehearsed, split=split).result
        except BudgetSpent as spent:
            raise ConfigError(
                f"{spent}: it cannot pay for one round and the last pass; raise {spent.key}"
            ) from spent
        return _plan(config, latency, rehearsed, result, out)


def _option(config: Config, key: str) -> float:
    """An option of the box as it will be; 0 where the box has none of that name."""
    found = signature(registry.find("boxes", config.box.kind)).parameters.get(key)
    return float(config.box.options.get(key, found.default if found else 0))


@dataclass
class _Books:
    """What a rehearsal wrote down.

    Attributes:
        charged: (account, purse) -> queries of each job that was charged any.
        bills: by account.
        tokens: of prompts and replies.
    """

    charged: dict[tuple[str, str], list[int]]
    bills: dict[str, Bill]
    tokens: dict[str, int]

    @classmethod
    def read(cls, out: Path) -> _Books:
        """From a run directory, or from those of clients that each work for themselves."""
        books, each = cls({}, {}, {"prompt": 0, "completion": 0}), alone.folders(out)
        with closing(Ledger()) as ledger:
            ledger.open(out / LEDGER)
            for path in each or [out]:
                books._add(ledger, RunDir(path, "").state, unquote(path.name) if each else None)
        return books

    def _add(self, ledger: Ledger, state: Path, only: str | None) -> None:
        """One run's; all of it is the client's ``only``, if it is named."""
        for line in read_lines(state / CHARGES):
            account = line["account"] if only is None else only
            self.charged.setdefault((account, line["purse"]), []).append(len(line["keys"]))
        ledger.run = read_json(state / MARK)["run"]
        for account, bill in ledger.bills().items():
            name = account if only is None else only
            self.bills[name] = self.bills.get(name, Bill()).plus(bill)
        for kind in self.tokens:
            self.tokens[kind] += (ledger.requests() or {}).get(f"{kind}_tokens", 0)

    def spent(self, account: str, purse: str) -> int:
        """Queries charged."""
        return sum(self.charged.get((account, purse), ()))


def _plan(config: Config, latency: float, box: Rehearsed, result: Tree, out: Path) -> Plan:
    books, queries = _Books.read(out), {p: int(result["queries"][p]) for p in PURSES}
    total = _total(books)
    return Plan(
        box=result["box"],
        method=result["method"],
        clients=result["clients"],
        rounds=result["rounds"],
        stopped=result["stopped"],
        queries={**queries, "total": sum(queries.values()), "asked": result["queries"]["paid"]},
        calls=box.tally.calls,
        requests=box.tally.requests if box.wired else None,
        tokens=books.tokens if box.billing else None,
        usd=total.usd if box.billing and box.priced else None,
        hours=_hours(config, latency, box.tally, total.tokens) if box.wired else None,
        latency=latency,
        caps=tuple(_caps(config, box.tally, books, result["stopped"])),
        shares=tuple(_shares(books)),
    )


def _total(books: _Books) -> Bill:
    total = Bill()
    for bill in books.bills.values():
        total = total.plus(bill)
    return total


def _hours(config: Config, latency: float, tally: Tally, tokens: int) -> float:
    """The most that concurrency, clients at work at once and the two limits ask for."""
    threads = float(config.engine.options.get("threads", 1))
    abreast = _option(config, "max_concurrency") or threads
    seconds = latency * max(tally.turns / threads, tally.requests / abreast)
    for key, number in (("requests_per_minute", tally.requests), ("tokens_per_minute", tokens)):
        limit = _option(config, key)
        if limit:
            seconds = max(seconds, 60 * number / limit)
    return seconds / 3600


def _caps(config: Config, tally: Tally, books: _Books, stopped: str) -> Iterator[Cap]:
    """Those of the config. A cap on queries binds where one more of the largest rounds would
    not fit.
    """
    train = [jobs for (_, purse), jobs in books.charged.items() if purse == "train"]
    bills, most = books.bills.values(), config.budget.client_queries or float("inf")
    own = any(sum(jobs) + max(jobs) > most for jobs in train)
    whole = stopped == "budget" and not tally.refused and not own
    table = config.budget.model_dump()
    for key, spent, binds in (
        ("queries", [sum(map(sum, train))], whole),
        ("client_queries", map(sum, train), own),
        ("tokens", [_total(books).tokens], False),
        ("client_tokens", (bill.tokens for bill in bills), False),
        ("usd", [_total(books).usd], False),
        ("client_usd", (bill.usd for bill in bills), False),
    ):
        if table[key] is not None:
            name = f"budget.{key}"
            refused = name in tally.refused
            yield Cap(name, table[key], max(spent, default=0), binds or refused)


def _shares(books: _Books) -> Iterator[Share]:
    accounts = dict.fromkeys([*(account for account, _ in books.charged), *books.bills])
    for account in sorted(accounts):
        train, select, evaluation = (books.spent(account, purse) for purse in PURSES)
        bill = books.bills.get(account, Bill())
        yield Share(account, train, select, evaluation, *bill)
