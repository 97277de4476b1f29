"""One round: one broadcast, local search on every client, one merge.

    server   picks clients                                   stream(seed, round)
    server   state   = optimizer.plan(state, rng)            what only the server can decide
    server → Job(phase, round, steps, seed, arrays, quotas)  ONE message down
    client   points  = optimizer.ask(state, rng)             (K, *shape)
    client   prompts = prompt.render(points)                 K prompts
    client   replies = box(prompts, batch)                   ONE call: meter → cache → retry → model
    client   losses  = task.loss(replies, batch).mean(1)     (K,)
    client   state   = optimizer.tell(state, points, losses) back to ask, ``steps`` times
    client → Update(arrays, weight) through shields          ONE message up
    server   updates, refused = admit(updates)               shape, type, size, round, sender
    server   state, memory = aggregator.merge(state, updates, memory)

No method's name appears here: what differs between methods is in the parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.black_box import BlackBox
from fedbbpt.drawing import drawn, in_turn, named
from fedbbpt.errors import BudgetSpent, ConfigError, ExampleFault
from fedbbpt.guard import Admit, Came, exchange, leaving, silent
from fedbbpt.maths.merge import pooled
from fedbbpt.objective import Objective
from fedbbpt.parts import Client, Parts
from fedbbpt.protocols import Engine
from fedbbpt.random import stream
from fedbbpt.types import Batch, Job, Update

# --- at the client -------------------------------------------------------------------------------

Evaluate = Callable[[int, Array, Array | None], Array | None]


def local_search(parts: Parts, job: Job, client: str, evaluate: Evaluate, last: bool = True) -> Any:
    """``steps`` of ask and tell. The same lines run at the client, where ``evaluate`` asks the
    box, and at the server, where it reads the losses that the client sent. A client that sends
    losses alone has no use for the ``last`` tell.
    """
    state = parts.receive(job.arrays)
    for step in range(job.steps):
        points = parts.candidates(job, client, step, state)
        losses = evaluate(step, points, parts.optimizer.turns(state, points))
        if losses is None or (step == job.steps - 1 and not last):
            break
        state = parts.optimizer.tell(state, points, losses)
    return state


def search(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """The search phase at a client; fewer steps than asked where its quota ends."""
    prompt = client.prompt or parts.prompt
    told: list[Array] = []

    def ask_box(step: int, points: Array, turns: Array | None = None) -> Array | None:
        losses = np.full(len(points), np.nan)
        try:
            for which, batch in tried(parts, job, client, step, turns):
                asked = extended(parts, job, client, batch)
                losses[which] = Objective(box, prompt, parts.task, batch, asked)(points[which])
        except BudgetSpent:
            return None
        told.append(losses)
        return losses

    needed = parts.wire == "state" or parts.aggregator.loss
    state = local_search(parts, job, client.name, ask_box, last=needed)
    arrays = _sent(parts, state, told)
    if parts.aggregator.loss and told:
        own = ask_box(job.steps, parts.optimizer.best(state)[None])
        arrays["loss"] = np.array(np.nan if own is None else own[0])
    return arrays, float(client.train.size if told else 0)


def tried(
    parts: Parts, job: Job, client: Client, step: int, turns: Array | None
) -> Iterator[tuple[Array | slice, Batch]]:
    """Which candidates of a step are tried on which examples: all on those that the step draws,
    or each on those of its own turn, if there are any left.
    """
    own = (client.train, client.name, job.seed, parts.batch)
    if turns is None:
        yield slice(None), drawn(*own, job.round * job.steps + step)
        return
    for turn in np.unique(turns).tolist():
        batch = in_turn(*own, turn)
        if batch.size:
            yield np.flatnonzero(turns == turn), batch


def extended(parts: Parts, job: Job, client: Client, batch: Batch) -> Batch:
    """The examples to ask about: those of a step and any companions."""
    if not parts.task.extends:
        return batch
    return parts.task.extend(batch, stream(job.seed, "guard", job.round, client.name))


def _sent(parts: Parts, state: Any, told: Sequence[Array]) -> Arrays:
    if parts.wire == "replay":
        return {"losses": np.array(told)}
    fields = parts.aggregator.fields(parts.optimizer)
    return {name: np.asarray(getattr(state, name)) for name in fields}


def work(parts: Parts, client: Client, job: Job) -> Update:
    """Any job at a client: opens the door, does the phase's work, sends what it declares."""
    phase, began = parts.phases[job.phase], time.perf_counter()
    if silent(parts, phase) and not client.public:
        return Update(client.name, job.round, 0.0)
    door = client.open(job, phase)
    try:
        arrays, weight = phase.work(parts, client, job, door.box)
    except ExampleFault as fault:
        held = (client.train, client.holdout, client.test)
        raise ConfigError(named(fault, client.name, *held)) from None
    declared = {name: arrays[name] for name in phase.sends(parts) if name in arrays}
    sent, weight = leaving(parts, client, job, declared, weight)
    return Update(
        client.name,
        job.round,
        weight,
        sent,
        queries=len(door.account.new),
        dropped=door.account.dropped,
        seconds=time.perf_counter() - began,
    )


