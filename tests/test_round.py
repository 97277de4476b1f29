"""The laws of a round, tried on a toy federation."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt.aggregators.adam import Adam
from fedbbpt.aggregators.cma import Cma
from fedbbpt.aggregators.mean import Mean
from fedbbpt.engines.local import Local
from fedbbpt.ledger import Ledger
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.optimizers.es import Es
from fedbbpt.random import stream
from fedbbpt.round import Server, play, replay, taken
from fedbbpt.testing._require import bits, update_bits
from fedbbpt.testing.engines import play_rounds, toy_federation
from fedbbpt.testing.toys import CountingBox, ToyEncoder, toy_box
from fedbbpt.types import Job


def flickering():
    """Answers some atoms at the second time only."""
    return CountingBox(toy_box(), raises=0.01, nans=0.2)


def leaky():
    """Never answers some atoms."""
    return CountingBox(toy_box(), nans=0.2, times=None)


METHODS = st.sampled_from(
    [
        (Es(pairs=2), Adam()),
        (Es(pairs=1, shaping="rank", lr=0.3), Mean()),
        (Cmaes(popsize=4, covariance="isotropic"), Mean()),
        (Cmaes(popsize=5, covariance="full"), Cma()),
        (Cmaes(popsize=5, step_size="tpa"), Cma(sigma="code", parents=1.0)),
    ]
)
KINDS = st.fixed_dictionaries(
    {
        "directions": st.sampled_from(["distinct", "fixed"]),
        "side": st.sampled_from(["label", "text"]),
        "guard": st.sampled_from(["none", "ratio", "ratio-of-means"]),
        "clients": st.integers(1, 3),
        "size": st.integers(2, 4),
        "make_box": st.sampled_from([toy_box, flickering, leaky]),
    }
)
QUOTAS = st.one_of(
    st.just({}),
    st.dictionaries(st.sampled_from(["site 0", "site 1", "site 2"]), st.integers(0, 60)),
)
few = settings(max_examples=25)


def threaded(parts, clients, federation):
    return Local(parts, clients, federation, threads=4)


def servers(played):
    return [bits((each.server.state, each.server.memory)) for each in played]


def updates(played):
    return [update_bits(update) for each in played for update in each.updates]


# --- the laws ------------------------------------------------------------------------------------


@few
@given(method=METHODS, kind=KINDS, quotas=QUOTAS, steps=st.integers(1, 3))
def test_a_replayed_round_has_the_bits_of_a_sent_one(method, kind, quotas, steps):
    ends = [
        play_rounds(toy_federation(*method, wire=wire, **kind), Local, 2, steps, quotas)
        for wire in ("replay", "state")
    ]
    assert servers(ends[0]) == servers(ends[1])
    costs = [[(u.queries, u.dropped, u.weight) for p in end for u in p.updates] for end in ends]
    assert costs[0] == costs[1]


@few
@given(method=METHODS, kind=KINDS, wire=st.sampled_from(["replay", "state"]))
def test_threads_change_no_bit(method, kind, wire):
    ends = [
        play_rounds(toy_federation(*method, wire=wire, **kind), make, 2, 2)
        for make in (Local, threaded)
    ]
    assert servers(ends[0]) == servers(ends[1])
    assert updates(ends[0]) == updates(ends[1])


@few
@given(method=METHODS, kind=KINDS, per_class=st.booleans())
def test_a_shared_candidate_is_paid_once_for_all(method, kind, per_class):
    kind = {**kind, "directions": "shared", "side": "label", "guard": "none"}
    kind["make_box"] = ToyEncoder
    ends = []
    for make in (Local, threaded):
        toy = toy_federation(*method, per_class=per_class, **kind)
        ends.append(play_rounds(toy, make, 2))
        own = sum(u.queries for played in ends[-1] for u in played.updates)
        parts, start = toy.parts, toy.parts.optimizer.init(toy.parts.prompt.space)
        asked = len(parts.optimizer.ask(start, stream(0, "any")))
        # A client pays its own examples, and its own best point where the merge asks for that.
        examples = sum(len(set(c.train.inputs)) for c in toy.clients.values())
        best = 2 * 2 * len(toy.clients) if parts.aggregator.loss else 0
        assert examples <= own <= examples + best
        # All clients together pay two labels per candidate and round, or less where only one of
        # them moves.
        assert asked * 2 <= toy.budget.spent("train") - own <= asked * 2 * 2
    assert servers(ends[0]) == servers(ends[1])
    assert updates(ends[0]) == updates(ends[1])


@few
@given(method=METHODS, kind=KINDS, quotas=QUOTAS, steps=st.integers(1, 3))
def test_the_budget_is_never_exceeded(method, kind, quotas, steps):
    toy = toy_federation(*method, **kind)
    played = play_rounds(toy, Local, 2, steps, quotas)
    for each in played:
        for update in each.updates:
            assert update.queries <= quotas.get(update.client, np.inf)
            told = update.arrays["losses"]
            assert len(told) <= steps
            assert (update.weight > 0) == (len(told) > 0)
    assert toy.budget.spent("train") == sum(u.queries for p in played for u in p.updates)


@few
@given(kind=KINDS, wire=st.sampled_from(["replay", "state"]), killed=st.integers(0, 40))
def test_a_round_cut_off_anywhere_is_played_again_with_the_same_bits(kind, wire, killed):
    """The box dies for good after some calls; a new process finds the ledger and plays on."""
    method = (Es(pairs=2), Adam())

    def play_two(folder, die_after=None):
        ledger = Ledger()
        ledger.open(Path(folder) / "ledger.sqlite")
        ledger.run = "run"
        toy = toy_federation(*method, wire=wire, open_store=ledger.view, **kind)
        if die_after is not None:
            evaluate, left = toy.box.inner.evaluate, iter(range(die_after))

            def dying(atoms, wanted):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return evaluate(atoms, wanted)

            toy.box.inner.evaluate = dying
        try:
            return play_rounds(toy, Local, 2, steps=2), toy, ledger.paid()
        except KeyboardInterrupt:
            return None
        finally:
            ledger.close()

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        whole, toy, paid = play_two(other)
        play_two(folder, killed)
        again, repeated, paid_again = play_two(folder)
    assert servers(again) == servers(whole)
    assert updates(again) == updates(whole)
    assert repeated.budget.spent("train") == toy.budget.spent("train")
    assert paid_again == paid
    assert len(repeated.box.asked) <= len(toy.box.asked)


@few
@given(
    method=METHODS,
    kind=KINDS,
    directions=st.sampled_from(["distinct", "shared", "fixed"]),
    make_box=st.sampled_from([toy_box, ToyEncoder]),
)
def test_the_setup_foretells_what_a_step_costs(method, kind, directions, make_box):
    """So that quotas made from it are never too small, nor the budget exceeded."""
    toy = toy_federation(*method, **{**kind, "directions": directions, "make_box": make_box})
    engine = Local(toy.parts, toy.clients, toy.federation)
    told = {u.client: u.arrays for u in engine.map(Job("setup", 0, 1, 0), list(toy.clients))}
    assert toy.box.calls == 0
    first, second = (each.updates for each in play_rounds(toy, Local, 2))
    for update in first:
        assert update.queries <= told[update.client]["step"] + told[update.client]["once"]
    for update in second:
        assert update.queries <= told[update.client]["step"]
    all_own = sum(update.queries for update in (*first, *second))
    common = max(arrays["common"] for arrays in told.values())
    assert toy.budget.spent("train") - all_own <= 2 * common * (directions == "shared")


@settings(max_examples=8)
@given(method=METHODS, kind=KINDS, directions=st.sampled_from(["shared", "fixed"]))
def test_threads_that_share_a_ledger_pay_what_one_pays(method, kind, directions):
    """Clients that try the same in a round do not look at each other's answers."""
    ends = []
    for make in (Local, threaded):
        with tempfile.TemporaryDirectory() as folder:
            ledger = Ledger()
            ledger.open(Path(folder) / "ledger.sqlite")
            ledger.run = "run"
            options = {**kind, "directions": directions, "make_box": ToyEncoder}
            toy = toy_federation(*method, open_store=ledger.view, **options)
            played = play_rounds(toy, make, 2)
            ends.append((servers(played), updates(played), ledger.paid(), sorted(toy.box.asked)))
            ledger.close()
    assert ends[0] == ends[1]


