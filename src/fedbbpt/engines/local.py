"""All clients in this process, one after another or in threads, with the same bits either way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from fedbbpt.budget import FEDERATION
from fedbbpt.errors import BudgetSpent, ConfigError
from fedbbpt.parts import Client, Door, Parts, Phase
from fedbbpt.protocols import Engine, Prompt
from fedbbpt.round import work
from fedbbpt.types import Job, Update


class Local(Engine):
    """Runs jobs on clients that live here.

    Args:
        parts: what the method is made of.
        clients: by name.
        federation: opens the federation's own door, for what it asks on behalf of all.
        threads: clients at work at the same time. Threads pay where a box waits (a remote API);
            a local model is busy with one client already.
    """

    def __init__(
        self,
        parts: Parts,
        clients: Mapping[str, Client],
        federation: Callable[[Job, Phase], Door],
        threads: int = 1,
    ) -> None:
        if threads < 1:
            raise ConfigError(f"engine.threads is {threads}; it must be at least 1")
        self.parts, self.clients, self.federation = parts, clients, federation
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def adopt(self, parts: Parts, prompts: Mapping[str, Prompt]) -> None:
        """From now on clients work with these parts, and train with their own prompts."""
        self.parts = parts
        own = self.clients.items()
        self.clients = {name: replace(client, prompt=prompts.get(name)) for name, client in own}

    def prepare(self, job: Job) -> Job:
        """Pays once for what the job's points cost apart from any example, where all share them."""
        parts = self.parts
        if "points" in job.arrays:
            prompts = parts.snapshots(job.arrays["points"])
        elif parts.directions == "shared":
            points = parts.candidates(job, FEDERATION, 0, parts.receive(job.arrays))
            prompts = parts.prompt.render(points)
        else:
            return job
        door = self.federation(job, parts.phases[job.phase])
        try:
            door.box(prompts, ())
        except BudgetSpent:
            return replace(job, steps=0)
        return job

    def map(self, job: Job, clients: Sequence[str]) -> list[Update]:
        """Updates in the order of ``clients``."""

        def one(name: str) -> Update:
            return work(self.parts, self.clients[name], job)

        if self._pool is None:
            return [one(name) for name in clients]
        return list(self._pool.map(one, clients))
