"""Secure sums in rounds: they are the plain ones, survive lost clients, and bare nothing."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from fedbbpt.aggregators.adam import Adam
from fedbbpt.aggregators.mean import Mean
from fedbbpt.engines.local import Local
from fedbbpt.errors import Refused
from fedbbpt.guard import exchange
from fedbbpt.ledger import Ledger
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.optimizers.es import Es
from fedbbpt.optimizers.spsa import Spsa
from fedbbpt.round import Server, everyone, play, work
from fedbbpt.secure import EVERYBODY, PHASES, SUM
from fedbbpt.shielding import in_order
from fedbbpt.shields.clip import Clip
from fedbbpt.shields.mask import Mask
from fedbbpt.shields.noise import Noise
from fedbbpt.shields.quantise import Quantise
from fedbbpt.testing._require import bits
from fedbbpt.testing.engines import play_rounds, toy_federation
from fedbbpt.testing.toys import ToyEncoder
from fedbbpt.types import Job

STEP = 2.0**-33
"""Half a fixed-point step, by which each client's part may be off."""


def masked(path, *shields, clients=4, **options):
    """A toy federation whose sums are secure; secrets are in a ledger."""
    toy = toy_federation(clients=clients, **options)
    ledger = Ledger()
    ledger.open(path / "ledger.sqlite")
    ledger.run = "run"
    parts = replace(
        toy.parts,
        shields=in_order([*shields, Mask()]),
        phases={**toy.parts.phases, **PHASES},
    )
    own = {name: replace(client, vault=ledger) for name, client in toy.clients.items()}
    return replace(toy, parts=parts, clients=own)


class Losing(Local):
    """Loses the answers of some clients in some phases."""

    lost: ClassVar = {}

    def map(self, job, clients):
        lost = self.lost.get(job.phase, ())
        return [one for one in super().map(job, clients) if one.client not in lost]


class Forgetful(Local):
    """A new process for every message: nothing but the ledger is carried over."""

    path: ClassVar = None

    def map(self, job, clients):
        told = []
        for name in clients:
            fresh = masked(self.path, clients=4, **self.options)
            told.append(work(fresh.parts, fresh.clients[name], replace(job)))
            fresh.clients[name].vault.close()
        return told


def begin(toy):
    """(server, job) of the first round."""
    state = toy.parts.optimizer.init(toy.parts.prompt.space)
    return Server(0, state, toy.parts.aggregator.init(state)), Job("search", 0, 1, 0)


def words_of(server):
    return [np.asarray(value, np.float64) for value in server.state]


# --- the sum is the sum --------------------------------------------------------------------------

METHODS = [
    {"optimizer": Es(pairs=2), "aggregator": Adam(), "directions": "shared"},
    {"optimizer": Spsa(draws=2), "aggregator": Adam(), "directions": "shared"},
    {"optimizer": Es(pairs=2), "aggregator": Mean(), "wire": "state"},
    {"optimizer": Cmaes(popsize=4), "aggregator": Mean(), "wire": "state"},
    {"optimizer": Spsa(draws=2), "aggregator": Mean(), "wire": "state"},
]


@pytest.mark.parametrize("method", METHODS)
def test_a_masked_run_is_the_plain_one_to_the_fixed_point_step(method, tmp_path):
    """Replayed from the sum of losses, or merged from the sum of states."""
    plain = play_rounds(toy_federation(clients=4, **method), Local, 3)
    hidden = play_rounds(masked(tmp_path, **method), Local, 3)
    for one, other in zip(plain, hidden, strict=True):
        for here, there in zip(words_of(one.server), words_of(other.server), strict=True):
            # Slopes are differences over twice the distance of a pair, and Adam divides by them.
            assert there == pytest.approx(here, abs=1e5 * STEP)
        assert [u.queries for u in one.sent] == [u.queries for u in other.sent]


def test_the_server_sees_the_mean_of_the_losses_and_no_loss(tmp_path):
    method = {"directions": "shared", "clients": 4}
    plain = play_rounds(toy_federation(**method), Local, 1)[0]
    hidden = play_rounds(masked(tmp_path, **method), Local, 1)[0]
    weights = np.array([u.weight for u in plain.updates])
    losses = np.array([u.arrays["losses"] for u in plain.updates])
    mean = np.tensordot(weights / weights.sum(), losses, 1)
    (whole,) = hidden.updates
    assert (whole.client, whole.weight) == (EVERYBODY, weights.sum())
    assert np.abs(whole.arrays["losses"] - mean).max() <= STEP * 4
    for update in hidden.sent:
        assert not {"losses", "centred", "mean"} & update.arrays.keys()
        assert update.weight == 1.0  # how many examples are behind it is in the sum alone
        assert update.arrays["words"].dtype == np.uint64
    assert hidden.came.down > 4 * 2 * 32


