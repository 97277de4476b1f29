"""Bad input: exit code 2, one sentence on stderr, nothing half-written. Issue 2 lists the cases."""

import re

import pytest

TEXT_SIDE = {"prompt.side": "text", "prompt.template": "It was {text} ."}


# --- the config ----------------------------------------------------------------------------------


CHANGES = {
    "unknown section": ({"budgets.queries": 5}, ("unknown key budgets", "'budget'")),
    "unknown top key": ({"tasks": "classify"}, ("unknown key tasks", "did you mean 'task'")),
    "unknown key": ({"rounds.step": 1}, ("unknown key rounds.step", "did you mean 'steps'")),
    "unknown method key": ({"method.wires": "state"}, ("method.wires", "did you mean 'wire'")),
    "prompt option": ({"prompt.dims": 5}, ("unknown key prompt.dims", "did you mean 'dim'")),
    "box option": ({"box.nam": "x"}, ("unknown key box.nam", "did you mean 'name'")),
    "box option lacking": ({"box": {"kind": "function"}}, ("box", "answer")),
    "optimizer option": (
        {"method.optimizer.pair": 3},
        ("unknown key method.optimizer.pair", "did you mean 'pairs'"),
    ),
    "aggregator option": ({"method.aggregator.rate": 3}, ("method.aggregator.rate", "lr")),
    "engine option": ({"engine.thread": 2}, ("engine.thread", "did you mean 'threads'")),
    "method": ({"method.name": "fedess"}, ("'fedess'", "did you mean 'fedes'")),
    "prompt": ({"prompt.kind": "sofd"}, ("'sofd'", "did you mean 'soft'")),
    "box": ({"box.kind": "functoin"}, ("'functoin'", "did you mean 'function'")),
    "optimizer": ({"method.optimizer.name": "cmae"}, ("'cmae'", "did you mean 'cmaes'")),
    "aggregator": ({"method.aggregator.name": "meen"}, ("'meen'", "did you mean 'mean'")),
    "task": ({"task": "clasify"}, ("'clasify'", "did you mean 'classify'")),
    "engine": ({"engine.kind": "locl"}, ("'locl'", "did you mean 'local'")),
    "partition": ({"partition.kind": "diriclet"}, ("'diriclet'", "did you mean 'dirichlet'")),
    "label word": ({"prompt.labels": {"god": "x"}}, ("'god'", "did you mean 'good'")),
    "no template": ({"prompt": {"dim": 4}}, ("lacks prompt.template",)),
    "no gap": ({"prompt.template": "It was so."}, ("It was so.", "{label}")),
    "holdout": ({"rounds.holdout": 1.5}, ("rounds.holdout", "1.5", "less than 1")),
    "dim": ({"prompt.dim": 0}, ("prompt.dim", "0", "at least 1")),
    "alpha": (
        {"partition.kind": "dirichlet", "partition.clients": 2, "partition.alpha": -1.0},
        ("alpha", "-1.0", "above 0"),
    ),
    "word for a number": ({"budget.queries": "many"}, ("budget.queries", "'many'", "integer")),
    "word for an option": ({"prompt.dim": "wide"}, ("prompt.dim", "'wide'", "integer")),
    "number for a table": ({"rounds": 3}, ("rounds", "3")),
    "number for a method": ({"method": 3}, ("method is 3", "[method]")),
    "number for a path": ({"data.train": 3}, ("data.train", "3", "string")),
    "negative seed": ({"run.seed": -1}, ("run.seed", "-1", "greater than or equal to 0")),
    "no rounds": ({"rounds.max": 0}, ("rounds.max", "0", "greater than or equal to 1")),
    "no threads": ({"engine.threads": 0}, ("engine.threads", "0", "at least 1")),
    "no variable": ({"data.test": "$NOT_SET/test.csv"}, ("data.test", "$NOT_SET", "not set")),
    "few examples": (
        {"partition.kind": "iid", "partition.clients": 25},
        ("24 training examples", "25 clients", "fewer clients"),
    ),
    "ledger is no ledger": ({"run.ledger": "train.csv"}, ("train.csv", "ledger")),
    "ledger nowhere": ({"run.ledger": "no/where/ledger.sqlite"}, ("ledger.sqlite", "ledger")),
    "answer nowhere": ({"box.answer": "nowhere:answer"}, ("nowhere:answer", "package.module:name")),
    # parts that do not fit
    "prompt the box cannot take": (
        {"box.accepts": ["text"]},
        ("soft prompts send soft", "function:toy accepts only text"),
    ),
    "side the box cannot take": (
        TEXT_SIDE | {"box.sides": ["label"]},
        ("prompt.side is 'text'", "only on: label"),
    ),
    "state that cannot be merged": (
        {"method.aggregator.name": "cma"},
        ("cma cannot merge the states of es", "cov"),
    ),
    "shared directions over steps": (
        {"method.directions": "shared", "rounds.steps": 2},
        ("rounds.steps is 2", "shared", "'distinct'"),
    ),
    "no vocabulary": ({"box.answer": "toybox:mute"}, ("vocabulary", "function:toy has none")),
    "no embeddings": ({"method.name": "linear-probe"}, ("needs embeddings", "gives only scores")),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_config_that_cannot_be_run(kit, refused, tmp_path, monkeypatch, case):
    changes, names = CHANGES[case]
    monkeypatch.delenv("NOT_SET", raising=False)
    config = kit.write_config(tmp_path, changes)
    refused("run", config, "--out", tmp_path / "out", names=names)


def test_a_missing_config_in_a_process_of_its_own(kit, tmp_path):
    missing, out = tmp_path / "missing.toml", tmp_path / "out"
    code, _, said = kit.spawn("run", missing, "--out", out)
    assert (code, said) == (2, f"fedbbpt: there is no config file {missing}\n")
    assert not out.exists()


@pytest.mark.parametrize("content", [b"[data\ntrain = 1", b'task = "caf\xe9"', b"\xff\xfe\0t"])
def test_a_config_that_is_not_toml(refused, tmp_path, content):
    config = tmp_path / "config.toml"
    config.write_bytes(content)
    refused("run", config, "--out", tmp_path / "out", names=[config])


@pytest.mark.parametrize("active", [2, 3])
def test_a_budget_too_small_for_one_step(kit, cli, refused, tmp_path, active):
    rounds = {"max": 4, "holdout": 0.25, "clients_per_round": active}
    config = kit.write_config(tmp_path, {"rounds": rounds, "budget.queries": 1})
    out, tight = tmp_path / "out", ("run", config, "--out", tmp_path / "out", "--set")
    said = refused(*tight, "budget.queries=1", names=["budget.queries is 1,", "one step"])
    cost = int(re.search(r"costs (\d+) queries", said)[1])
    refused(*tight, f"budget.queries={cost - 1}", names=[f"{cost - 1},", f"costs {cost} queries"])
    assert cli(*tight, f"budget.queries={cost}")[0] == 0
    assert kit.result(out)["queries"]["train"] == cost
    assert (kit.result(out)["rounds"], kit.result(out)["stopped"]) == (1, "budget")


SETS = {
    "rounds.max": ("section.key=value",),
    "=3": ("section.key=value",),
    "rounds..max=3": ("section.key=value",),
    "task.name=3": ("'task' is a value, not a table",),
    "rounds.maximum=3": ("unknown key rounds.maximum", "did you mean 'max'"),
    "rounds.max=three": ("rounds.max", "'three'"),
}


@pytest.mark.parametrize("item", SETS)
def test_a_malformed_override(kit, refused, tmp_path, item):
    config = kit.write_config(tmp_path, {"task": "classify"})
    refused("run", config, "--set", item, "--out", tmp_path / "out", names=SETS[item])


# --- the data ------------------------------------------------------------------------------------


def table(*lines, header="text,label,site"):
    return "\n".join([header, *lines]).encode()


GOOD = ("a nice thing,good,ash", "a bad thing,bad,ash", "a fine thing,good,birch", "ugh,bad,birch")
FILES = {
    "empty": (b"", ("is empty",)),
    "no rows": (table(), ("no examples",)),
    "no text column": (table(*GOOD, header="txt,label,site"), ("'text'", "did you mean 'txt'")),
    "no label column": (table(*GOOD, header="text,lable,site"), ("'label'", "mean 'lable'")),
    "one class": (table("a,good,ash", "b,good,birch"), ("'good'", "two or more")),
    "not UTF-8": (table(*GOOD) + "\ncafé,good,ash".encode("latin-1"), ("line 6", "UTF-8")),
    "empty text": (table(*GOOD, " ,good,ash"), ("line 6", "'text' is empty")),
    "no label": (table(*GOOD, "x,,ash"), ("line 6", "'label' is empty")),
    "no site": (table(*GOOD, "x,good,"), ("line 6", "'site' is empty")),
    "no site column": (table("a,good", "b,bad", header="text,label"), ("no site column", "iid")),
    "too many fields": (table(*GOOD, "a,b,good,ash"), ("line 6", "quotes")),
}


@pytest.mark.parametrize("case", FILES)
def test_training_data_that_cannot_be_used(kit, refused, tmp_path, case):
    content, names = FILES[case]
    config = kit.write_config(tmp_path)
    (tmp_path / "train.csv").write_bytes(content)
    refused("run", config, "--out", tmp_path / "out", names=names)


@pytest.mark.parametrize("which", ["train.csv", "test.csv"])
def test_a_data_file_that_cannot_be_read(kit, refused, tmp_path, which):
    config, path = kit.write_config(tmp_path), tmp_path / which
    path.unlink()
    refused("run", config, "--out", tmp_path / "out", names=[path, "does not exist"])
    path.symlink_to(path)  # file modes do not stop root, a link to itself does
    refused("run", config, "--out", tmp_path / "out", names=[path, "cannot be read"])


def test_a_test_label_that_training_has_not_seen(kit, refused, tmp_path):
    config = kit.write_config(tmp_path)
    kit.write_table(tmp_path / "test.csv", [("a", "good", "ash"), ("b", "goood", "ash")])
    said = refused("run", config, "--out", tmp_path / "out", names=["'goood'", "mean 'good'"])
    assert "test example 2" in said
