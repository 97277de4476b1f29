"""Whole runs of toy boxes: each failure brings its warning, a run that works brings none."""

import dataclasses
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt import api
from fedbbpt.boxes.function import Function
from fedbbpt.cli.show import tell
from fedbbpt.config import resolve
from fedbbpt.data.load import Table
from fedbbpt.errors import BoxError
from fedbbpt.random import word
from fedbbpt.sharing import share_out
from fedbbpt.testing.toys import WORDS, ToyEncoder, ToyVocabulary, toy_batch

CLASSES = ("bad", "good")
LABEL = {"template": "It was {label} ."}
TEXT = {"template": "It was {text} .", "side": "text"}


def load_kit():
    path = Path(__file__).parent / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load_kit()


def noise(prompts, examples):
    """Replies that depend on prompt and example in no way that can be learnt."""
    seeds = [[word(repr((p.keys, x))) for x in examples] for p in prompts]
    return np.log([[np.random.default_rng(s).dirichlet([2, 2]) for s in row] for row in seeds])


def simple(prompts, examples):
    """A soft prompt makes this box surer of what it sees, or leans it towards one class."""
    seen = [sum((w in WORDS[1]) - (w in WORDS[0]) for w in text.split()) for text in examples]
    moves = [p.soft[0].sum(axis=0, dtype=np.float64)[:2] for p in prompts]
    good = np.array([0.1 * np.array(seen) * (1 + sure) + lean for sure, lean in moves])
    return np.stack([-np.logaddexp(0, good), -np.logaddexp(0, -good)], axis=-1)


def simple_box():
    return Function(simple, "simple", vocabulary=ToyVocabulary())


def noisy_box():
    return Function(noise, "noise", vocabulary=ToyVocabulary())


def prepare(folder, clients=4, prompt=LABEL, **sections):
    """A config and its examples, 24 at each client."""
    small = {"slots": 3, "candidates": 20} if "fedone" in str(sections) else {"dim": 20}
    tree = {
        "data": {"train": ""},
        "prompt": {"labels": {"bad": "awful", "good": "great"}, **small, **prompt},
        "method": {"name": "fedes"},
        "rounds": {"max": 40},
        "budget": {"queries": 10**6},
    }
    for name, section in sections.items():
        tree[name] = tree.get(name, {}) | section
    config = resolve(tree, folder)
    batches = {f"c{k}": toy_batch(24, seed=k) for k in range(clients)}
    rows = [
        (text, CLASSES[target], name)
        for name, batch in batches.items()
        for text, target in zip(batch.inputs, batch.targets, strict=True)
    ]
    return config, share_out(config, Table(*map(tuple, zip(*rows, strict=True))), None)


def flipped(batch):
    return batch._replace(targets=1 - batch.targets)


def kinds(outcome):
    return [sentence.partition(":")[0] for sentence in outcome.warnings]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("method", "box"),
    [("fedes", "toy"), ("fedes", "simple"), ("fedavg-bbt", "simple"), ("fedone", "toy")],
)
def test_a_run_that_works_brings_no_warning(tmp_path, method, box, seed):
    rounds = {"max": 40, "steps": 2 if method == "fedavg-bbt" else 1}
    config, split = prepare(tmp_path, method={"name": method}, rounds=rounds, run={"seed": seed})
    box = ToyEncoder() if box == "toy" else simple_box()
    outcome = api.run(config, tmp_path / "out", box=box, split=split)
    assert outcome.warnings == () and kit.events(tmp_path / "out", "diagnosis") == []


@pytest.mark.parametrize(
    ("method", "prompt", "advice"),
    [
        ("fedes", LABEL, "raise method.optimizer.pairs and method.optimizer.sigma"),
        ("fedone", TEXT | {"slots": 10, "candidates": 90}, "raise method.optimizer.samples"),
    ],
)
def test_noise_is_no_progress(tmp_path, method, prompt, advice):
    config, split = prepare(tmp_path, 2, method={"name": method}, prompt=prompt, rounds={"max": 25})
    outcome = api.run(config, tmp_path / "out", box=noisy_box(), split=split)
    found = kit.events(tmp_path / "out", "diagnosis")
    assert [event["sentence"] for event in found] == list(outcome.warnings)
    first = found[0]
    assert first["kind"] == "no progress" and first["facts"]["rounds"] == 25
    assert abs(first["facts"]["signal"]) < 2 and advice in first["sentence"]


@pytest.mark.parametrize(("lr", "advice"), [(1e-4, "too short"), (20.0, "too long")])
def test_steps_of_a_wrong_length_are_told_from_noise(tmp_path, lr, advice):
    method = {"aggregator": {"name": "adam", "lr": lr}}
    config, split = prepare(tmp_path, method=method)
    outcome = api.run(config, tmp_path / "out", box=ToyEncoder(), split=split)
    assert kinds(outcome)[0] == "no progress" and advice in outcome.warnings[0]
    assert "method.aggregator.lr" in outcome.warnings[0]


