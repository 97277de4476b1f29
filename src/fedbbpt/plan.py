"""What a run will cost, before anything is paid: the whole run, rehearsed without its model.

Queries, requests and caps come out as in the run itself, up to what depends on the model's
answers: a search for words or instructions may end early, how many of its snapshots differ is a
guess, and so are the instructions that a model writes, each of which is taken to differ from all
others. Tokens are counted in the very requests, by their bytes where the model's tokens
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
from fedbbpt.auto import settle
from fedbbpt.black_box import AtomicBox
from fedbbpt.budget import PURSES
from fedbbpt.config import Config
from fedbbpt.errors import BudgetSpent, ConfigError
from fedbbpt.ledger import Ledger
from fedbbpt.record import read_json, read_lines
from fedbbpt.rehearsal import LENGTH, Rehearsed, Tally
from fedbbpt.rundir import CHARGES, LEDGER, MARK, RunDir
from fedbbpt.sections import Box
from fedbbpt.sharing import Split, examples
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
    config, box, _ = settle(config, box, split)
    if box is None:
        box = registry.make("boxes", config.box.kind, config.box.options, "box")
    split = examples(config) if split is None else split
    rehearsed = _rehearsed(config, box, split)
    # Rows in a ledger that exists are other runs': the made-up ones must not get there.
    table = config.run.model_copy(update={"ledger": ""})
    with tempfile.TemporaryDirectory(prefix="fedbbpt-plan-") as folder:
        out = Path(folder) / "run"
        # Made-up answers must not end the search early: the most that it may take is planned.
        stop = config.stop.model_copy(update={"alpha": 5e-324})
        fresh = config.at_home().model_copy(update={"run": table, "stop": stop})
        try:
            result = api.run(fresh, out, box=rehearsed, split=split).result
        except BudgetSpent as spent:
            raise ConfigError(
                f"{spent}: it cannot pay for one round and the last pass; raise {spent.key}"
            ) from spent
        return _plan(config, latency, rehearsed, result, out)


def _rehearsed(config: Config, box: AtomicBox, split: Split) -> Rehearsed:
    """The model and, where another one writes instructions, that one beside it."""
    right, writer = _right(config, split), None
    longest = int(config.prompt.options.get("longest", LENGTH))
    if config.writer is not None:
        table = config.writer
        pen = box.writer or registry.make("boxes", table.kind, table.options, "writer")
        writer = Rehearsed(pen, _abreast(table), longest=longest)
    return Rehearsed(box, _abreast(config.box), right, longest, writer)


def _right(config: Config, split: Split) -> dict[str, str]:
    """An answer to every input where answers are words."""
    if not registry.find("tasks", config.task).words:
        return {}
    held = [*split.train.values(), *split.holdout.values(), *split.test.values()]
    return {x: own[0] for b in held for x, own in zip(b.inputs, b.targets, strict=True)}


def _abreast(table: Box) -> int:
    return int(_option(table, "max_concurrency") or 1)


def _option(table: Box, key: str) -> float:
    """An option of the box as it will be; 0 where the box has none of that name."""
    found = signature(registry.find("boxes", table.kind)).parameters.get(key)
    return float(table.options.get(key, found.default if found else 0))


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
    boxes = {b: t for b, t in ((box, config.box), (box.writer, config.writer)) if b and t}
    wired, bills = [b for b in boxes if b.wired], [b for b in boxes if b.billing]
    hours = sum(_hours(config, t, latency, b.tally) for b, t in boxes.items() if b.wired)
    return Plan(
        box=result["box"],
        method=result["method"],
        clients=result["clients"],
        rounds=result["rounds"],
        stopped=result["stopped"],
        queries={**queries, "total": sum(queries.values()), "asked": result["queries"]["paid"]},
        calls=sum(b.tally.calls for b in boxes),
        requests=sum(b.tally.requests for b in wired) if wired else None,
        tokens=books.tokens if bills else None,
        usd=_total(books).usd if bills and all(b.priced for b in bills) else None,
        hours=hours if wired else None,
        latency=latency,
        caps=tuple(_caps(config, {k for b in boxes for k in b.tally.refused}, books, result)),
        shares=tuple(_shares(books)),
    )


def _total(books: _Books) -> Bill:
    total = Bill()
    for bill in books.bills.values():
        total = total.plus(bill)
    return total


def _hours(config: Config, table: Box, latency: float, tally: Tally) -> float:
    """The most that concurrency, clients at work at once and the two limits ask for."""
    threads = float(config.engine.options.get("threads", 1))
    abreast = _option(table, "max_concurrency") or threads
    seconds = latency * max(tally.turns / threads, tally.requests / abreast)
    for unit in ("requests", "tokens"):
        limit = _option(table, f"{unit}_per_minute")
        if limit:
            seconds = max(seconds, 60 * getattr(tally, unit) / limit)
    return seconds / 3600


def _caps(config: Config, refusing: set[str], books: _Books, result: Tree) -> Iterator[Cap]:
    """Those of the config. A cap on queries binds where one more of the largest rounds would
    not fit.
    """
    train = [jobs for (_, purse), jobs in books.charged.items() if purse == "train"]
    bills, most = books.bills.values(), config.budget.client_queries or float("inf")
    own = any(sum(jobs) + max(jobs) > most for jobs in train)
    whole = result["stopped"] == "budget" and not refusing and not own
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
            yield Cap(name, table[key], max(spent, default=0), binds or name in refusing)


def _shares(books: _Books) -> Iterator[Share]:
    accounts = dict.fromkeys([*(account for account, _ in books.charged), *books.bills])
    for account in sorted(accounts):
        train, select, evaluation = (books.spent(account, purse) for purse in PURSES)
        bill = books.bills.get(account, Bill())
        yield Share(account, train, select, evaluation, *bill)
