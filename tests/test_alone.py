"""Everyone alone, and everyone's data in one place: what federation is held against."""

import json
import signal
import sqlite3
import subprocess
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fedbbpt import alone, api, registry
from fedbbpt.config import read
from fedbbpt.engines.local import Local
from fedbbpt.errors import BudgetTooSmall, Incompatible, RunDirError
from fedbbpt.sharing import EVERYONE, TESTER, examples, only
from fedbbpt.types import Batch

NAMES = ("ash", "birch", "cedar")


def load_kit():
    path = Path(__file__).parent / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load_kit()


@pytest.fixture(autouse=True)
def toybox(monkeypatch):
    monkeypatch.syspath_prepend(kit.BOXES)
    import toybox

    return toybox


def config_of(folder, name="local-only", **changes):
    changes = {"method.name": name, "budget.queries": 900, "prompt.dim": 4} | changes
    return kit.write_config(folder, changes)


def sites_apart(config):
    """The test examples belong to no site any more."""
    test = config.with_name("test.csv")
    lines = [line.rpartition(",")[0] for line in test.read_text("utf-8").splitlines()]
    test.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return config


# --- everyone alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("common", [False, True])
def test_it_is_the_mean_of_the_clients_own_runs(tmp_path, common):
    config = config_of(tmp_path)
    if common:
        sites_apart(config)
    outcome = api.run(config, tmp_path / "out")
    result, each = outcome.result, []
    for name in NAMES:
        changes = {"method.name": "fedes", "partition.only": name, "budget.queries": 900 // 3}
        folder = tmp_path / name
        own = config_of(folder, **changes)
        if common:
            sites_apart(own)
        each.append(api.run(own, folder / "out").result)
    for which in ("baseline", "tuned"):
        for key in ("accuracy", "loss"):
            mean = np.mean([own[which][key] for own in each])
            assert result[which][key] == pytest.approx(mean, abs=1e-12)
    mean = np.mean([own["gain_interval"] for own in each], axis=0)
    assert result["gain_interval"] == pytest.approx(list(mean))
    for purse in ("train", "select", "evaluation"):
        assert result["queries"][purse] == sum(own["queries"][purse] for own in each)
    assert result["queries"]["train"] <= result["queries"]["budget"] == 900
    assert result["test_examples"] == 12
    assert (result["clients"], result["method"]) == (3, "local-only")
    assert set(result["bytes"].values()) == {0.0} and outcome.tuned is None
    scores = {name: own["tuned"]["accuracy"] for name, own in zip(NAMES, each, strict=True)}
    assert {name: after for name, (_, after) in outcome.by_client.items()} == scores
    assert result.keys() == each[0].keys()


def test_a_search_of_another_kind(tmp_path):
    """FedOne asks one client per round: alone, that one is always the same."""
    config = config_of(tmp_path, **{"method.base": "fedone", "prompt.kind": "tokens"})
    text = config.read_text("utf-8").replace("dim = 4\n", "")
    config.write_text(text, "utf-8")
    result = api.run(config, tmp_path / "out").result
    assert result["rounds"] == 4
    for name in NAMES:
        own = read(tmp_path / "out" / "clients" / name / "config.toml")
        assert (own.method.optimizer.name, own.method.clients) == ("policy_gradient", "all")
        assert own.rounds.clients_per_round == 1
        api.resume(tmp_path / "out" / "clients" / name)  # it is the very config it began with


def test_a_budget_too_small_for_one_client_says_what_all_need(tmp_path):
    """The client with the most examples decides, wherever it stands."""
    config = config_of(tmp_path, **{"budget.queries": 9})
    rows = kit.rows(8) + [(f"one more lovely thing {i}", "good", "birch") for i in range(8)]
    kit.write_table(config.with_name("train.csv"), rows)
    with pytest.raises(BudgetTooSmall, match=r"budget\.queries is 9,") as caught:
        api.run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    needs = caught.value.needs
    for queries in (needs - 3, needs - 1):
        with pytest.raises(BudgetTooSmall, match=f"costs {needs} queries"):
            api.run(config, tmp_path / "out", overrides=[f"budget.queries={queries}"])
    result = api.run(config, tmp_path / "out", overrides=[f"budget.queries={needs}"]).result
    assert 0 < result["queries"]["train"] <= needs
    assert kit.result(tmp_path / "out" / "clients" / "birch")["queries"]["train"] == needs // 3


def test_a_finished_one_is_resumed_from_its_clients(tmp_path):
    config = config_of(tmp_path)
    first = api.run(config, tmp_path / "out")
    before = kit.numbers(tmp_path / "out")
    code, shown, said = kit.spawn("resume", tmp_path / "out")
    assert code == 0, said
    assert kit.numbers(tmp_path / "out") == before
    assert "3 clients" in shown
    assert api.resume(tmp_path / "out").by_client == first.by_client


def test_killed_anywhere_it_goes_on(tmp_path):
    config, log = config_of(tmp_path), tmp_path / "asked"
    api.run(config, tmp_path / "whole")
    out, marks = tmp_path / "out", 0
    log.touch()
    # Early in the first client's run, at a later client's, and once more.
    for wanted in ("clients/ash/config.toml", "clients/birch/events.jsonl", "clients/cedar/state"):
        begun = (out / "config.toml").exists()
        args = ("resume", out) if begun else ("run", config, "--out", out)
        victim = subprocess.Popen(
            kit.command(*args),
            env=kit.environment(TOYBOX_SLEEP="0.02", TOYBOX_LOG=str(log)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        patience = time.monotonic() + 60
        while not (out / wanted).exists() and victim.poll() is None:
            assert time.monotonic() < patience
            time.sleep(0.001)
        victim.send_signal(signal.SIGKILL)
        marks += victim.wait() == -signal.SIGKILL
    assert marks == 3
    code, _, said = kit.spawn("resume", out, TOYBOX_LOG=str(log))
    assert code == 0, said
    ours, theirs = kit.numbers(out), kit.numbers(tmp_path / "whole")
    for numbers in (ours, theirs):  # a row of a call that was cut off may be asked for again
        assert numbers["queries"].pop("paid") + numbers["queries"].pop("cached") > 0
    assert ours == theirs
    ledger = sqlite3.connect(out / "ledger.sqlite")
    count, distinct = ledger.execute("SELECT count(*), count(DISTINCT key) FROM rows").fetchone()
    ledger.close()
    assert count == distinct > 0


@pytest.mark.parametrize("left", ["", "[data]\ntr"])
def test_a_client_that_was_killed_in_its_first_moment(tmp_path, left):
    """Between the marks of a run and its config, or in the middle of writing that."""
    config, out = config_of(tmp_path), tmp_path / "out"
    before = api.run(config, out).result
    own = out / "clients" / "birch"
    (out / "result.json").unlink()
    (own / "result.json").unlink()
    (own / "config.toml").write_text(left, "utf-8") if left else (own / "config.toml").unlink()
    after = api.resume(out).result
    assert after["tuned"] == before["tuned"]
    assert after["queries"]["train"] == before["queries"]["train"]


def test_overwrite_leaves_no_old_client(tmp_path):
    config, out = config_of(tmp_path), tmp_path / "out"
    api.run(config, out)
    with pytest.raises(RunDirError, match="--overwrite"):
        api.run(config, out)
    two = [row for row in kit.rows(8) if row[2] != "cedar"]
    kit.write_table(config.with_name("train.csv"), two)
    test = [row for row in kit.rows(4, "exam") if row[2] != "cedar"]
    kit.write_table(config.with_name("test.csv"), test)
    api.run(config, out, overwrite=True)
    assert sorted(entry.name for entry in (out / "clients").iterdir()) == ["ash", "birch"]
    api.run(config, out, overwrite=True, overrides=["method.name=fedes"])
    assert not (out / "clients").exists()


def test_names_from_the_data_lead_nowhere_else():
    names = ["ash", "a b", "../x", "..", ".", "a/b", "a%2Fb", "", "Straße", "a\0b"]
    folders = [alone.folder(Path("out"), name) for name in names if name]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == Path("out/clients") for folder in folders)
    assert all(folder.name not in (".", "..") and "\0" not in folder.name for folder in folders)
    assert folders[:2] == [Path("out/clients/ash"), Path("out/clients/a b")]


def test_clients_without_test_examples_do_not_count(tmp_path):
    def result(score, **more):
        scores = {"accuracy": score, "loss": score and 0.5}
        return {
            "metric": "accuracy",
            "rounds": 3,
            "baseline": scores,
            "tuned": scores,
            "gain_interval": [0.0, 0.1] if score else [0.0, 0.0],
            "queries": {"train": 5},
            "bytes": {"up": 7.0},
            "seconds": {"total": 0.25},
            "cost_usd": 0.5,
        } | more

    config = read(config_of(tmp_path))
    batch = Batch(("a", "b"), np.zeros(2, np.int64))
    results = {"a": result(0.5), "b": result(None), "c": result(0.75, rounds=4)}
    tests = SimpleNamespace(test={"a": batch, "c": batch.take([0, 1, 1])})
    mean = alone.mean_of(results, config, tests)
    assert (mean["tuned"]["accuracy"], mean["gain_interval"]) == (0.625, [0.0, 0.1])
    assert (mean["queries"]["train"], mean["seconds"]["total"]) == (15, 0.75)
    assert (mean["rounds"], mean["test_examples"], mean["bytes"]["up"]) == (4, 5, 0.0)
    assert mean["cost_usd"] == 1.5
    results["a"]["cost_usd"] = None  # no price known
    assert alone.mean_of(results, config, tests)["cost_usd"] is None
    none = alone.mean_of({"b": result(None)}, config, SimpleNamespace(test={}))
    assert none["tuned"] == {"accuracy": None, "loss": None}
    assert none["gain_interval"] == [0.0, 0.0]
    assert json.dumps(none)


def test_warnings_name_the_client(tmp_path):
    config = config_of(tmp_path)
    outcome = api.run(config, tmp_path / "out")
    found = [
        f"{name}: {event['sentence']}"
        for name in NAMES
        for event in kit.events(tmp_path / "out" / "clients" / name, "diagnosis")
    ]
    assert list(outcome.warnings) == found
    with (tmp_path / "out" / "clients" / "birch" / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": "diagnosis", "kind": "x", "sentence": "It went wrong."}))
        file.write("\n")
    assert "birch: It went wrong." in alone.warnings(tmp_path / "out", NAMES)


# --- everyone's data in one place ----------------------------------------------------------------


def test_one_client_holds_what_all_have(tmp_path):
    config = read(config_of(tmp_path))
    apart = examples(read(config_of(tmp_path, "fedes")))
    together = examples(read(config_of(tmp_path, "centralised")))
    assert together.clients == (EVERYONE,)
    for kind in ("train", "holdout"):
        whole = getattr(together, kind)[EVERYONE]
        every = getattr(apart, kind).values()
        pairs = [p for b in every for p in zip(b.inputs, b.targets.tolist(), strict=True)]
        assert list(zip(whole.inputs, whole.targets.tolist(), strict=True)) == pairs != []
    assert together.test.keys() == apart.test.keys()
    assert examples(config).train.keys() == apart.train.keys()


def test_only_keeps_one_client_and_what_it_is_tested_on(tmp_path):
    split = examples(read(config_of(tmp_path)))
    one = only(split, "birch")
    assert one.clients == ("birch",) and one.train.keys() == one.holdout.keys() == {"birch"}
    assert one.test.keys() == {"birch"} and one.test["birch"] is split.test["birch"]
    split = examples(read(sites_apart(config_of(tmp_path))))
    assert only(split, "birch").test.keys() == {TESTER}


@pytest.mark.parametrize("name", ["centralised", "local-only"])
def test_across_machines_it_is_refused(tmp_path, monkeypatch, name):
    class Elsewhere(Local):
        """Says that its clients live on other machines."""

    entry = SimpleNamespace(name="elsewhere", load=lambda: Elsewhere)
    here = registry.entry_points
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group: [entry] if group == "fedbbpt.engines" else here(group=group),
    )
    config = config_of(tmp_path, name, **{"engine.kind": "elsewhere"})
    with pytest.raises(Incompatible, match=r"is for simulation: .* engine\.kind is 'elsewhere'"):
        api.run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    api.run(config, tmp_path / "out", overrides=["method.name=fedes"])
