"""What the clients' steps will cost, asked of them before anything is paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedbbpt.budget import Budget
from fedbbpt.build import Federation
from fedbbpt.errors import BudgetTooSmall, ConfigError
from fedbbpt.types import Job


@dataclass(frozen=True)
class Needs:
    """Queries that a client's local step, and its first step besides, will cost; see
    :func:`fedbbpt.phases.setup`.

    Attributes:
        step, once: by client.
        common: of a step for all clients together.
        counts: by client, of one count for a label mapping; nothing where nobody counts.
    """

    step: Mapping[str, int]
    once: Mapping[str, int]
    common: int
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """One count by all clients."""
        return sum(self.counts.values())

    def most(self, active: int | None) -> int:
        """A round of so many clients, of all if ``None``, costs."""
        return self.common + sum(sorted(self.step.values(), reverse=True)[:active])

    def payable(self, budget: Budget, counts: int) -> bool:
        """Whether all clients can still count so often."""
        each = all(budget.left_of(name) >= counts * cost for name, cost in self.counts.items())
        return each and budget.left >= counts * self.count


def count_needs(federation: Federation) -> Needs:
    """Ask every client what a step will cost, before the first; nothing is paid.

    Raises:
        BudgetTooSmall: the budget cannot pay for one step of one round.
        ConfigError: a client's own cap cannot pay for what it has to count.
    """
    needs = recount(federation)
    _refuse_if_too_small(federation, needs)
    return needs


def recount(federation: Federation) -> Needs:
    """Ask every client what a step costs now."""
    config = federation.config
    job = Job("setup", 0, 1, config.run.seed)
    updates = federation.engine.map(job, federation.clients)
    searches = federation.baseline is None
    step = {u.client: int(u.arrays["step"]) * searches for u in updates}
    once = {u.client: int(u.arrays["once"]) for u in updates}
    shared = searches and federation.parts.directions == "shared"
    common = max((int(u.arrays["common"]) for u in updates), default=0) if shared else 0
    return Needs(step, once, common, once if federation.parts.counts else {})


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