# --- single steps --------------------------------------------------------------------------------


def test_directions():
    """Who tries what: the same or other candidates, over clients and over rounds."""
    firsts = {}
    for directions in ("distinct", "shared", "fixed"):
        toy = toy_federation(directions=directions)
        start = toy.parts.optimizer.init(toy.parts.prompt.space)
        firsts[directions] = [
            bits(toy.parts.candidates(Job("search", round, 1, 0), client, 0, start))
            for round in (0, 1)
            for client in ("site 0", "site 1")
        ]
    (a, b), (c, d) = firsts["distinct"][:2], firsts["distinct"][2:]
    assert len({a, b, c, d}) == 4
    (a, b), (c, d) = firsts["shared"][:2], firsts["shared"][2:]
    assert a == b != c == d
    assert len(set(firsts["fixed"])) == 1


def test_shared_candidates_follow_seed_and_state():
    """One set of parts may serve two runs; neither gets the other's candidates."""
    parts = toy_federation(directions="shared").parts
    start = parts.optimizer.init(parts.prompt.space)
    moved = start._replace(mean=start.mean + 1.0)
    asked = [
        bits(parts.candidates(Job("search", 0, 1, seed), "site 0", 0, state))
        for seed, state in ((0, start), (1, start), (0, moved), (0, start))
    ]
    assert asked[0] == asked[3]
    assert len(set(asked)) == 3


