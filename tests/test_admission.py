"""What is let in is what clients really send; everything else is turned away with a reason."""

import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt.admission import Admission, Limits, admit, admitted, near, sane
from fedbbpt.aggregators.adam import Adam
from fedbbpt.aggregators.cma import Cma
from fedbbpt.aggregators.elect import Elect
from fedbbpt.aggregators.krum import Krum
from fedbbpt.aggregators.mean import Mean
from fedbbpt.aggregators.median import Median
from fedbbpt.aggregators.pool import Pool
from fedbbpt.engines.local import Local
from fedbbpt.errors import ConfigError
from fedbbpt.expected import Expected, search_fields
from fedbbpt.optimizers.bayes import Bayes
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.optimizers.es import Es
from fedbbpt.optimizers.random_search import RandomSearch
from fedbbpt.optimizers.spsa import Spsa
from fedbbpt.proposing import PROPOSE
from fedbbpt.round import replay
from fedbbpt.testing._require import update_bits
from fedbbpt.testing.engines import play_rounds, toy_federation
from fedbbpt.testing.toys import CountingBox, toy_box
from fedbbpt.types import Job, Update

NUMBER = np.dtype(np.float64)
FIELDS = {
    "losses": Expected((1, 4), NUMBER, more=1, holes=True),
    "mean": Expected((2,), NUMBER),
    "step": Expected((), np.dtype(np.int64), positive=True),
}
JOB = Job("search", 3, 2, 0)
CLIENTS = {"a": 10.0, "b": 20.0, "c": 10.0}


def update(client="a", weight=5.0, round=3, **arrays):
    fine = {"losses": np.ones((2, 4)), "mean": np.zeros(2), "step": np.array(2)}
    return Update(client, round, weight, {**fine, **arrays})


def alone(*sent, limits=None):
    """(names let in, {client: reason})."""
    let, refused = admit(JOB, sent, CLIENTS, FIELDS, limits)
    return [one.client for one in let], dict(refused)


def holes(*values):
    losses = np.ones((2, 4))
    losses[0, : len(values)] = values
    return losses


# --- what clients really send --------------------------------------------------------------------

METHODS = [
    pytest.param(optimizer, aggregator, wire, directions, steps, id=f"{name}-{wire}-{steps}")
    for name, optimizer, aggregator, directions, most in (
        ("es", Es(pairs=2), Adam(), "distinct", 3),
        ("cma", Cmaes(popsize=5), Cma(), "distinct", 3),
        ("cmaes", Cmaes(popsize=4, covariance="full"), Mean(), "distinct", 2),
        ("tpa", Cmaes(popsize=5, step_size="tpa"), Median(), "fixed", 3),
        ("spsa", Spsa(draws=1, blocking=0.0), Krum(bad=0), "distinct", 2),
        ("bayes", Bayes(batch=2, initial=300), Pool(), "distinct", 3),
        ("random", RandomSearch(), Elect(), "shared", 1),
    )
    for wire in ("replay", "state")
    for steps in {1, most}
]


@pytest.mark.parametrize(("optimizer", "aggregator", "wire", "directions", "steps"), METHODS)
def test_all_that_honest_clients_send_is_let_in(optimizer, aggregator, wire, directions, steps):
    """Also where a box leaves some atoms unanswered, and where a quota ends before the steps do."""

    def leaky():
        return CountingBox(toy_box(), nans=0.2, times=None)

    def played(make_box, quotas):
        toy = toy_federation(
            optimizer,
            aggregator,
            wire=wire,
            directions=directions,
            clients=5,
            make_box=make_box,
        )
        return toy, play_rounds(toy, Local, 2, steps, quotas)

    paid = played(toy_box, {})[1][0].updates[1].queries
    seen = set()
    for make_box, quotas in ((leaky, {}), (toy_box, {"site 1": int(0.7 * paid), "site 2": 0})):
        toy, rounds = played(make_box, quotas)
        most = {name: float(client.train.size) for name, client in toy.clients.items()}
        for one in rounds:
            job, updates = one.job, one.updates
            fields = search_fields(toy.parts, job)
            assert set(fields) == set(toy.parts.phases["search"].sends(toy.parts))
            let, refused = admit(job, updates, most, fields)
            assert refused == []
            took = [one for one in updates if one.weight]
            assert len(took) > 2
            assert [*map(update_bits, let)] == [*map(update_bits, updates)]
            seen |= {len(one.arrays["losses"]) for one in took if wire == "replay"}
    if wire == "replay":
        assert max(seen) == steps
        assert steps == 1 or min(seen) < steps


