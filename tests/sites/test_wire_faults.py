"""What a node may send that is wrong, late or not at all: the run goes on and names it."""

import json

import numpy as np
import pytest

from fedbbpt import api
from fedbbpt.arrays import decode, encode
from fedbbpt.errors import TooFewNodes
from fedbbpt.post import Arrived
from fedbbpt.sites.agreed import empty

BAD = "birch"


def events(outcome, kind):
    lines = (outcome.path / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def changed(reply, arrays=None, **head):
    return {
        "head": json.dumps({**json.loads(reply["head"]), **head}),
        "body": reply["body"] if arrays is None else encode(arrays(decode(reply["body"]))),
    }


def losses(change):
    return lambda arrays: {**arrays, "losses": change(arrays["losses"])}


def meddling(fault, phase="search", client=BAD):
    """A desk's meddling: what this client sends in this phase goes through ``fault``."""
    before = []

    def meddle(name, number, letter, reply):
        head = json.loads(reply["head"])
        if name != client or head.get("phase") != phase:
            return [Arrived(name, number, reply)]
        before.append(reply)
        return [Arrived(name, number, fault(reply, before))]

    return meddle


FAULTS = {
    "nan": (lambda r, _: changed(r, losses(lambda a: a * -np.inf)), "not finite"),
    "shape": (lambda r, _: changed(r, losses(lambda a: a[:, 1:])), "shape"),
    "type": (lambda r, _: changed(r, losses(lambda a: a.astype(np.float32))), "float32"),
    "scaled": (lambda r, _: changed(r, losses(lambda a: a * 1e12)), "of size"),
    "field": (lambda r, _: changed(r, lambda a: {**a, "texts": a["losses"]}), "texts"),
    "weight": (lambda r, _: changed(r, weight=10**6), "weight"),
    "stale": (lambda r, _: changed(r, round=99), "answers round 99"),
    "replayed": (lambda r, old: old[0] if len(old) > 1 else r, "answers round 0"),
    "run": (lambda r, _: changed(r, run="other"), "answers run 'other'"),
    "name": (lambda r, _: changed(r, client="ash"), "in the name of 'ash'"),
    "queries": (lambda r, _: changed(r, queries=-5), "queries"),
    "infinite": (lambda r, _: changed(r, weight=float("inf")), "weight"),
    "garbage": (lambda r, _: {"head": r["head"], "body": b"\x80pickle"}, "safetensors"),
    "nothing": (lambda r, _: {}, "no letter"),
    "number": (lambda r, _: {"head": "17"}, "no letter"),
    "bytes": (lambda r, _: {"head": b"\xff", "body": b""}, "no letter"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_update_is_left_out_by_name(world, fault):
    change, said = FAULTS[fault]
    w = world()
    outcome = w.there(w.desk(meddling(change)))
    told = [e for kind in ("node", "refused") for e in events(outcome, kind) if said in str(e)]
    assert told and {event["client"] for event in told} == {BAD}
    heard = {e["client"] for e in events(outcome, "client") if e["round"] == 2}
    assert heard - {BAD} == {"ash", "cedar"}


def test_what_one_node_sends_wrong_is_as_if_it_had_not_been_asked(world):
    w = world()
    wrong = w.there(w.desk(meddling(FAULTS["garbage"][0])), out="wrong")
    deaf = w.there(w.desk(lambda n, i, _, r: lost(n, i, r)), out="deaf")
    assert wrong.result["tuned"] == deaf.result["tuned"]


def lost(name, number, reply, phase="search"):
    if name == BAD and json.loads(reply["head"]).get("phase") == phase:
        return [Arrived(name, number, None, "Flower's error 5: heartbeat")]
    return [Arrived(name, number, reply)]


def test_a_dead_node_is_named_and_the_others_go_on(world):
    w = world()
    outcome = w.there(w.desk(lambda n, i, _, r: lost(n, i, r)))
    (first, *_) = [e for e in events(outcome, "node") if e["what"] == "lost"]
    assert first["client"] == BAD and "heartbeat" in first["why"] and first["round"] == 0


def test_a_late_answer_is_dropped_and_named(world):
    w = world({"engine.deadline": 0.2, "rounds.max": 3})
    kept = []

    def meddle(name, number, letter, reply):
        arrived = [Arrived(name, number, reply)]
        if name == BAD and json.loads(reply["head"]).get("phase") == "search":
            kept.append(arrived[0])
            return [kept[-2]] if len(kept) > 1 else []  # one round late
        return arrived

    outcome = w.there(w.desk(meddle))
    why = [e["why"] for e in events(outcome, "node") if e["what"] == "late"]
    assert any("no answer within 0.2 s" in said for said in why)
    assert any("earlier round" in said for said in why)
    assert {e["client"] for e in events(outcome, "client") if e["round"] == 1} == {"ash", "cedar"}


def test_a_node_that_joins_late_takes_part_from_then_on(world):
    w = world({"engine.quorum": 0.6, "engine.join": 0.1})
    desk = w.desk()
    desk.away = {BAD}

    def meddle(name, number, letter, reply):
        if json.loads(reply["head"]).get("round") == 1:
            desk.away.clear()
        return [Arrived(name, number, reply)]

    desk.meddle = meddle
    outcome = w.there(desk)
    rounds = {e["round"] for e in events(outcome, "client") if e["client"] == BAD}
    assert rounds == {2, 3}
    (joined,) = [e for e in events(outcome, "node") if e["client"] == BAD]
    assert joined["what"] == "joined"
    assert outcome.result["clients"] == 3


def test_a_node_that_goes_and_comes_back_is_named_twice(world):
    w = world({"rounds.max": 6})
    desk = w.desk()

    def meddle(name, number, letter, reply):
        round = json.loads(reply["head"]).get("round")
        desk.away = {BAD} if round in (1, 2) else set()
        return [Arrived(name, number, reply)]

    desk.meddle = meddle
    outcome = w.there(desk)
    what = [e["what"] for e in events(outcome, "node") if e["client"] == BAD]
    assert what == ["joined", "absent", "back"]


def test_without_a_quorum_the_run_stops_and_can_be_resumed(world):
    w = world({"engine.deadline": 0.1, "engine.quorum": 0.6})
    whole = w.there(out="whole")
    desk = w.desk()

    def meddle(name, number, letter, reply):
        if json.loads(reply["head"]).get("round") == 2:
            desk.away = {"ash", BAD}
            return []
        return [Arrived(name, number, reply)]

    desk.meddle = meddle
    with pytest.raises(TooFewNodes, match=r"engine\.quorum asks for 2.*ash"):
        w.there(desk)
    again = api.resume(w.folder / "there", split=empty(w.over), post=w.desk())
    assert kept(again.result) == kept(whole.result)


def kept(result):
    """Without times, and what the ledgers knew from the other run."""
    queries = {k: v for k, v in result["queries"].items() if k not in ("paid", "cached")}
    return {**{k: v for k, v in result.items() if k != "seconds"}, "queries": queries}


@pytest.mark.parametrize("phase", ["setup", "select"])
def test_a_fault_in_another_phase_leaves_its_node_out(world, phase):
    w = world()
    outcome = w.there(w.desk(meddling(FAULTS["garbage"][0], phase)))
    (event,) = [e for e in events(outcome, "node") if e["what"] == "refused"]
    assert event["client"] == BAD and event["phase"] == phase
    assert np.isfinite(outcome.result["tuned"]["loss"])


def test_an_answer_to_an_earlier_try_of_the_round_counts(world):
    w = world({"engine.deadline": 0.1, "engine.quorum": 1.0})
    kept = []

    def slow(name, number, letter, reply):
        if name == BAD and json.loads(reply["head"]).get("round") == 1:
            # The first answer comes with the second try, whose own never does.
            kept.append(Arrived(name, number, reply))
            return kept[:1] if len(kept) == 2 else []
        return [Arrived(name, number, reply)]

    outcome = w.there(w.desk(slow))
    assert {e["client"] for e in events(outcome, "client") if e["round"] == 1} == set(w.sites)


def test_a_node_with_another_model_is_named(world):
    w = world()
    w.settle(BAD, ["box.name=another"])
    outcome = w.there(w.desk())
    told = [e for e in events(outcome, "node") if e["what"] == "model"]
    assert [e["client"] for e in told] == [BAD]
    assert "another" in told[0]["why"]
