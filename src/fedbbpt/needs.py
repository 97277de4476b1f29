"""What the clients' steps will cost, asked of them before anything is paid."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedbbpt.admission import sane
from fedbbpt.budget import Budget
from fedbbpt.build import Federation
from fedbbpt.check import check_clients
from fedbbpt.errors import BudgetTooSmall, ConfigError
from fedbbpt.post import Card
from fedbbpt.protection import check_sum
from fedbbpt.sharing import Split
from fedbbpt.types import Batch, Job, Picture


@dataclass(frozen=True)
class Needs:
    """Queries that a client's local step, and its first step besides, will cost; see
    :func:`fedbbpt.phases.setup`.

    Attributes:
        step, once: by client.
        common: of a step for all clients together.
        counts: by client, of one count for a label mapping; nothing where nobody counts.
        sizes: training examples by client.
        refused: (client, reason) of those whose answer was none; they do not take part.
    """

    step: Mapping[str, int]
    once: Mapping[str, int]
    common: int
    counts: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    refused: Sequence[tuple[str, str]] = ()

    @property
    def count(self) -> int:
        """One count by all clients."""
        return sum(self.counts.values())

    def most(self, active: int | None) -> int:
        """A round of so many clients, of all if ``None``, costs."""
        return self.common + sum(sorted(self.step.values(), reverse=True)[:active])

    def joined(self, other: Needs) -> Needs:
        """With other clients' needs."""
        return Needs(
            {**self.step, **other.step},
            {**self.once, **other.once},
            max(self.common, other.common),
            {**self.counts, **other.counts},
            {**self.sizes, **other.sizes},
            (*self.refused, *other.refused),
        )

    def weights(self, clients: Sequence[str]) -> dict[str, float]:
        """The most that each of them may weigh."""
        return {name: self.sizes[name] for name in clients}

    def quotas(
        self, budget: Budget, chosen: Sequence[str], met: Container[str]
    ) -> dict[str, int] | None:
        """Each client's share of what is left, by need; ``None`` if one step is too dear.

        Args:
            budget: of all accounts.
            chosen: clients of the round; ``met``: those that have paid their first step.
        """
        step, once = self.step, self.once
        need = {name: step[name] + (0 if name in met else once[name]) for name in chosen}
        # Counts for the last snapshot must stay payable.
        pool, total = budget.left - self.common - self.count, sum(need.values())
        if pool < total or budget.left < 1:
            return None
        quotas = {name: pool * cost // total if total else 0 for name, cost in need.items()}
        kept = {name: budget.left_of(name) - self.counts.get(name, 0) for name in chosen}
        return {name: int(max(0, min(quota, kept[name]))) for name, quota in quotas.items()}

    def payable(self, budget: Budget, counts: int) -> bool:
        """Whether all clients can still count so often."""
        each = all(budget.left_of(name) >= counts * cost for name, cost in self.counts.items())
        return each and budget.left >= counts * self.count


def count_needs(federation: Federation) -> Needs:
    """Ask every client what a step will cost, before the first; nothing is paid.

    Raises:
        BudgetTooSmall: the budget cannot pay for one step of one round.
        Incompatible: the merge, or a shield, needs more clients than there are.
        ConfigError: a client's own cap cannot pay for what it has to count, or no client answered
            as it should.
    """
    everyone, parts = len(federation.clients), federation.parts
    if federation.baseline is None:
        active = min(federation.config.rounds.clients_per_round or everyone, everyone)
        check_clients(parts.aggregator, active)
        check_sum(parts.shields, active)
    needs = recount(federation)
    if needs.refused and not needs.step:
        name, reason = needs.refused[0]
        raise ConfigError(f"no client can take part; of '{name}': {reason}")
    _refuse_if_too_small(federation, needs)
    return needs


def meet(federation: Federation) -> Federation:
    """The federation with clients that have come since the last time."""
    cards = federation.engine.enrol()
    if not cards:
        return federation
    return replace(federation, split=_enrolled(federation.split, cards))


def _enrolled(split: Split, cards: Iterable[Card]) -> Split:
    """With clients whose examples are elsewhere: here there are only as many blanks."""
    train, back, test = dict(split.train), dict(split.holdout), dict(split.test)
    for card in cards:
        numbers = (card.train, card.holdout, card.test)
        for batches, number in zip((train, back, test), numbers, strict=True):
            blank = Picture(np.zeros((1, 1, 3), np.uint8)) if card.pictures else None
            batches[card.client] = Batch((blank,) * number, np.zeros(number, np.int64))
    names = tuple(sorted({*split.clients, *(card.client for card in cards)}))
    return replace(split, train=train, holdout=back, test=test, clients=names)


def recount(federation: Federation, clients: Sequence[str] | None = None) -> Needs:
    """Ask clients, all if none are named, what a step costs now."""
    config = federation.config
    job = Job("setup", 0, 1, config.run.seed)
    asked = federation.clients if clients is None else clients
    sent = federation.engine.map(job, asked)
    updates, refused = sane(federation.parts, job, sent, asked)
    searches = federation.baseline is None
    step = {u.client: int(u.arrays["step"]) * searches for u in updates}
    once = {u.client: int(u.arrays["once"]) for u in updates}
    shared = searches and federation.parts.directions == "shared"
    common = max((int(u.arrays["common"]) for u in updates), default=0) if shared else 0
    sizes = {u.client: u.weight for u in updates}
    counts = once if federation.parts.counts else {}
    return Needs(step, once, common, counts, sizes, refused)


def trials(federation: Federation) -> int:
    """Candidates that a step will try for each that it could try before the search: of a pool of
    instructions there is the user's own alone, until clients have asked for more.
    """
    if federation.parts.prompt.writing is None:
        return 1
    return int(getattr(federation.parts.optimizer, "batch", 1))


def _refuse_if_too_small(federation: Federation, needs: Needs) -> None:
    table, step, once = federation.config.budget, needs.step, needs.once
    active = federation.config.rounds.clients_per_round or len(step)
    if not needs.counts:
        first = sum(sorted((step[c] + once[c] for c in step), reverse=True)[:active])
        writing = federation.parts.prompt.writing if federation.baseline is None else None
        if writing is not None:
            first *= trials(federation)
            first += sum(map(bool, step.values())) * writing.queries
        if table.queries < needs.common + first:
            raise BudgetTooSmall(table.queries, needs.common + first)
        return
    # All clients count at the start and at the end.
    first = sum(sorted(step.values(), reverse=True)[:active]) + 2 * needs.count
    if table.queries < needs.common + first:
        what = "one step of one round and two counts of all training examples cost"
        raise BudgetTooSmall(table.queries, needs.common + first, what)
    for name, cost in needs.counts.items():
        most = step[name] + 2 * cost
        if table.client_queries is not None and table.client_queries < most:
            raise ConfigError(
                f"budget.client_queries is {table.client_queries}, but one step and two counts of "
                f"its training examples cost client '{name}' {most} queries"
            )
