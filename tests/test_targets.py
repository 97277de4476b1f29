"""Answers in words are read, shared out and scored as the config says."""

import numpy as np
import pytest

from fedbbpt.config import read, resolve
from fedbbpt.errors import ConfigError, DataError
from fedbbpt.making import task as _task
from fedbbpt.sharing import EVERYONE, TESTER, examples
from fedbbpt.testing.toys import ToyEncoder

ROWS = [("one", "1|uno"), ("two", "2"), ("three", "3|tres|trois"), ("four", "4"), ("five", "5")]


def config(folder, rows=ROWS, sites="nnsss", **sections):
    lines = [f"{text},{answer},{site}" for (text, answer), site in zip(rows, sites, strict=True)]
    (folder / "a.csv").write_text("\n".join(["input,output,site", *lines]))
    tree = {
        "task": "generate",
        "data": {"train": "a.csv", "separator": "|"},
        "prompt": {"template": "{text}"},
        "rounds": {"holdout": 0.4},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section} if isinstance(section, dict) else section
    return resolve(tree, folder)


def held(batches):
    pairs = [pair for b in batches.values() for pair in zip(b.inputs, b.targets, strict=True)]
    return dict(pairs)


def test_every_example_goes_to_one_client_with_its_references(tmp_path):
    expected = {text: tuple(answer.split("|")) for text, answer in ROWS}
    for partition in ({"kind": "column"}, {"kind": "iid", "clients": 2}):
        split = examples(config(tmp_path, partition=partition))
        assert held(split.train) | held(split.holdout) == expected
        assert split.classes == () and len(split.clients) == 2 and split.notes == ()
        assert sum(b.size for b in split.holdout.values()) == 2
    pooled = examples(config(tmp_path, method={"clients": "pooled"}))
    assert held(pooled.train) == held(examples(config(tmp_path)).train)
    assert pooled.clients == (EVERYONE,)


def test_shots_are_examples_in_all_and_a_limited_test_keeps_its_references(tmp_path):
    data = {"test": "a.csv", "test_limit": 2}
    wanted = config(tmp_path, partition={"kind": "iid", "clients": 1, "shots": 3}, data=data)
    split = examples(wanted)
    assert sum(b.size for part in (split.train, split.holdout) for b in part.values()) == 3
    assert split.test.keys() <= {TESTER} and split.test[TESTER].size == 2
    assert held(split.test).items() <= {t: tuple(a.split("|")) for t, a in ROWS}.items()


def test_a_config_is_read_back_as_it_was(tmp_path):
    first = config(tmp_path)
    (tmp_path / "config.toml").write_text(first.toml())
    again = read(tmp_path / "config.toml")
    assert again == first and held(examples(again).train) == held(examples(first).train)


def test_a_client_with_a_single_example_is_named(tmp_path):
    split = examples(config(tmp_path, sites="nmsss"))
    assert split.notes == (
        "2 of 3 clients hold a single example, of which nothing can be held back: m, n",
    )
    assert split.train["m"].size == 1 and split.holdout["m"].size == 0


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"partition": {"kind": "dirichlet"}}, "'dirichlet', which shares out by class, and"),
        ({"partition": {"kind": "pathological"}}, "take 'iid' or 'column'"),
        ({"data": {"range": [0, 1]}}, "data.range is for labels that are numbers, not for 'gen"),
        ({"data": {"names": {"1": "one"}}}, "data.image and data.names are not for answers"),
        ({"task": "classify"}, "data.separator is for answers in words, not for 'classify'"),
    ],
)
def test_what_does_not_suit_words_is_refused(tmp_path, sections, said):
    with pytest.raises(ConfigError, match=said):
        examples(config(tmp_path, **sections))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"sites": "nnss "}, "'site' is empty"),
        ({"partition": {"kind": "iid", "clients": 6}}, "5 training examples cannot be divided"),
        ({"rows": [("a", "|")] * 5}, "line 2: 'output' holds no answer"),
        ({"rows": [("a", "b||c")] * 5}, "line 2: 'output' holds an empty answer among others"),
    ],
)
def test_clients_and_answers_that_are_empty_are_refused(tmp_path, sections, said):
    with pytest.raises(DataError, match=said):
        examples(config(tmp_path, **sections))


def test_the_task_scores_as_the_config_says(tmp_path):
    wanted = config(tmp_path, metric="contains")
    split = examples(wanted)
    assert _task(wanted, split, ToyEncoder()).metric.name == "contains"
    with pytest.raises(ConfigError, match=r"data\.positive is 'one'; known: none"):
        _task(config(tmp_path, data={"positive": "one"}), split, ToyEncoder())
    with pytest.raises(ConfigError, match="loss is 'hinge'"):
        _task(config(tmp_path, method={"loss": "hinge"}), split, ToyEncoder())
    batch = split.train["s"]
    assert batch.targets.dtype == object and np.shape(batch.targets) == (batch.size,)
