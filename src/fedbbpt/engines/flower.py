"""Clients on other machines, each a node of Flower: `fedbbpt server` and `fedbbpt node`.

Nothing here knows Flower: a :class:`fedbbpt.post.Post` carries the letters. A job is one letter to
each client and one back. A round ends when all have answered, or at its deadline with a quorum of
those that were asked; no wait is without an end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fedbbpt.arrays import Arrays
from fedbbpt.budget import FEDERATION, Away
from fedbbpt.engines.local import Local
from fedbbpt.errors import ConfigError, TooFewNodes
from fedbbpt.learned import learned
from fedbbpt.parts import Client, Door, Parts, Phase
from fedbbpt.post import Card, Letter, Misread, Post, answered, ask, introduced, invite, mark
from fedbbpt.protocols import Prompt
from fedbbpt.round import work
from fedbbpt.types import Job, Update

TRIES = 3
"""Deadlines to wait for a quorum before a run is given up, to be resumed."""

LULL = 3.0
"""Seconds in which nobody has come, after which those that have are asked who they are."""

Report = Callable[[str, str, Away], None]


class Flower(Local):
    """Sends jobs to nodes; what belongs to no node, such as a public test set, is done here.

    Args:
        parts: what the method is made of.
        clients: by name; of those elsewhere only the names count.
        federation: opens the federation's own door, for what is asked here.
        report: takes what was charged elsewhere.
        post: carries letters.
        deadline: seconds in which a round's updates have to be here.
        quorum: share of the clients asked that must answer; a round of fewer is waited for again.
        join: seconds in which nodes can come before the first round; with a quorum of them it then
            begins, and others come in later.
        nodes: how many may be expected; 0 for all that have a key.

    Raises:
        ConfigError: an option is out of range, or nothing carries letters.
    """

    def __init__(
        self,
        parts: Parts,
        clients: Mapping[str, Client],
        federation: Callable[[Job, Phase], Door],
        report: Report | None = None,
        post: Post | None = None,
        deadline: float = 600.0,
        quorum: float = 0.5,
        join: float = 120.0,
        nodes: int = 0,
    ) -> None:
        if post is None or report is None:
            raise ConfigError(
                "engine.kind is 'flower', which needs a server and nodes: start the one with "
                "fedbbpt server CONFIG, the others with fedbbpt node, or set engine.kind = 'local'"
            )
        if not deadline > 0:
            raise ConfigError(f"engine.deadline is {deadline}; it must be above 0, in seconds")
        if not 0 < quorum <= 1:
            raise ConfigError(f"engine.quorum is {quorum}; it must be above 0 and at most 1")
        super().__init__(parts, clients, federation)
        self.post, self.report, self.run = post, report, "new"
        self.deadline, self.quorum, self._join, self._nodes = deadline, quorum, join, nodes
        self._sent, self._shared = 0, ("", 0)
        self._own: Mapping[str, Prompt] = {}
        self._cards: dict[str, Card] = {}
        self._refused: set[str] = set()
        self._taught: dict[str, str] = {}
        self._gone: set[str] = set()
        self._notices: list[dict[str, Any]] = []

    def begin(self, run: str) -> None:
        """The run has a name, under which nodes keep what they have answered."""
        self.run = run
        self._taught.clear()  # they keep by run what they were taught

    def adopt(self, parts: Parts, prompts: Mapping[str, Prompt]) -> None:
        """From now on clients work with these parts, and train with their own prompts."""
        super().adopt(parts, prompts)
        self._own = prompts

    def prepare(self, job: Job) -> Job:
        """Nothing yet: in :meth:`map` every node does it for itself."""
        self._shared = job.phase, job.round
        return job

    def notices(self) -> list[dict[str, Any]]:
        """What happened to nodes since the last time."""
        told, self._notices = self._notices, []
        return told

    # --- who is there ----------------------------------------------------------------------------

    def enrol(self) -> list[Card]:
        """The cards of nodes that have come since the last time; those that do not fit are told
        why, and left out. The first time they are waited for.

        Raises:
            TooFewNodes: the first time, if there is no quorum of them.
        """
        if self._cards:
            return self._cards_of(self._here())
        began, found = time.monotonic(), list[Card]()
        end, seen, since = began + self._join, set[str](), began
        while True:
            here, now = self._here(), time.monotonic()
            if here != seen:
                seen, since = here, now
            wanted = self._nodes or len(self.post.names) or 1
            ready = len(here) >= wanted or now > end
            # One that does not fit need not wait for the others to hear so.
            if ready or now - since > LULL:
                found += self._cards_of(here)
            if ready:
                least = math.ceil(self.quorum * wanted)
                if len(self._cards) >= least:
                    return found
                if now > end:
                    lacking = self._lacking(self.post.names - self._cards.keys())
                    raise TooFewNodes("join", 0, len(self._cards), lacking, least)
            self.post.pause()

    def _here(self) -> set[str]:
        """The nodes that are connected; one that was refused and left may try again."""
        here = self.post.online()
        self._refused &= here
        return here

    def _lacking(self, names: Iterable[str]) -> dict[str, str]:
        """Why each of these gave no answer, as far as that is known."""
        why = {str(notice["client"]): str(notice["why"]) for notice in self._notices}
        return {name: why.get(name, "") for name in sorted(names)}

    def _cards_of(self, here: set[str]) -> list[Card]:
        fresh = here - self._cards.keys() - self._refused
        if not fresh:
            return []
        replies = self._exchange({name: invite(self.post.agreed) for name in fresh}, self.deadline)
        cards = []
        for name in sorted(fresh):
            letter = replies.get(name)
            if letter is None:
                continue  # it is asked again the next time
            try:
                card = introduced(letter, name)
            except Misread as error:
                self._refused.add(name)
                self._note(name, "refused", str(error))
                continue
            first = next(iter(self._cards.values()), card)
            self._cards[name] = card
            cards.append(card)
            self._note(name, "joined", f"with {card.train} training examples")
            if card.box != first.box:  # one prompt is for one model
                why = f"its model is {card.box}, and that of {first.client} is {first.box}"
                self._note(name, "model", why)
        return cards

    # --- a job -----------------------------------------------------------------------------------

    def map(self, job: Job, clients: Sequence[str]) -> list[Update]:
        """Updates of those that answered in time, in the order of ``clients``.

        Raises:
            TooFewNodes: fewer than the quorum did, after as many deadlines as there are tries.
        """
        here = [name for name in clients if name not in self.post.names]
        away = [name for name in clients if name in self.post.names]
        found: dict[str, Update] = {}
        if here:
            own = super().prepare(job) if self._is_shared(job) else job
            found = {name: work(self.parts, self.clients[name], own) for name in here}
        if away:
            remote = self._ask(job, away)
            self._charge(job, remote, not here)
            found |= remote
        return [found[name] for name in clients if name in found]

    def _ask(self, job: Job, clients: Sequence[str]) -> dict[str, Update]:
        found: dict[str, Update] = {}
        least = max(1, math.ceil(self.quorum * len(clients)))
        failed: set[str] = set()
        first = self._sent + 1
        for _ in range(TRIES):
            end = time.monotonic() + self.deadline
            wanted = [name for name in clients if name not in found and name not in failed]
            there = self._wait_for(wanted, least - len(found), end)
            for name in there & self._gone:
                self._note(name, "back", "", job)
            self._gone -= there
            letters = {name: self._letter(job, name) for name in wanted if name in there}
            replies = self._exchange(letters, end - time.monotonic(), job, first)
            for name, letter in replies.items():
                try:
                    found[name] = answered(letter, self.run, job, name)
                    self._taught[name] = mark(self._learned(name))
                except Misread as error:
                    failed.add(name)
                    self._note(name, "refused", str(error), job)
            for name in wanted:
                if name not in there and name not in self._gone:
                    self._gone.add(name)
                    self._note(name, "absent", "it is not connected", job)
            if len(found) >= least:
                return found
        lacking = self._lacking(set(clients) - found.keys())
        raise TooFewNodes(job.phase, job.round, len(found), lacking, least)

    def _wait_for(self, wanted: Sequence[str], least: int, end: float) -> set[str]:
        """Those of the wanted that are there; more are waited for only below the quorum."""
        while True:
            there = self.post.online() & set(wanted)
            if len(there) >= min(least, len(wanted)) or time.monotonic() >= end:
                return there
            self.post.pause()

    def _exchange(
        self,
        letters: Mapping[str, Letter],
        seconds: float,
        job: Job | None = None,
        first: int | None = None,
    ) -> dict[str, Letter]:
        """Replies until all are here or the time is over; who sends none, and who is late, is
        noted. An answer to an earlier try of the same job, from the ``first`` sending on, is one.
        """
        self._sent += 1
        first = first or self._sent
        replies: dict[str, Letter] = {}
        waiting, end = set(letters), time.monotonic() + seconds
        if waiting:
            self.post.send(self._sent, letters)
        while waiting:
            for arrived in self.post.collect():
                if arrived.number < first and arrived.letter is None:
                    continue  # it was late or lost before
                if arrived.number < first:
                    self._note(arrived.client, "late", "its answer to an earlier round is dropped")
                elif arrived.letter is not None:
                    replies[arrived.client] = arrived.letter
                    waiting.discard(arrived.client)
                else:
                    self._note(arrived.client, "lost", arrived.lost, job)
                    waiting.discard(arrived.client)
            if time.monotonic() >= end:
                break
            if waiting:
                self.post.pause()
        for name in sorted(waiting):
            self._note(name, "late", f"no answer within {self.deadline:g} s", job)
        return replies

    def _letter(self, job: Job, client: str) -> Letter:
        parts = self._learned(client)
        known = self._taught.get(client) == mark(parts)
        return ask(
            self.run,
            job,
            client,
            shared=self._is_shared(job),
            parts=None if known or not parts else parts,
            state=mark(parts),
        )

    def _is_shared(self, job: Job) -> bool:
        # Not by identity: a secure sum sends the prepared job with keys added.
        return self._shared == (job.phase, job.round)

    def _learned(self, client: str) -> Arrays:
        return learned(self.parts, self._own.get(client))

    def _charge(self, job: Job, updates: Mapping[str, Update], alone: bool) -> None:
        """Report what the nodes were charged; what they all tried, once."""
        purse = self.parts.phases[job.phase].purse
        for name, update in updates.items():
            self.report(purse, name, Away(update.queries, update.paid, update.dropped))
        if alone:  # else it was charged where it was asked here
            common = max((update.common for update in updates.values()), default=0)
            self.report(purse, FEDERATION, Away(common, 0, 0))

    def _note(self, client: str, what: str, why: str, job: Job | None = None) -> None:
        at = {} if job is None else {"phase": job.phase, "round": job.round}
        self._notices.append({"client": client, "what": what, "why": why, **at})
        self.post.tell(self._notices[-1])
