"""Whole runs behind shields: what is in the books, what is not, and that a kill changes nothing."""

import json
import secrets
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

import fedbbpt
from fedbbpt.arrays import encode
from fedbbpt.config import resolve
from fedbbpt.engines import local
from fedbbpt.sharing import share_out, tables
from fedbbpt.testing.toys import ToyEncoder, toy_batch

CLIP, NOISE = {"norm": 0.2}, {"epsilon": 8.0}
SHIELDS = {
    "clip": {"clip": CLIP},
    "noise": {"clip": CLIP, "noise": NOISE},
    "quantise": {"clip": CLIP, "quantise": {"bits": 8}},
    "mask": {"mask": {}},
    "all": {"clip": CLIP, "noise": NOISE, "quantise": {"bits": 12}, "mask": {"threshold": 3}},
}
METHODS = {
    "fedes": {},
    "fedes on states": {"method": {"wire": "state", "directions": "distinct"}},
    "fedavg": {
        "method": {"name": "fedavg-bbt", "wire": "state", "aggregator": {"name": "adam"}},
        "rounds": {"max": 6, "steps": 2},
        "prompt": {"dim": 8},
    },
}


def pairs(size, seed):
    batch = toy_batch(size, 2, seed)
    return [(x, ("bad", "good")[t]) for x, t in zip(batch.inputs, batch.targets, strict=True)]