def test_no_step_size_and_no_count_is_below_zero():
    toy = toy_federation(Cmaes(popsize=4), Cma(), wire="state", clients=3)
    (played,) = play_rounds(toy, Local, 1)
    assert {n for n, e in search_fields(toy.parts, played.job).items() if e.positive} == {
        "sigma_sq",
        "popsize",
    }
    toy = toy_federation(Cmaes(popsize=4), Mean(), wire="state", clients=3)
    (played,) = play_rounds(toy, Local, 1)
    bad = replace(played.updates[0], arrays={**played.updates[0].arrays, "sigma": np.array(-1.0)})
    let, refused = admitted(toy.parts, played.job, [bad], dict.fromkeys(toy.clients, 99.0))
    assert (let, refused) == ([], [(bad.client, "sigma has a number below 0")])


def test_what_is_let_in_can_be_replayed_whatever_the_losses():
    toy = toy_federation()
    (played,) = play_rounds(toy, Local, 1, 2)
    fields, most = search_fields(toy.parts, played.job), dict.fromkeys(toy.clients, 6.0)
    for value in (np.nan, np.inf, 1e9, -1e9, 0.0):
        losses = np.full((2, 4), value)
        losses[:, ::2] = 1.0
        sent = replace(played.updates[0], arrays={"losses": losses})
        let, refused = admit(played.job, [sent], most, fields)
        assert (len(let), refused) == (1, [])
        assert np.isfinite(replay(toy.parts, played.job, let[0]).arrays["mean"]).all()


# --- what is turned away -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (update(round=2), "it answers round 2, and this is round 3"),
        (update(round=4), "it answers round 4, and this is round 3"),
        (update(client="mallory"), "it was not asked in this round"),
        (update(weight=-1.0), "its weight is -1; it must be above 0 and at most 10"),
        (update(weight=10.5), "its weight is 10.5; it must be above 0 and at most 10"),
        (update(weight=np.nan), "its weight is nan; it must be above 0 and at most 10"),
        (update(weight=np.inf), "its weight is inf; it must be above 0 and at most 10"),
        (update(text=np.zeros(3)), "it holds text; declared is losses, mean, step"),
        (replace(update(), arrays={"losses": np.ones((1, 4))}), "it lacks mean, step; declared is"),
        (update(mean=np.zeros(3)), r"mean has shape \(3,\); it must be \(2,\)"),
        (update(mean=np.zeros((1, 2))), r"mean has shape \(1, 2\); it must be \(2,\)"),
        (update(mean=np.zeros(2, np.float32)), "mean holds float32; it must be float64"),
        (update(step=np.array(2.0)), "step holds float64; it must be int64"),
        (update(losses=np.ones((3, 4))), r"losses has shape \(3, 4\); .* \(2, 4\), or fewer rows"),
        (update(losses=np.ones((2, 5))), r"losses has shape \(2, 5\)"),
        (update(losses=np.ones((0, 4))), r"losses has shape \(0, 4\)"),
        (update(losses=np.ones(4)), r"losses has shape \(4,\)"),
        (update(mean=np.array([np.nan, 0])), "mean has 1 of 2 numbers that are not finite"),
        (update(mean=np.array([np.inf, -np.inf])), "mean has 2 of 2 numbers that are not finite"),
        (update(losses=holes(-np.inf)), "losses has 1 of 8 numbers that are not finite"),
        (update(losses=holes(1e300)), r"losses has a number of size 1e\+300; .* at most 1e\+09"),
        (update(mean=np.array([0, -1e10])), r"mean has a number of size 1e\+10"),
        (update(step=np.array(-(2**63))), "step has a number of size"),
        (update(step=np.array(-1)), "step has a number below 0"),
        (replace(update(), queries=-1), "it reports -1 queries"),
        (replace(update(), seconds=np.nan), "nan seconds; none can be negative or infinite"),
    ],
)
def test_refused_with_a_reason(sent, reason):
    others = [update("b"), update("c", 1.0)]
    let, refused = admit(JOB, [others[0], sent, others[1]], CLIENTS, FIELDS)
    assert [*map(update_bits, let)] == [*map(update_bits, others)]
    assert [client for client, _ in refused] == [sent.client]
    assert re.search(reason, refused[0][1]), refused


@pytest.mark.parametrize("losses", [holes(np.nan, np.inf), np.full((1, 4), np.nan), holes(1e9)])
def test_a_loss_may_be_no_answer(losses):
    assert alone(update(losses=losses)) == (["a"], {})


def test_who_took_no_step_is_not_to_blame():
    nothing = Update("a", 3, 0.0, {"losses": np.zeros((0,))})
    assert alone(nothing, update("b")) == (["a", "b"], {})
    assert "round 2" in alone(replace(nothing, round=2))[1]["a"]


