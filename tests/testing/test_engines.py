"""Every registered engine keeps the laws, and the laws catch those that do not."""

import json
from dataclasses import replace
from typing import Any

import pytest

from fedbbpt import registry
from fedbbpt.engines.local import Local
from fedbbpt.post import Arrived, answer, asked
from fedbbpt.testing.engines import LAWS, check_engine, play_rounds, toy_federation
from fedbbpt.types import Batch

# An engine that is not named here is tried with its defaults.
OPTIONS: dict[str, list[dict[str, Any]]] = {"local": [{}, {"threads": 4}]}
CASES = [
    pytest.param(name, options, id=f"{name}{number or ''}")
    for name in registry.names("engines")
    for number, options in enumerate(OPTIONS.get(name, [{}]))
]


class Loop:
    """A post whose letters come back at once, answered by an engine in this process."""

    def __init__(self, engine):
        self.agreed = {}
        self.engine, self.names, self.here = engine, frozenset(engine.clients), []

    def online(self):
        return set(self.names)

    def send(self, number, letters):
        for name, letter in letters.items():
            run, job = asked(letter, name)
            if json.loads(letter["head"])["shared"]:
                job = self.engine.prepare(job)
            (update,) = self.engine.map(job, [name])
            self.here.append(Arrived(name, number, answer(run, job.phase, update)))

    def collect(self):
        here, self.here = self.here, []
        return here

    def pause(self):
        raise AssertionError("everybody has answered")

    def tell(self, notice):
        raise AssertionError(f"nothing happens to nodes here: {notice}")


def maker(name, options):
    def make(parts, clients, federation):
        given = {"parts": parts, "clients": clients, "federation": federation}
        if name == "flower":
            given |= {"post": Loop(Local(**given)), "report": lambda *_: None}
        return registry.make("engines", name, options, "engine", **given)

    return make


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_registered(name, options, law):
    law(maker(name, options))


# --- each law catches one that breaks it ---------------------------------------------------------


class AsTheyCome(Local):
    def map(self, job, clients):
        return super().map(job, sorted(clients))


class SendsTooMuch(Local):
    def map(self, job, clients):
        updates = super().map(job, clients)
        texts = {"texts": self.clients[clients[0]].train.targets} if clients else {}
        return [replace(update, arrays={**update.arrays, **texts}) for update in updates]


class Hurries(Local):
    """Lets a client see its first examples only."""

    def map(self, job, clients):
        whole = self.clients
        self.clients = {
            name: replace(client, train=Batch(client.train.inputs[:3], client.train.targets[:3]))
            for name, client in whole.items()
        }
        try:
            return super().map(job, clients)
        finally:
            self.clients = whole


class Generous(Local):
    def map(self, job, clients):
        return super().map(replace(job, quotas={}), clients)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (AsTheyCome, "updates came from"),
        (SendsTooMuch, "which is not declared"),
        (Hurries, "differ"),
        (Generous, "of 0 queries"),
    ],
)
def test_the_kit_catches(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_engine(broken)


# --- the toy federation --------------------------------------------------------------------------


def test_federations_made_alike_behave_alike():
    one, other = (play_rounds(toy_federation(), Local, 2) for _ in range(2))
    assert one[-1].server.state.mean.tobytes() == other[-1].server.state.mean.tobytes()


def test_the_toy_federation_can_be_tuned():
    toy = toy_federation(size=24, per_class=True)
    played = play_rounds(toy, Local, 30)
    losses = [sum(u.arrays["losses"].mean() for u in each.updates) for each in played]
    assert losses[-1] < 0.8 * losses[0]