def prepared(folder, shields=None, own_tests=False, **sections):
    """(config, split) of four clients and twenty public test examples, or of four clients' own."""
    tree = {
        "method": {"name": "fedes"},
        "data": {"train": ""},
        "prompt": {"template": "It was {label} ."},
        "rounds": {"max": 6},
        "shields": shields or {},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    config = resolve(tree, folder)
    clients = {f"site {i}": pairs(8 + i, i) for i in range(4)}
    split = share_out(config, *tables(clients, pairs(20, 99), config.data))
    if not own_tests:
        return config, split
    (whole,) = split.test.values()
    mine = {name: whole.take(range(i, 20, 4)) for i, name in enumerate(split.clients)}
    return config, replace(split, test=mine)


def finish(folder, shields=None, box=None, **options):
    """(outcome, events by name) of a run."""
    config, split = prepared(folder, shields, **options)
    outcome = fedbbpt.run(config, folder / "run", box=box or ToyEncoder(), split=split)
    return outcome, events_of(outcome.path)


def events_of(path):
    found = {}
    for line in (path / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        found.setdefault(event.pop("event"), []).append(event)
    return found


# --- every shield under every kind of method -----------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shields", SHIELDS)
def test_a_shielded_run_ends_as_any_does(shields, method, tmp_path):
    outcome, events = finish(tmp_path, SHIELDS[shields], **METHODS[method])
    plain, _ = finish(tmp_path / "plain", **METHODS[method])
    assert outcome.result.keys() == plain.result.keys()
    assert outcome.result["stopped"] == "rounds" and outcome.result["rounds"] == 6
    assert outcome.result["queries"]["train"] == plain.result["queries"]["train"]
    assert outcome.result["test_examples"] == 20
    assert 0 <= outcome.result["tuned"]["accuracy"] <= 1
    moved = np.array([e["test_loss"] for e in events["snapshot"]])
    assert len(set(moved)) > 1 and np.isfinite(moved).all()
    assert "refused" not in events


@pytest.mark.parametrize("shields", SHIELDS)
def test_no_event_holds_what_a_shield_keeps_back(shields, tmp_path):
    """No client's loss behind any shield; held-back ones only where nothing is promised of them."""
    _, events = finish(tmp_path, SHIELDS[shields])
    assert all(event["loss"] is None for event in events["client"])
    assert len(events["client"]) == 6 * 4
    told = {event["client"] for event in events.get("select", ())}
    sites = {f"site {i}" for i in range(4)}
    wanted = {"clip": sites, "quantise": sites, "noise": set(), "all": set(), "mask": {"(all)"}}
    assert told == wanted[shields]
    assert {event["client"] for event in events["evaluate"]} == {"(test)"}
    averaged = [event["loss"] is not None for event in events["merge"]]
    assert averaged == [shields == "mask"] * 6


# --- tests of the clients' own -------------------------------------------------------------------


def test_masked_tests_of_clients_are_scored_together_and_noisy_ones_not_at_all(tmp_path):
    plain, _ = finish(tmp_path / "plain", own_tests=True)
    masked, events = finish(tmp_path / "masked", SHIELDS["mask"], own_tests=True)
    for key in ("baseline", "tuned"):
        assert masked.result[key] == pytest.approx(plain.result[key], abs=1e-6)
    assert masked.result["gain_interval"] == pytest.approx(plain.result["gain_interval"], abs=1e-6)
    assert set(plain.by_client) == {f"site {i}" for i in range(4)}
    assert set(masked.by_client) == {"(all)"}
    noisy, events = finish(tmp_path / "noisy", SHIELDS["noise"], own_tests=True)
    assert noisy.result["tuned"] == noisy.result["baseline"] == {"accuracy": None, "loss": None}
    assert noisy.result["queries"]["select"] == noisy.result["queries"]["evaluation"] == 0
    assert not {"select", "evaluate"} & events.keys()
    kept = json.dumps(events["snapshot"])
    assert kept.count('"test_loss": null') == kept.count('"holdout_loss": null') == 7


def test_a_masked_run_chooses_and_ends_where_the_plain_one_does(tmp_path):
    plain, before = finish(tmp_path / "plain")
    masked, after = finish(tmp_path / "masked", SHIELDS["mask"])
    for one, other in zip(before["snapshot"], after["snapshot"], strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert masked.result["tuned"] == pytest.approx(plain.result["tuned"], abs=1e-4)
    assert masked.result["bytes"]["up_per_client_round"] < 2048


# --- what noise costs ----------------------------------------------------------------------------


def test_what_is_spent_is_told_and_ends_at_what_was_asked_for(tmp_path):
    _, events = finish(tmp_path, SHIELDS["noise"])
    spent = [event["epsilon"] for event in events["privacy"]]
    assert spent == sorted(set(spent)) and spent[-1] == pytest.approx(8.0, abs=1e-3)
    assert [event["rounds"] for event in events["privacy"]] == [1, 2, 3, 4, 5, 6]
    assert {event["delta"] for event in events["privacy"]} == {1e-5}


def test_of_clients_that_take_turns_the_one_that_spoke_most_counts(tmp_path):
    some = {"rounds": {"max": 6, "clients_per_round": 2}}
    _, events = finish(tmp_path, SHIELDS["noise"], **some)
    spoke = [e["client"] for e in events["client"] if e["phase"] == "search"]
    most = max(spoke.count(name) for name in set(spoke))
    last = events["privacy"][-1]
    assert last["rounds"] == most < 6
    assert last["epsilon"] < 7.9


# --- kill and resume -----------------------------------------------------------------------------


class Witness:
    """Sees every update that leaves a client, and kills the server behind one of them."""

    def __init__(self, kill_at):
        self.left, self.said, self.work = count(kill_at, -1), {}, local.work

    def __call__(self, parts, client, job):
        update = self.work(parts, client, job)
        place = (job.phase, job.round, client.name)
        self.said.setdefault(place, []).append(encode(update.arrays))
        if next(self.left) == 0:
            raise KeyboardInterrupt
        return update


# Four clients: after the setup each round takes four jobs, or sixteen where keys are agreed on.
@pytest.mark.parametrize(
    ("shields", "kill_at"), [("noise", 5), ("noise", 19), ("all", 13), ("all", 17), ("all", 30)]
)
def test_a_run_that_was_killed_goes_on_with_the_same_noise(shields, kill_at, tmp_path, monkeypatch):
    """Else the same losses would leave twice, each time behind other noise."""
    monkeypatch.setattr(secrets, "token_bytes", lambda size: bytes(size))
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    whole, told = finish(tmp_path / "whole", SHIELDS[shields])
    config, split = prepared(tmp_path, SHIELDS[shields])
    witness = Witness(kill_at)
    monkeypatch.setattr(local, "work", witness)
    with pytest.raises(KeyboardInterrupt):
        fedbbpt.run(config, tmp_path / "run", box=ToyEncoder(), split=split)
    again = fedbbpt.resume(tmp_path / "run", box=ToyEncoder(), split=split)
    twice = {place: said for place, said in witness.said.items() if len(said) > 1}
    assert any(phase == "search" for phase, _, _ in twice)
    assert all(len(set(said)) == 1 for said in twice.values())
    after = events_of(again.path)
    for key in ("tuned", "baseline", "queries", "bytes", "rounds"):
        assert again.result[key] == whole.result[key]
    assert after["snapshot"] == told["snapshot"] and after["privacy"] == told["privacy"]


def test_two_runs_draw_other_noise(tmp_path):
    ends = [finish(tmp_path / name, SHIELDS["noise"])[1]["snapshot"][-1] for name in "ab"]
    assert ends[0]["test_loss"] != ends[1]["test_loss"]