def test_an_update_holds_losses_or_state():
    for wire, fields in (
        ("replay", {"losses", "loss"}),
        ("state", {"mean", "sigma_sq", "popsize", "loss"}),
    ):
        toy = toy_federation(Cmaes(popsize=4), Cma(), wire=wire)
        played = play_rounds(toy, Local, 1, steps=3)[0]
        for update in played.updates:
            assert set(update.arrays) == fields
            assert update.round == 0
            assert update.weight == toy.clients[update.client].train.size
    toy = toy_federation()
    losses = play_rounds(toy, Local, 1, steps=3)[0].updates[0].arrays["losses"]
    assert losses.shape == (3, 4)


def test_replay_leaves_sent_states_as_they_are():
    toy = toy_federation(wire="state")
    played = play_rounds(toy, Local, 1)[0]
    assert replay(toy.parts, played.job, played.updates[0]) is played.updates[0]


@pytest.mark.parametrize("wire", ["replay", "state"])
def test_a_merge_of_sums_gets_one_update_for_all(wire):
    toy = toy_federation(wire=wire)
    played = play_rounds(toy, Local, 1, steps=2)[0]
    (one,) = taken(toy.parts, played.job, played.updates)
    each = [replay(toy.parts, played.job, update) for update in played.updates]
    assert one.weight == sum(update.weight for update in each)
    state = toy.parts.optimizer.init(toy.parts.prompt.space)
    memory = toy.parts.aggregator.init(state)
    merged = [toy.parts.aggregator.merge(state, heard, memory) for heard in ([one], each)]
    assert bits(merged[0]) == bits(merged[1]) == bits((played.server.state, played.server.memory))
    robust = replace(toy.parts, aggregator=Adam(robust="median"))
    heard = taken(robust, played.job, played.updates)
    assert [*map(update_bits, heard)] == [*map(update_bits, each)]


def test_clients_that_could_not_pay_are_not_heard():
    toy, poor = toy_federation(), toy_federation()
    names = list(toy.clients)
    engine = Local(toy.parts, toy.clients, toy.federation)
    state = toy.parts.optimizer.init(toy.parts.prompt.space)
    server = Server(0, state, toy.parts.aggregator.init(state))
    without = play(toy.parts, engine, server, Job("search", 0, 1, 0), names[:2])
    quotas = {names[2]: 0}
    heard = play_rounds(poor, Local, 1, quotas=quotas)[0]
    assert [u.weight > 0 for u in heard.updates] == [True, True, False]
    assert bits(heard.server.state) == bits(without.server.state)
    nobody = play_rounds(toy_federation(), Local, 1, quotas=dict.fromkeys(names, 0))[0]
    assert bits(nobody.server.state) == bits(state)
    assert nobody.server.round == 1


def test_the_job_carries_the_broadcast_and_the_servers_round():
    toy = toy_federation(Cmaes(popsize=4), Mean())
    first, second = play_rounds(toy, Local, 2)
    assert (first.job.round, second.job.round) == (0, 1)
    assert set(second.job.arrays) == set(Cmaes.shares)
    assert bits(second.job.arrays["mean"]) == bits(first.server.state.mean)


def test_steps_may_be_fewer_than_asked_for():
    toy = toy_federation(side="text")
    free = play_rounds(toy_federation(side="text"), Local, 1, steps=1)[0].updates[0].queries
    update = play_rounds(toy, Local, 1, steps=3, quotas={"site 0": free})[0].updates[0]
    assert update.arrays["losses"].shape == (1, 4)
    assert update.queries == free