def test_counts_are_added_and_means_are_averaged(tmp_path):
    toy, bare = masked(tmp_path), toy_federation(clients=4)
    points = np.stack([np.zeros(bare.parts.prompt.space.shape)] * 2)
    job = Job("select", 7, 1, 0, {"points": points + np.array([0.0, 0.3])[:, None]})
    names = list(toy.clients)
    apart = Local(bare.parts, bare.clients, bare.federation).map(job, names)
    engine = Local(toy.parts, toy.clients, toy.federation)
    (whole,) = exchange(toy.parts, engine, job, names, everyone).updates
    assert whole.weight == sum(u.weight for u in apart)
    for name in ("answers", "labels"):
        assert whole.arrays[name] == pytest.approx(sum(u.arrays[name] for u in apart), abs=1e-6)
    losses = sum(u.weight * u.arrays["losses"] for u in apart) / whole.weight
    assert whole.arrays["losses"] == pytest.approx(losses, abs=1e-9)


@pytest.mark.parametrize(
    "front", [(Clip(0.1),), (Clip(0.1), Noise(0.5)), (Clip(0.1), Noise(0.5), Quantise(12))]
)
def test_other_shields_stand_in_front_of_the_mask(front, tmp_path):
    toy = masked(tmp_path, *front, directions="shared")
    ends = play_rounds(toy, Local, 3)
    assert all(played.updates[0].arrays.keys() == {"losses"} for played in ends)
    off = np.abs(ends[0].updates[0].arrays["losses"])
    assert off.max() < 0.1 + 6 * 0.5 * 0.1
    levelled = any(shield.levels for shield in front)
    assert ends[0].updates[0].weight == (4 if levelled else 4 * 6)


class Knowing(Local):
    """Charges all together for the very job that it prepared, as engines elsewhere do."""

    prepared: ClassVar = []
    mapped: ClassVar = []

    def prepare(self, job):
        self.prepared.append(super().prepare(job))
        return self.prepared[-1]

    def map(self, job, clients):
        self.mapped.append(job)
        return super().map(job, clients)


def test_the_job_that_is_worked_on_is_the_one_that_was_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(Knowing, "prepared", [])
    monkeypatch.setattr(Knowing, "mapped", [])
    plain = toy_federation(clients=4, directions="shared", make_box=ToyEncoder)
    toy = masked(tmp_path, directions="shared", make_box=ToyEncoder)
    play_rounds(plain, Local, 2)
    play_rounds(toy, Knowing, 2)
    searches = [job for job in Knowing.mapped if job.phase == "search"]
    assert len(searches) == 2
    assert all(any(job is known for known in Knowing.prepared) for job in searches)
    assert toy.budget.spent("train") == plain.budget.spent("train")  # nothing is charged twice


# --- clients that are lost -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "counts"), [("advertise", 3), ("share", 3), ("search", 3), ("answer", 4)]
)
def test_a_lost_client_is_recovered(phase, counts, tmp_path, monkeypatch):
    """Before its words are there it is left out; after that they are in the sum."""
    monkeypatch.setattr(Losing, "lost", {phase: ("site 1",)})
    names = [f"site {i}" for i in range(4) if counts == 4 or i != 1]
    plain, toy = (toy_federation(clients=4, directions="shared"), masked(tmp_path))
    toy = replace(toy, parts=replace(toy.parts, directions="shared"))
    start, job = begin(plain)
    engine = Local(plain.parts, plain.clients, plain.federation)
    wanted = play(plain.parts, engine, start, job, names).server
    engine = Losing(toy.parts, toy.clients, toy.federation)
    found = play(toy.parts, engine, start, job, list(toy.clients))
    assert found.updates[0].weight == 6 * counts
    assert found.server.state.mean == pytest.approx(wanted.state.mean, abs=1e5 * STEP)


@pytest.mark.parametrize("phase", ["advertise", "share", "search", "answer"])
def test_with_too_few_left_a_round_is_given_up_and_the_next_one_played(
    phase, tmp_path, monkeypatch
):
    gone = ("site 0", "site 1", "site 3") if phase == "advertise" else ("site 0", "site 1")
    monkeypatch.setattr(Losing, "lost", {phase: gone})
    toy = masked(tmp_path, directions="shared")
    start, job = begin(toy)
    engine = Losing(toy.parts, toy.clients, toy.federation)
    played = play(toy.parts, engine, start, job, list(toy.clients))
    assert played.updates == []
    ((who, why),) = played.refused
    assert who == EVERYBODY and "given up" in why and "a secure sum needs" in why
    assert bits(played.server.state) == bits(start.state)
    monkeypatch.setattr(Losing, "lost", {})
    after = play(toy.parts, engine, played.server, job, list(toy.clients))
    assert not after.refused and np.abs(after.server.state.mean).max() > 0


