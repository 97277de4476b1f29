"""Trackers hear a run from its first round to its result, and can do it no harm."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import fedbbpt
from fedbbpt import api, following
from fedbbpt.config import resolve
from fedbbpt.errors import ConfigError, MissingExtra, UnknownPart
from fedbbpt.rundir import reopen
from fedbbpt.sharing import share_out, tables
from fedbbpt.tracking import Tracker, flat, numbers
from fedbbpt.trees import locate

CLIENTS = {
    name: [(f"{name} says {i}: {word}", word) for i, word in enumerate(["good", "bad"] * 4)]
    for name in ("ash", "birch")
}


class Deaf(Tracker):
    """Notes what it hears; fails in one of its methods."""

    def __init__(self, heard, fails=""):
        self.heard, self.fails = heard, fails

    def _note(self, what, *told):
        self.heard.append((what, *told))
        if what == self.fails:
            raise RuntimeError("the line\n  is dead")

    def begin(self, run, folder, config):
        self._note("begin", run, folder, config)

    def log(self, step, facts):
        self._note("log", step, dict(facts))

    def end(self, result, files):
        self._note("end", dict(result), [file.name for file in files])


@pytest.fixture
def trackers(monkeypatch):
    """Trackers by name instead of the plug-ins."""
    made = {}
    stand_in = SimpleNamespace(
        names=lambda group: sorted(made), make=lambda group, name, *_: made[name]
    )
    monkeypatch.setattr(following, "registry", stand_in)
    return made


def tune(box, out, names, **more):
    return fedbbpt.tune(
        CLIENTS,
        "It was {label} .",
        out,
        test=CLIENTS["ash"],
        box=box,
        queries=2000,
        prompt={"dim": 4},
        rounds={"max": 3},
        run={"trackers": list(names)},
        **more,
    )


@pytest.fixture
def box():
    from fedbbpt.testing.toys import toy_box

    return toy_box()


def test_a_tracker_hears_the_whole_run(box, trackers, tmp_path):
    heard = []
    trackers["deaf"] = Deaf(heard)
    outcome = tune(box, tmp_path / "out", ["deaf"])
    assert [entry[0] for entry in heard] == ["begin", "log", "log", "log", "end"]
    _, run, folder, config = heard[0]
    assert run == json.loads((tmp_path / "out" / "state" / "run.json").read_text())["run"]
    assert folder == tmp_path / "out" and config["prompt"]["dim"] == 4
    assert [entry[1] for entry in heard[1:4]] == [0, 1, 2]
    spent = [entry[2]["queries"] for entry in heard[1:4]]
    assert spent == sorted(spent) and spent[-1] == outcome.result["queries"]["train"]
    assert heard[-1] == ("end", outcome.result, ["result.json", "report.html", "prompt"])
    assert outcome.warnings == ()


@pytest.mark.parametrize("fails", ["begin", "log", "end"])
def test_one_that_fails_is_left_out_with_one_warning(box, trackers, tmp_path, fails):
    one, other = [], []
    trackers |= {"broken": Deaf(one, fails), "whole": Deaf(other)}
    outcome = tune(box, tmp_path / "out", ["broken", "whole"])
    plain = tune(box, tmp_path / "plain", [])
    assert [entry[0] for entry in one].count(fails) == 1 and one[-1][0] == fails
    assert [entry[0] for entry in other] == ["begin", "log", "log", "log", "end"]
    assert outcome.warnings == (
        "the tracker broken failed and is left out (RuntimeError: the line is dead)",
    )
    for result in (outcome.result, plain.result):
        result.pop("seconds")
    assert outcome.result == plain.result


def test_a_run_that_breaks_off_ends_without_a_result_and_goes_on_as_itself(box, trackers, tmp_path):
    heard = []
    trackers["deaf"] = Deaf(heard)

    def stop(event, facts):
        if event == "round" and facts["round"] == 1:
            raise KeyboardInterrupt

    tree = {"data": {"train": ""}, "prompt": {"template": "It was {label} .", "dim": 4}}
    tree |= {"rounds": {"max": 3}, "run": {"trackers": ["deaf"]}}
    config = resolve(tree, tmp_path)
    split = share_out(config, *tables(CLIENTS, (), config.data, config.task))
    with pytest.raises(KeyboardInterrupt):
        api.run(config, tmp_path / "out", box=box, split=split, progress=stop)
    assert heard[-1] == ("end", {}, [])
    first = heard[0][1]
    heard.clear()
    api.resume(tmp_path / "out", box=box, split=split)
    assert heard[0][:2] == ("begin", first) and heard[-1][1]["rounds"] == 3


def test_who_is_told_may_change_while_a_run_is_going_on(box, tmp_path):
    tune(box, tmp_path / "out", [])
    config = api.read(tmp_path / "out" / "config.toml")
    told = config.model_copy(
        update={
            "run": config.run.model_copy(update={"trackers": ["wandb"]}),
            "trackers": type(config.trackers)(wandb={"project": "other"}),
        }
    )
    assert reopen(tmp_path / "out", told).path == tmp_path / "out"


def test_a_folder_is_relative_to_the_config_and_an_address_is_not():
    tree = {"trackers": {"mlflow": {"uri": "ml"}, "wandb": {"folder": "/w", "project": "p"}}}
    locate(tree, Path("/home/me"))
    assert tree["trackers"] == {
        "mlflow": {"uri": "/home/me/ml"},
        "wandb": {"folder": "/w", "project": "p"},
    }
    far = {"trackers": {"mlflow": {"uri": "https://example.org"}}}
    locate(far, Path("/home/me"))
    assert far["trackers"]["mlflow"]["uri"] == "https://example.org"


def test_what_cannot_be_tracked_is_refused_before_anything_is_there(box, trackers, tmp_path):
    trackers["deaf"] = Deaf([])
    with pytest.raises(UnknownPart, match="no tracker 'deff'; did you mean 'deaf'"):
        tune(box, tmp_path / "out", [], trackers={"deff": {}})

    def lacking():
        raise MissingExtra("mlflow", "mlflow")

    trackers["deaf"].ready = lacking
    with pytest.raises(MissingExtra, match="mlflow is not installed"):
        tune(box, tmp_path / "out", ["deaf"])
    assert not (tmp_path / "out").exists()


def test_options_are_checked_like_those_of_every_plug_in(box, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown key trackers.mlflow.url; did you mean 'uri'"):
        tune(box, tmp_path / "out", ["mlflow"], trackers={"mlflow": {"url": "x"}})


def test_a_result_as_numbers():
    result = {
        "schema": 1,
        "method": "fedes",
        "tuned": {"accuracy": 0.5, "loss": None},
        "gain_interval": [-0.1, 0.2],
        "rounds": 3,
        "cost_usd": None,
    }
    wanted = {"tuned.accuracy": 0.5, "gain_interval.low": -0.1, "gain_interval.high": 0.2}
    assert numbers(result) == {**wanted, "rounds": 3.0}
    assert flat({"a": {"b": {"c": 1}}, "d": [1]}) == {"a.b.c": 1, "d": [1]}