def test_fields_must_be_of_the_same_number_of_steps():
    fields = {name: Expected((3, *rest), NUMBER, more=3) for name, rest in (("x", (2,)), ("y", ()))}
    for rows, right in (((3, 3), True), ((6, 6), True), ((3, 6), False), ((4, 4), False)):
        sent = Update("a", 3, 1.0, {"x": np.zeros((rows[0], 2)), "y": np.zeros(rows[1])})
        let, refused = admit(JOB, [sent], CLIENTS, fields)
        assert bool(let) == right, refused
    assert (
        "number of steps"
        in admit(
            JOB, [replace(sent, arrays={"x": np.zeros((3, 2)), "y": np.zeros(6)})], CLIENTS, fields
        ).refused[0][1]
    )


def test_a_task_that_ran_twice_counts_once():
    again = replace(update(), queries=7, seconds=3.0)
    for sent in permutations([update(), again, update("b")]):
        let, refused = admit(JOB, sent, CLIENTS, FIELDS)
        assert {one.client: one.queries for one in let} == {"a": 7, "b": 0}
        assert refused == []


def test_of_two_different_updates_none_is_believed():
    for forged in (update(mean=np.ones(2)), update(mean=np.zeros((1, 2))), update(weight=4.0)):
        for sent in permutations([update(), forged, update("b"), update()]):
            assert alone(*sent) == (["b"], {"a": "it sent 2 different updates, where one is right"})


@given(st.permutations(range(6)))
def test_no_decision_depends_on_the_order(order):
    sent = [
        update("a"),
        update("b", 99.0),
        update("c", mean=np.full(2, np.nan)),
        update("c"),
        update("mallory"),
        update("a", round=1),
    ]
    let, refused = admit(JOB, [sent[k] for k in order], CLIENTS, FIELDS)
    assert let == []
    assert [client for client, _ in refused] == ["a", "b", "c", "mallory"]


@settings(max_examples=60)
@given(
    st.integers(-1, 5),
    st.floats(),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(["<f8", "<f4", "<i8", "|b1", "<c16", "<U3", "|u1"]),
    st.floats(),
)
def test_nothing_that_is_let_in_surprises_a_merge(round, weight, shape, dtype, value):
    with np.errstate(all="ignore"):
        field = np.full(shape, str(value) if dtype == "<U3" else value).astype(dtype, copy=False)
    sent = update("a", weight, round, mean=field)
    for one in admit(JOB, [sent], CLIENTS, FIELDS).updates:
        assert (one.round, field.shape, field.dtype) == (3, (2,), NUMBER)
        assert 0 < one.weight <= 10
        assert (np.abs(field) <= 1e9).all()


def test_nothing_is_changed():
    sent = [update("a"), update("b", mean=np.full(2, np.inf))]
    before = [update_bits(one) for one in sent]
    admit(JOB, sent, CLIENTS, FIELDS)
    assert [update_bits(one) for one in sent] == before


# --- a whole round -------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["replay", "state"])
def test_a_merge_gets_the_honest_as_they_would_be_without_the_others(wire):
    toy = toy_federation(clients=5, wire=wire)
    played = play_rounds(toy, Local, 2, 2)[1]
    job, updates = played.job, played.updates
    most = {name: float(client.train.size) for name, client in toy.clients.items()}
    scaled = {name: 1e6 * array for name, array in updates[3].arrays.items()}
    sent = [
        *updates[:3],
        replace(updates[3], arrays=scaled),
        replace(updates[4], round=0),
        replace(updates[0], client="mallory"),
    ]
    let, refused = admitted(toy.parts, job, sent, most, Limits(times=20))
    assert [*map(update_bits, let)] == [*map(update_bits, updates[:3])]
    assert [client for client, _ in refused] == ["mallory", "site 3", "site 4"]
    assert "away from the broadcast" in dict(refused)["site 3"]
    assert admitted(toy.parts, job, updates, most) == (updates, [])


# --- how far one may be from the others ----------------------------------------------------------


