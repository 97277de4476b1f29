"""The laws of an engine: ``check_engine(MyEngine)``, and the small federation they are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbbpt.aggregators.adam import Adam
from fedbbpt.black_box import AtomicBox
from fedbbpt.budget import FEDERATION, Budget
from fedbbpt.counting import FINAL, SEARCH
from fedbbpt.engines.local import Local
from fedbbpt.optimizers.es import Es
from fedbbpt.parts import Client, Door, Parts, Phase
from fedbbpt.phases import PHASES
from fedbbpt.prompts.soft import Soft
from fedbbpt.protocols import Aggregator, Engine, Optimizer
from fedbbpt.round import Played, Server, play
from fedbbpt.storage import Store
from fedbbpt.tasks.classify import Classify
from fedbbpt.testing._require import bits, require, update_bits
from fedbbpt.testing.boxes import TEMPLATES, WORDS
from fedbbpt.testing.toys import (
    CountingBox,
    MemoryStore,
    ToyEncoder,
    ToyVocabulary,
    toy_batch,
    toy_box,
)
from fedbbpt.types import Job
from fedbbpt.wrappers.cached import Cached
from fedbbpt.wrappers.metered import Metered
from fedbbpt.wrappers.retrying import Retrying

OpenDoor = Callable[[Job, Phase], Door]
MakeEngine = Callable[[Parts, Mapping[str, Client], OpenDoor], Engine]
OpenStore = Callable[[str, int], Store]


@dataclass(frozen=True)
class ToyFederation:
    """Clients, their doors and their account books, around a toy box.

    Attributes:
        parts: what a method is made of.
        clients: by name.
        federation: opens the federation's own door.
        budget: who was charged what.
        box: counts what reaches the model.
    """

    parts: Parts
    clients: Mapping[str, Client]
    federation: OpenDoor
    budget: Budget
    box: CountingBox


def toy_federation(
    optimizer: Optimizer[Any] | None = None,
    aggregator: Aggregator | None = None,
    *,
    side: str = "label",
    per_class: bool = False,
    directions: str = "distinct",
    wire: str = "replay",
    guard: str = "none",
    classes: int = 2,
    clients: int = 3,
    size: int = 6,
    make_box: Callable[[], AtomicBox] = toy_box,
    open_store: OpenStore | None = None,
) -> ToyFederation:
    """A federation that has paid nothing yet; made alike it behaves alike.

    Args:
        optimizer, aggregator: :class:`Es` with two pairs and :class:`Adam` if not given.
        side, per_class: of its soft prompt.
        directions, wire: as in :class:`fedbbpt.parts.Parts`.
        guard: of its task.
        classes, clients, size: how many there are, ``size`` being training examples per client.
        make_box: its leaf box, e.g. a :class:`CountingBox` that fails.
        open_store: (account, round) -> where its rows are kept; a memory per account otherwise.
    """
    vocabulary, words = ToyVocabulary(), WORDS[:classes]
    parts = Parts(
        optimizer=optimizer or Es(pairs=2),
        prompt=Soft(vocabulary, TEMPLATES[side], words, side, dim=6, per_class=per_class),
        task=Classify(guard=guard, vocabulary=vocabulary),
        aggregator=aggregator or Adam(),
        directions=directions,
        wire=wire,
        phases=PHASES,
    )
    box, budget, stores = CountingBox(make_box()), Budget(1 << 40), dict[str, MemoryStore]()

    def door(account: str, job: Job, phase: Phase) -> Door:
        purse = budget.open(phase.purse, account, job.quotas.get(account))
        memory = stores.setdefault(account, MemoryStore())
        store = open_store(account, job.round) if open_store else memory
        cached = Cached(Retrying(box, sleep=lambda _: None), store)
        return Door(Metered(cached, purse), purse)

    members = [_client(number, size, classes, door) for number in range(clients)]
    everyone = {client.name: client for client in members}
    return ToyFederation(
        parts, everyone, lambda job, phase: door(FEDERATION, job, phase), budget, box
    )


def _client(
    number: int, size: int, classes: int, door: Callable[[str, Job, Phase], Door]
) -> Client:
    train, holdout, test = (
        toy_batch(size + more, classes, seed=3 * number + more) for more in range(3)
    )
    name = f"site {number}"
    return Client(name, train, holdout, test, lambda job, phase: door(name, job, phase))


def play_rounds(
    toy: ToyFederation,
    make: MakeEngine,
    rounds: int,
    steps: int = 1,
    quotas: Mapping[str, int] | None = None,
) -> list[Played]:
    """Rounds from the start, every client in each.

    Args:
        toy: the federation.
        make: (parts, clients, federation's door) -> engine.
        rounds: how many.
        steps: local steps in each.
        quotas: queries that a client may spend in a round; no entry, no limit.
    """
    engine = make(toy.parts, toy.clients, toy.federation)
    state = toy.parts.optimizer.init(toy.parts.prompt.space)
    server, played = Server(0, state, toy.parts.aggregator.init(state)), list[Played]()
    for number in range(rounds):
        job = Job("search", number, steps, 0, {}, quotas or {})
        played.append(play(toy.parts, engine, server, job, list(toy.clients)))
        server = played[-1].server
    return played


def check_engine(make: MakeEngine) -> None:
    """Try every law.

    Args:
        make: (parts, clients, federation's door) -> engine.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    for law in LAWS:
        law(make)


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"wire": "state"},
    {"directions": "shared", "per_class": True, "classes": 3, "make_box": ToyEncoder},
    {"directions": "fixed", "side": "text", "guard": "ratio"},
    {"make_box": lambda: CountingBox(toy_box(), raises=0.02, nans=0.1)},
)
"""Federations that the laws are tried on."""


