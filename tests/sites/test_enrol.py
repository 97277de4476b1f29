"""Nodes come, are refused, and come again."""

import json

import pytest

from fedbbpt.engines import flower
from fedbbpt.post import Arrived, decline

BAD = "birch"


def joins(letter):
    return json.loads(letter["head"])["kind"] == "join"


def test_a_node_that_was_refused_may_come_back_in_order(world):
    w = world({"engine.quorum": 1.0})
    desk = w.desk()
    pauses = iter([{BAD}, set()])  # it leaves, and comes with what was agreed
    desk.pause = lambda: setattr(desk, "away", next(pauses))
    asked = []

    def meddle(name, number, letter, reply):
        if joins(letter):
            asked.append(name)
            if asked.count(BAD) == 1 and name == BAD:
                return [Arrived(name, number, decline("another config"))]
        return [Arrived(name, number, reply)]

    desk.meddle = meddle
    outcome = w.there(desk)
    assert sorted(asked) == ["ash", BAD, BAD, "cedar"]
    lines = (outcome.path / "events.jsonl").read_text().splitlines()
    told = [e for e in map(json.loads, lines) if e["event"] == "node" and e["client"] == BAD]
    assert [(e["what"], e["why"]) for e in told] == [
        ("refused", "another config"),
        ("joined", "with 6 training examples"),
    ]
    assert outcome.result["clients"] == 3


@pytest.mark.parametrize("lull", [0.0, 1e9])
def test_who_is_there_is_asked_before_the_others_come(world, monkeypatch, lull):
    """After a moment, so that nodes that come together are asked together."""
    monkeypatch.setattr(flower, "LULL", lull)
    w = world()
    desk = w.desk()
    desk.away = {BAD, "cedar"}
    pauses = iter([desk.away, desk.away, set()])
    desk.pause = lambda: setattr(desk, "away", next(pauses))
    asked = []

    def meddle(name, number, letter, reply):
        if joins(letter):
            asked.append((name, bool(desk.away)))
        return [Arrived(name, number, reply)]

    desk.meddle = meddle
    w.there(desk)
    early = lull == 0
    assert sorted(asked) == [("ash", early), (BAD, False), ("cedar", False)]