def test_who_cannot_pay_is_left_out_and_nobody_is_no_fault(tmp_path):
    toy = masked(tmp_path, directions="shared", side="text")
    start, job = begin(toy)
    engine = Local(toy.parts, toy.clients, toy.federation)
    poor = replace(job, quotas={"site 2": 0})
    played = play(toy.parts, engine, start, poor, list(toy.clients))
    assert played.updates[0].weight == 18 and not played.refused
    assert [u.weight for u in played.sent] == [1, 1, 0, 1]
    nobody = replace(job, quotas=dict.fromkeys(toy.clients, 0))
    played = play(toy.parts, engine, played.server, nobody, list(toy.clients))
    assert played.updates == [] and not played.refused
    assert not any(u.weight for u in played.sent)


# --- processes and secrets -----------------------------------------------------------------------


def test_every_message_may_come_from_a_new_process(tmp_path, monkeypatch):
    options = {"directions": "shared", "make_box": ToyEncoder}
    whole = play_rounds(masked(tmp_path, **options), Local, 2)
    monkeypatch.setattr(Forgetful, "path", tmp_path)
    monkeypatch.setattr(Forgetful, "options", options, raising=False)
    apart = play_rounds(masked(tmp_path, **options), Forgetful, 2)
    for one, other in zip(whole, apart, strict=True):
        assert bits(one.server.state) == bits(other.server.state)
        arrays = [[u.arrays for u in played.sent] for played in (one, other)]
        assert bits(arrays[0]) == bits(arrays[1])


class Repeating(Local):
    """Plays a round again with other clients gone, as a server that was restarted might."""

    jobs: ClassVar = []

    def map(self, job, clients):
        self.jobs.append(job)
        return super().map(job, clients)


def recorded(toy, without=()):
    """Jobs of one round by phase, with some clients left out."""
    engine = Repeating(toy.parts, toy.clients, toy.federation)
    engine.jobs = []
    names = [name for name in toy.clients if name not in without]
    play(toy.parts, engine, *begin(toy), names)
    return {job.phase: job for job in engine.jobs}


def test_a_client_speaks_in_a_round_to_the_same_sites_only(tmp_path):
    """Words under two sets of masks, or shares for two sums, could be put together."""
    toy = masked(tmp_path, directions="shared")
    client = toy.clients["site 0"]
    jobs = recorded(toy)
    again = work(toy.parts, client, jobs["search"]).arrays["words"]
    assert (again == work(toy.parts, client, jobs["search"]).arrays["words"]).all()
    three = np.frombuffer(b'["site 0", "site 1", "site 2"]', np.uint8)
    fewer = {**jobs["answer"].arrays, SUM + "summed": three}
    with pytest.raises(Refused, match="has answered for a sum over"):
        work(toy.parts, client, replace(jobs["answer"], arrays=fewer))
    with pytest.raises(Refused, match="has sent its words in this round to other sites"):
        recorded(toy, without=["site 3"])


def test_what_was_said_stays_though_the_model_answers_otherwise(tmp_path):
    """Two messages under the same masks would tell their difference."""
    toy = masked(tmp_path, directions="shared")
    job = recorded(toy)["search"]
    client = toy.clients["site 0"]
    said = work(toy.parts, client, job).arrays["words"]
    other = replace(client, train=toy.clients["site 1"].train)
    assert (work(toy.parts, other, job).arrays["words"] == said).all()


def test_a_job_without_keys_gets_nothing(tmp_path):
    toy = masked(tmp_path, directions="shared")
    server, job = begin(toy)
    job = replace(job, arrays=toy.parts.broadcast(server.state))
    with pytest.raises(Refused, match="agreed on no masks"):
        work(toy.parts, toy.clients["site 0"], job)


class Strange(Local):
    """One client's message is not as it should be."""

    change = None

    def map(self, job, clients):
        return [self.change(job, one) for one in super().map(job, clients)]


def short(job, one):
    wrong = one.client == "site 1" and "words" in one.arrays
    return replace(one, arrays={**one.arrays, "words": one.arrays["words"][:-1]}) if wrong else one


def other_fields(job, one):
    wrong = one.client == "site 1" and "words" in one.arrays
    arrays = {"words": one.arrays.get("words"), "shape of mean": np.array([-1])}
    return replace(one, arrays=arrays) if wrong else one


def keyless(job, one):
    wrong = one.client == "site 1" and "mask_key" in one.arrays
    return replace(one, arrays={"share_key": one.arrays["share_key"]}) if wrong else one


def forged(job, one):
    wrong = one.client == "site 1" and "shares" in one.arrays
    return replace(one, arrays={"shares": one.arrays["shares"] ^ 1}) if wrong else one


@pytest.mark.parametrize("change", [short, other_fields, keyless, forged])
def test_a_wrong_message_costs_the_round_and_names_who_sent_it(change, tmp_path, monkeypatch):
    monkeypatch.setattr(Strange, "change", staticmethod(change))
    toy = masked(tmp_path, directions="shared")
    engine = Strange(toy.parts, toy.clients, toy.federation)
    played = play(toy.parts, engine, *begin(toy), list(toy.clients))
    ((_, why),) = played.refused
    assert "site 1" in why or "do not fit together" in why
    assert played.server.round == 1