# --- at the server -------------------------------------------------------------------------------


def replay(parts: Parts, job: Job, update: Update) -> Update:
    """The state fields that a client would have sent, from the losses that it did send."""
    if parts.wire != "replay":
        return update
    losses = update.arrays["losses"]

    def recorded(step: int, *_: object) -> Array | None:
        return losses[step] if step < len(losses) else None

    state = local_search(parts, job, update.client, recorded)
    fields = parts.aggregator.fields(parts.optimizer)
    arrays = {name: np.asarray(getattr(state, name)) for name in fields}
    if "loss" in update.arrays:
        arrays["loss"] = update.arrays["loss"]
    return replace(update, arrays=arrays)


def taken(parts: Parts, job: Job, updates: Sequence[Update]) -> list[Update]:
    """What a merge gets of those who took a step: their state fields; or one update with the means
    of these where it reads no more, for which they are replayed a few at a time.
    """
    heard = [update for update in updates if update.weight > 0]
    read = partial(replay, parts, job)
    return [pooled(heard, read)] if heard and parts.aggregator.sums else [*map(read, heard)]


class Server(NamedTuple):
    """All that the server carries from round to round."""

    round: int
    state: Any
    memory: Arrays


class Played(NamedTuple):
    """One round's outcome: the next server, what went down, what came up and was let in,
    (client, reason) of what was not, and all of it as it crossed the wire.
    """

    server: Server
    job: Job
    updates: list[Update]
    refused: Sequence[tuple[str, str]] = ()
    came: Came | None = None

    @property
    def sent(self) -> list[Update]:
        """The updates as they crossed the wire."""
        return self.updates if self.came is None else self.came.sent


def everyone(parts: Parts, job: Job, updates: list[Update]) -> tuple[list[Update], list[Any]]:
    """Lets all updates in, where they cannot but be right; see :mod:`fedbbpt.admission`."""
    return updates, []


def play(
    parts: Parts,
    engine: Engine,
    server: Server,
    job: Job,
    clients: Sequence[str],
    admit: Admit = everyone,
) -> Played:
    """One round. ``job`` comes without arrays; clients that could not pay a step are left out, and
    where too few are left for the merge the state stays as it is.
    """
    state = parts.optimizer.plan(server.state, stream(job.seed, "plan", server.round))
    job = replace(job, round=server.round, arrays=parts.broadcast(state))
    job = engine.prepare(job)
    came = exchange(parts, engine, job, clients, admit)
    heard = taken(parts, job, came.updates)
    after = server.state, server.memory
    if len(heard) >= parts.aggregator.least:
        after = parts.aggregator.merge(state, heard, server.memory)
    return Played(Server(server.round + 1, *after), job, came.updates, came.refused, came)
