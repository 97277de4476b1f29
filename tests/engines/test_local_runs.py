"""Whole runs in this process: threads, ledgers, wires and budgets do not change the numbers."""

import tempfile
import tomllib
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt import api
from fedbbpt.config import presets
from fedbbpt.errors import ConfigError, Incompatible


def load_kit():
    path = Path(__file__).parents[1] / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load_kit()


def federated_search(name):
    """Whether a preset declares a search on texts that clients do together; all are the default.
    Those for instructions are run in tests/test_instruct_runs.py.
    """
    preset = tomllib.loads((files("fedbbpt.methods") / f"{name}.toml").read_text("utf-8"))
    declared, prompt = preset.get("method", {}), preset.get("prompt", {})
    kind, clients = declared.get("kind", "search"), declared.get("clients", "all")
    ours = prompt.get("side") == "image" or prompt.get("kind") == "instruction"
    below = declared.get("base")
    return (kind, clients, ours) == ("search", "all", False) and (
        below is None or federated_search(below)
    )


SEARCHES = [name for name in presets() if name != "auto" and federated_search(name)]
TEXT_SIDE = {"prompt.side": "text", "prompt.template": "It was {text} ."}
CLASSES = ("bad", "good", "odd")


@pytest.fixture(scope="module", autouse=True)
def toybox():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(kit.BOXES)
        yield


def run(folder, changes, box=None, **shape):
    """The run directory of a run of the toy box, or of another one."""
    config = kit.write_config(folder, changes, **shape)
    api.run(config, folder / "out", box=box)
    return folder / "out"


def assert_equal(one, other, besides=()):
    """The same run to the bit: numbers, prompt, and what every client's losses were."""
    ours, theirs = kit.numbers(one), kit.numbers(other)
    for key in besides:
        assert ours.pop(key) != theirs.pop(key)
    assert ours == theirs
    assert kit.prompt(one) == kit.prompt(other) != {}
    assert kit.losses(one) == kit.losses(other) != []


def method(name, **changes):
    return {"method.name": name, "budget.queries": 9000, "rounds.max": 3, **changes}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("side", ["label", "text"])
def test_threads_change_no_bit(tmp_path, name, side):
    changes = method(name, **(TEXT_SIDE if side == "text" else {}))
    shape = {"sites": kit.SITES, "classes": CLASSES}
    serial = run(tmp_path / "serial", changes, **shape)
    threaded = run(tmp_path / "threaded", changes | {"engine.threads": 4}, **shape)
    assert_equal(serial, threaded)


@pytest.mark.parametrize("name", ["linear-probe", "fedes"])
def test_threads_change_no_bit_of_a_real_model(tmp_path, minilm, name):
    changes = {
        "method.name": name,
        "box": {"kind": "dual_encoder"},
        "budget.queries": 400,
        "prompt.template": "It was {label}.",
        "rounds.max": 2,
    }
    serial = run(tmp_path / "serial", changes, minilm)
    threaded = run(tmp_path / "threaded", changes | {"engine.threads": 4}, minilm)
    assert_equal(serial, threaded)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_rerun_on_the_same_ledger_pays_nothing(tmp_path, name):
    changes = method(name) | {"run.ledger": str(tmp_path / "shared.sqlite")}
    first, second = run(tmp_path / "first", changes), run(tmp_path / "second", changes)
    assert_equal(first, second, besides=["queries"])
    paid, free = kit.numbers(first)["queries"], kit.numbers(second)["queries"]
    assert paid["paid"] == paid["train"] + paid["select"] + paid["evaluation"] > 0
    assert free["paid"] == 0
    assert free | {"paid": paid["paid"], "cached": paid["cached"]} == paid


@pytest.mark.parametrize("name", ["fedes", "fedavg-bbt", "fedwords", "random-search"])
@pytest.mark.parametrize("threads", [1, 4])
def test_losses_and_states_on_the_wire_give_the_same_run(tmp_path, name, threads):
    changes = method(name) | {"rounds.max": 5, "engine.threads": threads}
    replay = run(tmp_path / "replay", changes | {"method.wire": "replay"})
    state = run(tmp_path / "state", changes | {"method.wire": "state"})
    ours, theirs = kit.numbers(replay), kit.numbers(state)
    assert ours.pop("bytes") != theirs.pop("bytes")
    assert ours == theirs and kit.prompt(replay) == kit.prompt(state)


@settings(max_examples=40)
@given(
    name=st.sampled_from(SEARCHES),
    side=st.sampled_from(["label", "text"]),
    queries=st.integers(1, 2500),
    active=st.none() | st.integers(1, 4),
    steps=st.none() | st.integers(1, 3),
    threads=st.sampled_from([1, 3]),
)
def test_no_budget_is_ever_exceeded(name, side, queries, active, steps, threads):
    changes = {"method.name": name, "budget.queries": queries, "engine.threads": threads}
    changes |= TEXT_SIDE if side == "text" else {}
    changes |= {"rounds.clients_per_round": active} if active else {}
    changes |= {"rounds.steps": steps} if steps else {}
    changes |= {"rounds.max": 60, "box.name": "toy"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        try:
            out = run(path, changes, per_site=4)
        except ConfigError as error:
            assert f"budget.queries is {queries}, but one step" in str(error)
            assert not (path / "out").exists()
            return
        except Incompatible as error:
            assert steps and steps > 1 and "one step per round" in str(error)
            return
        result, events = kit.result(out), kit.events(out, "client", "merge")
        spent = result["queries"]
        assert 0 < spent["train"] <= queries == spent["budget"]
        assert result["stopped"] in ("budget", "rounds")
        assert spent["paid"] + spent["cached"] == sum(
            spent[purse] for purse in ("train", "select", "evaluation")
        )
        # The books agree: what the clients were charged is what the merges saw.
        merges = [event for event in events if event["event"] == "merge"]
        totals = [merge["queries"] for merge in merges]
        assert totals == sorted(totals) and totals[-1] == spent["train"]
        rounds = tomllib.loads((out / "config.toml").read_text(encoding="utf-8"))["rounds"]
        chosen = min(rounds.get("clients_per_round", 3), 3)
        assert all(merge["clients"] == chosen for merge in merges)
        assert len(merges) == result["rounds"]
        # Where the search ended is always among the candidates.
        assert kit.events(out, "snapshot")[-1]["round"] == result["rounds"]


def test_the_last_point_is_a_candidate_even_if_nobody_could_pay_the_last_round(tmp_path):
    """Garbling sometimes leaves a text as it was, so a step may cost more than was foreseen."""
    for queries in range(420, 432):
        changes = method("fedbpt-nvflare", **{"budget.queries": queries, "rounds.max": 1000})
        changes |= {"method.snapshots": 3, "rounds.steps": 1, "rounds.clients_per_round": 1}
        config = kit.write_config(tmp_path / str(queries), changes)
        rows = [
            (f"w{i + 10 * k}", ("good", "bad")[i % 2], site)
            for k, site in enumerate(kit.SITES[:3])
            for i in range(8)
        ]
        kit.write_table(config.with_name("train.csv"), rows)
        out = config.with_name("out")
        api.run(config, out)
        assert kit.events(out, "snapshot")[-1]["round"] == kit.result(out)["rounds"], queries
