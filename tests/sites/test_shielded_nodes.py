"""Shields over nodes, each of which begins anew for every message."""

import json

import pytest

CLIP = {"clip": {"norm": 0.1}}
PROMISED = {**CLIP, "noise": {"epsilon": 8.0}, "quantise": {}, "mask": {"threshold": 2}}


@pytest.mark.parametrize(
    "changes",
    [
        {"shields": CLIP},
        {"shields": {"mask": {}}, "method.directions": "shared"},
        {"shields": {**CLIP, "mask": {}}, "method.directions": "shared"},
        {"shields": {"mask": {}}, "method.wire": "state", "method.directions": "distinct"},
    ],
    ids=str,
)
def test_a_shielded_run_over_nodes_is_the_run_in_one_process(world, changes):
    """A sum in fixed point does not depend on any order, nor on whose masks went into it."""
    w = world(changes)
    w.assert_same(w.here(), w.there(), within=1e-8)


def test_nodes_keep_their_promise(world):
    w = world({"shields": PROMISED, "method.directions": "shared"})
    there = w.there()
    events = [json.loads(line) for line in (there.path / "events.jsonl").read_text().splitlines()]
    assert there.result["stopped"] == "rounds"
    spent = [event for event in events if event["event"] == "privacy"]
    assert spent[-1]["epsilon"] == pytest.approx(8.0, abs=1e-3)
    assert not [e for e in events if e["event"] in ("refused", "select")]
    assert all(e["loss"] is None for e in events if e["event"] == "client")
