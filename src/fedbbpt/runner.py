"""A run from its first round to the last message of its final phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fedbbpt.admission import Limits, admitted, sane
from fedbbpt.agreement import agreement
from fedbbpt.arrays import Arrays
from fedbbpt.books import Books, Watch
from fedbbpt.budget import PURSES
from fedbbpt.build import Federation
from fedbbpt.errors import RunDirError
from fedbbpt.guard import exchange, silent
from fedbbpt.ledger import Ledger
from fedbbpt.mapping import Mappings
from fedbbpt.needs import Needs, meet, recount
from fedbbpt.proposals import Proposals
from fedbbpt.random import stream
from fedbbpt.round import Played, Server, play
from fedbbpt.rundir import RunDir
from fedbbpt.sharing import TESTER
from fedbbpt.stopping import LATER, Rule
from fedbbpt.types import Job, Update

Progress = Callable[[str, dict[str, Any]], None]


class Run:
    """One run in one directory. It can be cut off anywhere and picks up its last checkpoint.

    Args:
        federation: the parts.
        directory: where it lives.
        ledger: open for this run.
        progress: told about phases and rounds.
    """

    def __init__(
        self, federation: Federation, directory: RunDir, ledger: Ledger, progress: Progress
    ) -> None:
        self.federation, self.directory, self.ledger = federation, directory, ledger
        self.progress, self.parts, self.config = progress, federation.parts, federation.config
        space = self.parts.prompt.space
        state = self.parts.optimizer.init(space)
        first = Server(0, state, self.parts.aggregator.init(state))
        known = federation.budget, self.parts.shields
        self.books = Books(directory, first, np.zeros(space.shape), *known)
        self.seed = self.config.run.seed
        self.limits = Limits(**self.config.admission.model_dump())
        self.maps: Mappings | None = None
        self.pool: Proposals | None = None
        try:
            if self.parts.counts:
                self.maps = Mappings(federation, directory.state, self.books.counts.maps)
            if self.parts.prompt.writing is not None and federation.baseline is None:
                self.pool = Proposals(federation, directory.state, self.books.counts.pools)
        except RunDirError:
            self.books.close()
            raise
        self._adopt()
        if not self.books.events.flush():  # else the run was begun before, and told them then
            for report in federation.gathered.reports:
                self.books.events.write("vocabulary", **report)
            for note in self.notes:
                self.books.events.write("note", sentence=note)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, what is lacking and what stands in for it, a sentence each."""
        kept = self.maps or self.pool
        return (*self.federation.split.notes, *(kept.notes if kept else ()))

    def search(self, needs: Needs) -> None:
        """Rounds until the budget cannot pay one more, ``rounds.max``, or :mod:`.stopping`."""
        books, counts, limits = self.books, self.books.counts, self.config.rounds
        if self.pool is not None:  # it may have grown before this process began
            needs = recount(self.federation)
        while not counts.stopped:
            watch, needs = self._watch(), self._meet(needs)
            if self.maps is not None and not self.maps.made:
                self.maps.start(self._exchange, books)
                counts.met = sorted(self.federation.clients)
                self._adopt()
            needs, done = self._propose(needs)
            chosen = self._choose(needs)
            quotas = needs.quotas(self.federation.budget, chosen, counts.met)
            if quotas is None or done or self._played >= limits.max:
                counts.stopped = "budget" if quotas is None else "rounds"
                self._snapshot(needs)
            else:
                job = Job("search", books.server.round, limits.steps, self.seed, {}, quotas)
                engine, alone = self.federation.engine, self._watch()
                admit = partial(admitted, most=needs.weights(chosen), limits=self.limits)
                played = play(self.parts, engine, books.server, job, chosen, admit)
                if not played.refused and not any(u.weight for u in played.sent):
                    counts.stopped = "budget"
                self._book(played, alone)
                counts.met = sorted({*counts.met, *(u.client for u in played.sent)})
                if counts.stopped or self._due():
                    self._snapshot(needs)
                    self._look()
            books.save()
            watch.add()

    @property
    def _played(self) -> int:
        """Rounds of the search, without those in which clients counted."""
        return self.books.server.round - self.books.counts.asides

    def _meet(self, needs: Needs) -> Needs:
        """Let in clients that have come since the last round, where they can come and go."""
        known, before = meet(self.federation), {*self.federation.clients}
        fresh = [name for name in known.clients if name not in before]
        self.federation = known
        needs = needs.joined(recount(known, fresh)) if fresh else needs
        self.books.refuse(Job("setup", self.books.server.round, 1, self.seed), needs.refused)
        return replace(needs, refused=())

    def _choose(self, needs: Needs) -> list[str]:
        names = [name for name in self.federation.clients if name in needs.step]
        number = self.books.server.round
        active = min(self.config.rounds.clients_per_round or len(names), len(names))
        picked = stream(self.seed, "clients", number).permutation(len(names))[:active]
        return [names[i] for i in sorted(picked)]

    @property
    def _done(self) -> float:
        """The share of the budget, or of the rounds, that is spent."""
        budget = self.federation.budget
        return max(budget.spent("train") / budget.limit, self._played / self.config.rounds.max)

    def _due(self) -> bool:
        """Whether it is time for a snapshot; the last is kept when the search ends."""
        kept = len(self.books.snapshots.points)
        if self.maps is not None:  # the start again, under another mapping
            kept -= self.maps.named or self.maps.learns
        early = self._played < self.config.rounds.max
        return early and int(self._done * self.config.method.snapshots) >= kept

    def _look(self) -> None:
        """End the search if the newest snapshot is sure to be good, or bad, enough."""
        counts, kept, rule = self.books.counts, self.books.snapshots, Rule.of(self.config)
        number = rule.turn(self._done, counts.looks) if rule and not counts.stopped else 0
        if rule is None or not number:
            return
        points = {"points": np.array([kept.points[0], kept.points[-1]])}
        holders = self.federation.holders("holdout")
        found = rule.judge(number, self._told("look", LATER + kept.rounds[-1], holders, points))
        facts = {"round": kept.rounds[-1], "queries": kept.queries[-1], **found._asdict()}
        self.books.events.write("look", **facts)
        self.books.settle(self.federation.engine.notices())
        counts.looks, counts.stopped = number, found.stopped

    def _snapshot(self, needs: Needs) -> None:
        """Keep the point that the server would hand out now."""
        server = self.books.server
        best = self.parts.aggregator.best(self.parts.optimizer, server.state, server.memory)
        if self.maps is not None and not self.maps.again(self._exchange, self.books, best, needs):
            return
        self.books.snapshot(best, self.books.counts.maps)
        self._adopt()

    # --- what is learned besides (fedbbpt.mapping, fedbbpt.proposals) ----------------------------

    def refit(self) -> None:
        """After the choice: examples that were held back for it teach the mappings as well."""
        if self.maps is not None and self.federation.holders("holdout"):
            kept = self.books.snapshots
            self.maps.refit(self._exchange, kept.points, kept.maps)
            self._adopt()

    def _adopt(self) -> None:
        """Take the last mapping, or the pool as it has grown, everywhere."""
        if self.maps is not None and self.maps.made:
            self.parts, own = self.maps.parts(self.books.snapshots.maps)
            self.federation.engine.adopt(self.parts, own)
        if self.pool is not None and self.pool.made:
            self.parts = self.pool.parts()
            self.federation.engine.adopt(self.parts, {})
            server = self.books.server
            state = server.state._replace(pool=self.parts.prompt.space.points)
            self.books.server = server._replace(state=state)

    def _propose(self, needs: Needs) -> tuple[Needs, bool]:
        """Let the pool of instructions grow if it is time to.

        Returns:
            what a step costs then, and whether nothing is left to try.
        """
        books = self.books
        while True:
            done = self.parts.optimizer.done(books.server.state)  # dear: it may fit a process
            share = books.budget.spent("train") / books.budget.limit
            # What is proposed has to be tried as well.
            left = books.budget.left - needs.most(self.config.rounds.clients_per_round)
            if self.pool is None or not self.pool.due(share, done, left):
                return needs, done
            server = books.server
            self.pool.grow(self._exchange, books.events.write, server.state, server.round)
            books.counts.pools = self.pool.made
            books.counts.down += self.pool.bytes * len(self.federation.clients)
            self._adopt()
            needs = recount(self.federation)

    def _watch(self) -> Watch:
        return Watch(self.federation.doors.timer, self.books.counts)

    def _book(self, played: Played, watch: Watch) -> None:
        """Enter a round in the books and take its outcome as the server's state."""
        seconds, box = watch.read()
        agreed = None
        if played.job.phase == "search":
            agreed, self.books.heading = agreement(self.parts, played, self.books.heading)
        merge = self.books.record(played, seconds, box, agreed)
        self.books.settle(self.federation.engine.notices())
        self.books.server = played.server
        self.progress("round", merge)

    def ask_all(
        self, phase: str, holders: Sequence[str], extra: Arrays | None = None
    ) -> list[Update]:
        """What clients report on every snapshot.

        Charged apart from training. Each final phase has a round number of its own, behind the
        last round of the search.
        """
        if silent(self.parts, self.parts.phases[phase]):
            holders = [name for name in holders if name == TESTER]
        if not holders:
            return []
        number = self.books.server.round + 1 + PURSES.index(self.parts.phases[phase].purse)
        arrays = {"points": np.array(self.books.snapshots.points), **(extra or {})}
        updates = self._told(phase, number, holders, arrays)
        for update in updates:
            facts = {k: np.asarray(v).tolist() for k, v in update.arrays.items()}
            self.books.events.write(
                phase, client=update.client, examples=int(update.weight), **facts
            )
        self.books.settle(self.federation.engine.notices())
        return updates

    def _told(
        self, phase: str, number: int, holders: Sequence[str], arrays: Arrays
    ) -> list[Update]:
        job, engine = Job(phase, number, 1, self.seed, arrays), self.federation.engine
        admit = partial(sane, clients=holders, limits=self.limits)
        came = exchange(self.parts, engine, engine.prepare(job), holders, admit, TESTER in holders)
        self.books.refuse(job, came.refused)
        return came.updates

    # --- a baseline's way to the clients (fedbbpt.baselines.Exchange) ----------------------------

    @property
    def classes(self) -> int:
        """C."""
        return len(self.federation.split.classes)

    @property
    def hidden(self) -> int:
        """H of the box's embeddings."""
        return self.federation.box.hidden

    def holders(self, kind: str) -> list[str]:
        """Names of those with examples of a kind."""
        return self.federation.holders(kind)

    def ask(self, phase: str, arrays: Arrays, clients: Sequence[str]) -> list[Update]:
        """One message down and one up, counted as a round."""
        watch = self._watch()
        updates = self._exchange(phase, arrays, clients)
        watch.add()
        return updates

    def _exchange(self, phase: str, arrays: Arrays, clients: Sequence[str]) -> list[Update]:
        watch, server = self._watch(), self.books.server
        job = Job(phase, server.round, 1, self.seed, arrays)
        sent = self.federation.engine.map(job, clients)
        let = sane(self.parts, job, sent, clients, self.limits)
        self._book(Played(server._replace(round=server.round + 1), job, *let), watch)
        self.books.counts.asides += 1
        return let.updates
