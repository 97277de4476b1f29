"""Real runs in which a client lies: they finish, name it, and go on as if it had said nothing."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt import api
from fedbbpt.errors import ConfigError
from fedbbpt.testing import hostile
from fedbbpt.testing.hostile import Hostile, infiltrated
from fedbbpt.types import Job, Update


def load_kit():
    path = Path(__file__).parents[1] / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load_kit()
LIAR, VICTIM = "birch", "cedar"
CHANGES = {"budget.queries": 3000, "rounds.max": 3}
STATE = {"method.wire": "state"}
TIMES = {"admission.times": 10}


@pytest.fixture(scope="module", autouse=True)
def toybox():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(kit.BOXES)
        yield


def run(folder, faults, changes=(), phases=("search",), per_site=8):
    """The run directory of a small run with these clients hostile."""
    settings = {**CHANGES, **dict(changes)}
    config = kit.write_config(folder, settings, per_site=per_site, sites=kit.SITES)
    with infiltrated(faults, phases):
        api.run(config, folder / "out")
    return folder / "out"


def outcome(out):
    """All that a refused message must not change."""
    numbers = kit.numbers(out)
    del numbers["bytes"]
    return numbers, kit.prompt(out)


def refused(out):
    return [(e["phase"], e["round"], e["client"]) for e in kit.events(out, "refused")]


EVERY_ROUND = [("search", number, LIAR) for number in range(3)]


@pytest.mark.parametrize(
    ("fault", "changes", "reason"),
    [
        ("nan", STATE, "mean has 4 of 4 numbers that are not finite"),
        ("shape", {}, "losses has shape (2, 10); it must be (1, 10)"),
        ("shape", STATE, "mean has shape (5,); it must be (4,)"),
        ("dtype", {}, "losses holds float32; it must be float64"),
        ("scale", TIMES, "and the others' median is"),
        ("scale", STATE | TIMES, "and the others' median is"),
        ("push", {"admission.times": 6}, "and the others' median is"),
        ("change", {}, "it sent 2 different updates, where one is right"),
    ],
)
def test_a_run_goes_on_without_the_refused(tmp_path, fault, changes, reason):
    out = run(tmp_path / "lies", {LIAR: fault}, changes)
    assert refused(out) == EVERY_ROUND
    assert all(reason in event["reason"] for event in kit.events(out, "refused"))
    assert LIAR not in {event["client"] for event in kit.events(out, "client")}
    assert {event["clients"] for event in kit.events(out, "merge")} == {3}
    silent = run(tmp_path / "silence", {LIAR: "silent"}, changes)
    assert outcome(out) == outcome(silent)
    assert outcome(out) != outcome(run(tmp_path / "honest", {}, changes))


def test_a_stale_update_is_refused_from_the_second_round_on(tmp_path, monkeypatch):
    out = run(tmp_path / "lies", {LIAR: "stale"})
    assert refused(out) == EVERY_ROUND[1:]
    reasons = [event["reason"] for event in kit.events(out, "refused")]
    assert reasons == [f"it answers round {k}, and this is round {k + 1}" for k in range(2)]
    late = {"late": lambda job, own, other, last: [] if job.round else [own]}
    monkeypatch.setattr(hostile, "FAULTS", late)
    assert outcome(out) == outcome(run(tmp_path / "silence", {LIAR: "late"}))


def test_who_speaks_in_anothers_name_silences_it(tmp_path):
    """And is heard itself: whose the second message is, nobody can say here."""
    out = run(tmp_path / "lies", {LIAR: "forge"})
    assert refused(out) == [("search", number, VICTIM) for number in range(3)]
    assert outcome(out) == outcome(run(tmp_path / "silence", {VICTIM: "silent"}))


@pytest.mark.parametrize("wire", ["replay", "state"])
def test_who_says_it_twice_is_heard_once(tmp_path, wire):
    changes = {"method.wire": wire}
    out = run(tmp_path / "twice", {LIAR: "twice"}, changes)
    assert refused(out) == []
    honest = run(tmp_path / "once", {}, changes)
    assert outcome(out) == outcome(honest)
    assert kit.losses(out) == kit.losses(honest)


def test_losses_that_are_no_answer_are_let_in(tmp_path):
    out = run(tmp_path, {LIAR: "nan"})
    assert refused(out) == []
    assert {event["loss"] for event in kit.events(out, "client") if event["client"] == LIAR} == {
        None
    }


@pytest.mark.parametrize("fault", ["flip", "scale", "copy"])
def test_possible_numbers_are_let_in(tmp_path, fault):
    """Against these there are robust merges."""
    out = run(tmp_path / "lies", {LIAR: fault})
    assert refused(out) == []
    assert outcome(out) != outcome(run(tmp_path / "honest", {}))


@pytest.mark.parametrize("fault", ["nan", "shape", "dtype"])
def test_the_selection_goes_on_without_the_refused(tmp_path, fault):
    out = run(tmp_path / "lies", {LIAR: fault}, phases=("select",))
    assert refused(out) == ([("select", 5, LIAR)] if fault != "dtype" else [])
    if fault != "dtype":
        silent = run(tmp_path / "silence", {LIAR: "silent"}, phases=("select",))
        assert outcome(out) == outcome(silent)


def chosen(out):
    return [event["chosen"] for event in kit.events(out, "snapshot")].index(True)


def test_a_merge_that_bears_liars_selects_as_if_there_were_none(tmp_path):
    """One of four says ten times the opposite of every held-back loss."""
    robust = {"method.aggregator.robust": "median"}
    ends = {
        name: chosen(run(tmp_path / name, faults, changes, phases=("select",)))
        for name, faults, changes in (
            ("honest", {}, robust),
            ("borne", {LIAR: "push"}, robust),
            ("plain", {}, {}),
            ("carried off", {LIAR: "push"}, {}),
        )
    }
    assert ends["borne"] == ends["honest"]
    assert ends["carried off"] != ends["plain"]


def test_who_cannot_say_what_it_needs_does_not_take_part(tmp_path):
    out = run(tmp_path, {LIAR: "shape"}, phases=("setup",))
    assert refused(out) == [("setup", 0, LIAR)]
    others = set(kit.SITES) - {LIAR}
    assert {event["client"] for event in kit.events(out, "client")} == others


def test_if_nobody_can_there_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match="no client can take part; of 'ash': it answers round"):
        run(tmp_path, dict.fromkeys(kit.SITES, "early"), phases=("setup",))


@pytest.fixture(autouse=True)
def early(monkeypatch):
    def fault(job, own, other, last):
        return [Update(own.client, job.round + 7, own.weight, own.arrays)]

    monkeypatch.setitem(hostile.FAULTS, "early", fault)


def test_a_merge_that_lacks_updates_leaves_the_state(tmp_path):
    """Krum with bad = 0 needs three of four; two of them are refused in every round."""
    changes = {
        "method.aggregator": {"name": "krum", "bad": 0, "keep": 3},
        **STATE,
    }
    lies = run(tmp_path / "lies", dict.fromkeys((LIAR, VICTIM), "nan"), changes)
    assert len(refused(lies)) == 6
    result = kit.result(lies)
    assert (result["rounds"], result["tuned"]) == (3, result["baseline"])
    one = run(tmp_path / "one", {LIAR: "nan"}, changes)
    assert kit.result(one)["tuned"] != kit.result(one)["baseline"]


# --- what the faults do --------------------------------------------------------------------------


class Echo:
    """An engine whose clients say what they are told to."""

    def __init__(self, **sent):
        self.sent = sent

    def map(self, job, clients):
        return [Update(name, job.round, 1.0, dict(self.sent)) for name in clients]


def test_a_flipped_state_walks_the_other_way():
    start = {"mean": np.array([-1.0, 2.0]), "sigma": np.array(1.0)}
    sent = {
        "mean": np.array([0.0, 0.0]),
        "sigma": np.array(1.5),
        "popsize": np.array(5),
        "loss": np.array(0.25),
    }
    job = Job("search", 0, 1, 0, start)
    for fault, mean, sigma, loss in (
        ("flip", [-2.0, 4.0], 0.5, -0.25),
        ("push", [-11.0, 22.0], 1.5, -2.5),
        ("scale", [1e6 - 1, 2 - 2e6], 5e5 + 1, 0.25e6),
    ):
        honest, liar = Hostile(Echo(**sent), {"b": fault}).map(job, ["a", "b"])
        np.testing.assert_array_equal(honest.arrays["mean"], sent["mean"])
        np.testing.assert_array_equal(liar.arrays["mean"], mean)
        assert (liar.arrays["sigma"], liar.arrays["loss"]) == (sigma, loss)
        assert liar.arrays["popsize"] == 5


def test_a_fault_has_a_name():
    with pytest.raises(ConfigError, match="no fault is named 'liar'; there are nan, shape"):
        Hostile(Echo(), {"a": "liar"})