def test_a_client_that_means_the_opposite_is_harmed(tmp_path):
    config, split = prepare(tmp_path)
    train, back = dict(split.train), dict(split.holdout)
    train["c3"], back["c3"] = flipped(train["c3"]), flipped(back["c3"])
    split = dataclasses.replace(split, train=train, holdout=back)
    outcome = api.run(config, tmp_path / "out", box=simple_box(), split=split)
    assert kinds(outcome) == ["harmful merge"]
    (event,) = kit.events(tmp_path / "out", "diagnosis")
    assert list(event["facts"]["clients"]) == ["c3"]


def test_held_back_examples_that_mean_the_opposite_show_over_fitting(tmp_path):
    config, split = prepare(tmp_path)
    back = {name: flipped(batch) for name, batch in split.holdout.items()}
    split = dataclasses.replace(split, holdout=back)
    outcome = api.run(config, tmp_path / "out", box=simple_box(), split=split)
    assert kinds(outcome) == ["over-fitting"]
    # The first snapshot is the starting prompt, which was therefore kept.
    assert kit.events(tmp_path / "out", "snapshot")[0]["chosen"]


def test_examples_of_one_class_make_a_constant_prompt(tmp_path):
    config, split = prepare(tmp_path)
    one = {name: b.take(np.flatnonzero(b.targets == 1)) for name, b in split.train.items()}
    split = dataclasses.replace(split, train=one)
    api.run(config, tmp_path / "out", box=simple_box(), split=split)
    (event,) = [e for e in kit.events(tmp_path / "out", "diagnosis") if "class" in e["kind"]]
    assert event["facts"]["class"] == "good" and event["facts"]["share"] > 0.95
    assert "the starting prompt does not" in event["sentence"]


def test_a_resumed_run_says_what_an_undisturbed_one_says(tmp_path):
    calls = {"left": 10**9}

    def dies(prompts, examples):
        calls["left"] -= 1
        if not calls["left"]:
            raise RuntimeError("the box broke")
        return noise(prompts, examples)

    def box():
        return Function(dies, "noise", vocabulary=ToyVocabulary())

    config, split = prepare(tmp_path, 2, rounds={"max": 25})
    whole = api.run(config, tmp_path / "whole", box=box(), split=split)
    before = 10**9 - calls["left"]
    for share in (0.3, 0.8):
        out = tmp_path / f"cut{share}"
        calls["left"] = int(share * before)
        with pytest.raises(BoxError):
            api.run(config, out, box=box(), split=split)
        calls["left"] = 10**9
        assert api.resume(out, box=box(), split=split).warnings == whole.warnings != ()
        for kind in ("diagnosis", "merge"):
            ours, theirs = kit.events(out, kind), kit.events(tmp_path / "whole", kind)
            for event in (*ours, *theirs):
                event.pop("seconds", None), event.pop("box_seconds", None)
            assert ours == theirs != []


def test_a_resume_of_a_finished_run_does_not_double_its_diagnosis(tmp_path):
    config, split = prepare(tmp_path, 2, rounds={"max": 25})
    api.run(config, tmp_path / "out", box=noisy_box(), split=split)
    found = kit.events(tmp_path / "out", "diagnosis")
    api.resume(tmp_path / "out", box=noisy_box(), split=split)
    assert kit.events(tmp_path / "out", "diagnosis") == found != []


def test_what_the_clients_report_to_the_checks_is_declared(tmp_path):
    config, split = prepare(tmp_path, 2, rounds={"max": 2})
    api.run(config, tmp_path / "out", box=ToyEncoder(), split=split)
    event = kit.events(tmp_path / "out", "select")[0]
    assert set(event) == {"event", "client", "examples", "losses", "squares", "answers", "labels"}
    assert {sum(row) for row in event["answers"]} == {event["examples"]} == {sum(event["labels"])}
    back = split.holdout[event["client"]]
    assert event["labels"] == np.bincount(back.targets, minlength=2).tolist()


def test_the_command_line_shows_each_warning_on_a_line(capsys, tmp_path):
    config, split = prepare(tmp_path, 2, rounds={"max": 2})
    outcome = api.run(config, tmp_path / "out", box=ToyEncoder(), split=split)
    said = ("no progress: [so it is] " + "very " * 60 + "long", "over-fitting: short")
    tell(dataclasses.replace(outcome, warnings=said))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("warning")] == [
        f"warning   {sentence}" for sentence in said
    ]
