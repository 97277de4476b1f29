"""The way to the models of a run: budget, cache, tills, retries and clocks around the boxes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from fedbbpt import registry
from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.budget import Budget
from fedbbpt.config import Config
from fedbbpt.errors import ConfigError
from fedbbpt.parts import Door, Phase, Vault
from fedbbpt.sharing import Split
from fedbbpt.storage import Store
from fedbbpt.till import Bill, Caps, Tills
from fedbbpt.types import Job, Receipt
from fedbbpt.wrappers.cached import Cached
from fedbbpt.wrappers.metered import Metered
from fedbbpt.wrappers.retrying import Retrying
from fedbbpt.wrappers.timed import Timed
from fedbbpt.writing import Writing


class Shelf(Vault, Protocol):
    """Where paid rows and requests are kept, and secrets: :class:`fedbbpt.ledger.Ledger`."""

    def view(self, account: str, round: int, steady: bool = False) -> Store:
        """Rows as one account sees them in one round."""

    def book(self, account: str, round: int, receipt: Receipt, rows: Mapping[bytes, Array]) -> None:
        """Write a request with its rows durably."""

    def bills(self, writes: bool = False) -> Mapping[str, Bill]:
        """What each account was billed so far; for writing alone, if ``writes``."""


class Doors:
    """Opens the model to one account for one job.

    Args:
        config: of the run.
        split: its examples.
        shelf: where what is paid is kept.
        box: the model that follows prompts; ``writer``: the one that writes them.

    Attributes:
        box: the model with its timer and retries.
        timer: of both models.
        priced: what a request costs is known of both.
        budget: of all accounts.

    Raises:
        ConfigError: a cap in dollars, and a model without a price.
    """

    def __init__(
        self, config: Config, split: Split, shelf: Shelf, box: AtomicBox, writer: AtomicBox
    ) -> None:
        self.timer, self._shelf = Timed(box), shelf
        self.box = self._writer = Retrying(self.timer, config.box.attempts)
        if writer is not box:
            attempts = (config.writer or config.box).attempts
            self._writer = Retrying(Timed(writer, self.timer), attempts)
        self.budget = Budget(config.budget.queries, config.budget.client_queries)
        caps, written = _caps(config, split, box, writer), partial(shelf.bills, True)
        self._tills = Tills(caps, shelf.book, shelf.bills, written)
        self.priced = box.priced and writer.priced

    def __call__(self, account: str, job: Job, phase: Phase) -> Door:
        """A door, to be charged to the phase's purse."""
        purse = self.budget.open(phase.purse, account, job.quotas.get(account))
        model = self._writer if phase.writes else self.box
        final = phase.purse != "train"
        paid = model.billed(self._tills.open(account, job.round, final, phase.writes))
        store = self._shelf.view(account, job.round, model.steady)
        return Door(Metered(Cached(paid, store), purse), purse)


def writer_of(config: Config, box: AtomicBox, writing: Writing | None) -> AtomicBox:
    """The model that writes prompts: that of ``[writer]``, else the box itself, with replies long
    enough where nobody has said how long.
    """
    table, made = config.writer, box
    if table is not None:
        made = box.writer or registry.make("boxes", table.kind, table.options, "writer")
        if "reply_tokens" in table.options:
            return made
    return made if writing is None else made.at_length(writing.reply_tokens)


def _caps(config: Config, split: Split, box: AtomicBox, writer: AtomicBox) -> Caps:
    table = config.budget
    for key, model in (("box", box), ("writer", writer)):
        if (table.usd or table.client_usd) and not model.priced:
            raise ConfigError(
                f"the price of {model.name} is not known, so a cap in dollars could not hold; give "
                f"{key}.prices = {{input = ..., output = ...}}, in dollars for a million tokens, "
                "if the box takes it"
            )
    batches = [*split.holdout.values(), *split.test.values()]
    kept = sum({id(batch): batch.size for batch in batches}.values())
    final = kept * (config.method.snapshots + 2)
    return Caps(table.tokens, table.usd, table.client_tokens, table.client_usd, final)