def _jobs(toy: ToyFederation) -> list[Job]:
    """One job of every phase, as a run would send it; the toys have no classes of their own."""
    start = toy.parts.optimizer.init(toy.parts.prompt.space)
    zero = np.zeros(toy.parts.prompt.space.shape)
    points = {"points": np.stack([zero, zero + 0.5, zero + 1.0])}
    arrays = {"setup": {}, "search": toy.parts.broadcast(start)}
    counting = {phase.name for phase in (*SEARCH, *FINAL)}
    return [Job(name, 7, 1, 0, arrays.get(name, points)) for name in PHASES if name not in counting]


# --- the laws ------------------------------------------------------------------------------------


def updates_come_in_order(make: MakeEngine) -> None:
    """One update from every client that was named, in that order, and none from others."""
    toy = toy_federation()
    engine = make(toy.parts, toy.clients, toy.federation)
    names = list(toy.clients)
    for chosen in (names, names[::-1], names[1:], []):
        updates = engine.map(Job("setup", 7, 1, 0), chosen)
        got = [update.client for update in updates]
        require(got == chosen, f"asked {chosen}, updates came from {got}")
        require(all(u.round == 7 for u in updates), "updates name another round than the job's")


def only_declared_fields_leave(make: MakeEngine) -> None:
    """An update holds nothing but what its phase declares."""
    toy = toy_federation()
    engine = make(toy.parts, toy.clients, toy.federation)
    for job in _jobs(toy):
        declared = set(toy.parts.phases[job.phase].sends(toy.parts))
        for update in engine.map(engine.prepare(job), list(toy.clients)):
            extra = set(update.arrays) - declared
            require(not extra, f"phase {job.phase} sent {sorted(extra)}, which is not declared")
            heard = update.weight > 0 and update.arrays
            require(heard, f"phase {job.phase} came back empty")


def same_bits_as_one_after_another(make: MakeEngine) -> None:
    """Three rounds and a job of every phase have the bits of clients that work in turn."""
    for options in VARIANTS:
        ends = []
        for this in (Local, make):
            toy = toy_federation(**options)
            steps = 1 if options.get("directions") == "shared" else 2
            played = play_rounds(toy, this, 3, steps)
            updates = [update_bits(update) for each in played for update in each.updates]
            states = [bits((each.server.state, each.server.memory)) for each in played]
            ends.append((updates, states, _replies(toy, this), toy.budget.spent("train")))
        for what, one, other in zip(("updates", "states", "replies", "costs"), *ends, strict=True):
            require(one == other, f"the {what} of {options or 'the plain federation'} differ")


def quotas_hold(make: MakeEngine) -> None:
    """A client stops before the step that its quota cannot pay, and says so by its weight."""
    names = list(toy_federation().clients)
    free = play_rounds(toy_federation(), make, 1, steps=3)[0].updates
    quotas = {names[0]: 0, names[1]: free[1].queries - 1, names[2]: free[2].queries}
    toy = toy_federation()
    updates = play_rounds(toy, make, 1, steps=3, quotas=quotas)[0].updates
    for update in updates:
        held = update.queries <= quotas[update.client]
        require(held, f"{update.client} spent {update.queries} of {quotas[update.client]} queries")
    require(updates[0].weight == 0, "a client without quota came back with a weight")
    require(updates[0].queries == 0, "a client without quota was charged")
    require(updates[1].weight > 0, "a client that paid two of three steps came back empty")
    whole = update_bits(updates[2]) == update_bits(free[2])
    require(whole, "a quota that suffices changed an update")
    spent = sum(update.queries for update in updates)
    require(toy.budget.spent("train") == spent, "the budget and the updates disagree")


def _replies(toy: ToyFederation, make: MakeEngine) -> list[Any]:
    """What comes back from one job of every phase."""
    engine = make(toy.parts, toy.clients, toy.federation)
    return [
        update_bits(update)
        for job in _jobs(toy)
        for update in engine.map(engine.prepare(job), list(toy.clients))
    ]


LAWS: tuple[Callable[[MakeEngine], None], ...] = (
    updates_come_in_order,
    only_declared_fields_leave,
    same_bits_as_one_after_another,
    quotas_hold,
)