def moved(toy, job, *lengths):
    start = toy.parts.receive(job.arrays).mean
    return [
        Update(f"{k}", 0, 1.0, {"mean": start + length / np.sqrt(start.size)})
        for k, length in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def began():
    toy = toy_federation()
    return toy, play_rounds(toy, Local, 2)[-1].job


@pytest.mark.parametrize(
    ("lengths", "far"),
    [
        ((1.0, 2.0, 3.0, 1e6), ["3"]),
        ((1.0, 2.0, -3.0, 20.0), []),  # the others' median is 2
        ((1.0, 2.0, -3.0, -20.1), ["3"]),
        ((1.0, 1.5, 1.2, 1e6, 1e6), ["3", "4"]),  # they cannot hide behind each other
        ((1.0, 1.5, 1.2, 0.0, 0.0), []),  # nor push others out
        ((0.0, 0.0, 0.0, 5.0), []),
        ((1.0, 1e6), []),
    ],
)
def test_who_is_far_from_the_rest_is_named(began, lengths, far):
    toy, job = began
    for order in permutations(moved(toy, job, *lengths)):
        let, refused = near(toy.parts, job, order, Limits(times=10))
        assert [client for client, _ in refused] == far
        assert [one.client for one in let] == [o.client for o in order if o.client not in far]
        assert all("away from the broadcast" in reason for _, reason in refused)


def test_without_a_limit_nobody_is_far(began):
    toy, job = began
    sent = moved(toy, job, 1.0, 2.0, 1e6)
    assert near(toy.parts, job, sent, Limits()) == Admission(sent, [])


@pytest.mark.parametrize("options", [{"largest": 0.0}, {"largest": np.nan}, {"times": 0.5}])
def test_limits_that_limit_nothing_or_all_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Limits(**options)


# --- the other phases ----------------------------------------------------------------------------


def answers(toy, phase="select"):
    """What honest clients say of three points, and the job."""
    zero = np.zeros(toy.parts.prompt.space.shape)
    job = Job(phase, 9, 1, 0, {"points": np.stack([zero, zero + 0.5, zero + 1.0])})
    return job, Local(toy.parts, toy.clients, toy.federation).map(job, list(toy.clients))


def changed(update, **arrays):
    return replace(update, arrays={**update.arrays, **arrays})


@pytest.mark.parametrize("phase", ["setup", "select", "evaluate"])
def test_honest_answers_of_every_phase_are_sane(phase):
    toy = toy_federation()
    job, sent = answers(toy, phase)
    assert sane(toy.parts, job, sent, list(toy.clients)) == (sent, [])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda one: changed(one, losses=np.full(3, np.nan)), "losses has 3 of 3 numbers that"),
        (lambda one: changed(one, losses=np.full(3, np.inf)), "losses has 3 of 3 numbers that"),
        (lambda one: changed(one, squares=np.full(3, 1e10)), "squares has a number of size 1e"),
        (lambda one: changed(one, losses=np.ones(4)), r"losses has shape \(4,\), other than most"),
        (lambda one: changed(one, answers=np.ones((3, 2))), "answers has shape"),
        (lambda one: changed(one, labels=np.array([-1, 9])), "labels has a number below 0"),
        (lambda one: changed(one, losses=np.array(list("abc"))), "losses holds <U1; it must be"),
        (lambda one: changed(one, words=np.ones(3)), "it holds words; declared is answers,"),
        (lambda one: replace(one, arrays={}), "it lacks answers, labels, losses, squares"),
        (lambda one: replace(one, weight=np.inf), "its weight is inf"),
        (lambda one: replace(one, weight=np.nan), "its weight is nan"),
        (lambda one: replace(one, round=8), "it answers round 8, and this is round 9"),
        (lambda one: replace(one, paid=-1), "none can be negative"),
        (lambda one: replace(one, client="mallory"), "it was not asked in this round"),
    ],
)
def test_insane_answers_are_refused(fault, reason):
    toy = toy_federation(clients=3)
    job, sent = answers(toy)
    for k in range(3):
        bad = [*sent[:k], fault(sent[k]), *sent[k + 1 :]]
        let, refused = sane(toy.parts, job, bad, list(toy.clients))
        assert [*map(update_bits, let)] == [*map(update_bits, sent[:k] + sent[k + 1 :])]
        assert len(refused) == 1
        assert re.search(reason, refused[0][1]), refused


def test_no_client_outvotes_the_others_by_repeating_itself():
    toy = toy_federation(clients=3)
    job, sent = answers(toy)
    copies = [changed(sent[0], losses=np.full(4, float(k))) for k in range(5)]
    let, refused = sane(toy.parts, job, [*copies, *sent[1:]], list(toy.clients))
    assert let == sent[1:]
    assert refused == [(sent[0].client, "it sent 5 different updates, where one is right")]


def test_texts_may_be_of_any_length():
    toy = toy_federation(clients=3)
    parts = replace(toy.parts, phases={**toy.parts.phases, PROPOSE.name: PROPOSE})
    job = Job(PROPOSE.name, 0, 1, 0)
    sent = [
        Update(
            name,
            0,
            1.0,
            {
                "texts": np.zeros(k, np.uint8),
                "rows": np.zeros(k, np.int64),
                "refused": np.zeros(4, np.int64),
            },
        )
        for k, name in enumerate(toy.clients)
    ]
    assert sane(parts, job, sent, list(toy.clients)) == (sent, [])
    wrong = changed(sent[0], rows=np.zeros((2, 2), np.int64))
    assert len(sane(parts, job, [wrong, *sent[1:]], list(toy.clients)).refused) == 1
