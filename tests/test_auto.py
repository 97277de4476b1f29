"""What is chosen for a config that names no method, and that what it does say stands."""

import json

import pytest

import fedbbpt
from fedbbpt.advice import recommend
from fedbbpt.auto import settle
from fedbbpt.config import read, resolve
from fedbbpt.errors import ConfigError
from fedbbpt.sharing import share_out, tables
from fedbbpt.sites.agreed import federated
from fedbbpt.testing.toys import ToyEncoder

CLASSES = ("bad", "good", "odd")


class Box(ToyEncoder):
    """A box of which only this is known."""

    def __init__(self, **known):
        super().__init__()
        for name, value in known.items():
            setattr(self, name, frozenset(value) if isinstance(value, set) else value)


def settled(box, tree=None, per_client=8, queries=4000):
    own = {"data": {"train": ""}, "prompt": {"template": "It was {label}."}, **(tree or {})}
    config = resolve({"budget": {"queries": queries}, **own}, ".")
    pairs = [(f"note {i}", CLASSES[i % 3]) for i in range(per_client)]
    given = tables({"ash": pairs, "birch": pairs}, [], config.data, config.task)
    return settle(config, box, share_out(config, *given))


def test_a_dual_encoder_gets_a_linear_model_of_its_scores():
    chosen = settled(ToyEncoder())
    assert chosen.config.method.name == "fedlinear"
    assert (chosen.config.prompt.kind, chosen.config.prompt.side) == ("soft", "label")
    assert chosen.config.rounds.max == 16 and len(chosen.why) >= 3
    assert any("linear model" in reason for reason in chosen.why)


@pytest.mark.parametrize(
    ("known", "tree", "method", "prompt", "side"),
    [
        ({"accepts": {"text"}, "sides": {"label"}}, {}, "fedwords", "tokens", "label"),
        ({"sides": {"text"}}, {"prompt": {"template": "{text} _"}}, "fedwords", "tokens", "text"),
        ({}, {"prompt": {"template": "{text} Is"}}, "fedwords", "tokens", "text"),
        ({"worded": True}, {}, "fedwords", "tokens", "label"),
        ({}, {"task": "generate", "prompt": {}}, "fedinstruct", "instruction", "text"),
    ],
    ids=["no embeddings", "masked", "a template for texts", "labels alone", "words"],
)  # fmt: skip
def test_what_else_a_box_can_do(known, tree, method, prompt, side):
    config = settled(Box(**known), tree).config
    assert (config.method.name, config.prompt.kind, config.prompt.side) == (method, prompt, side)
    assert config.method.loss == (
        "error" if known.get("worded") or "task" in tree else "cross_entropy"
    )


def test_what_the_config_says_stands():
    tree = {
        "rounds": {"max": 7},
        "method": {"snapshots": 3, "optimizer": {"name": "linear", "sigma": 0.1}},
    }
    config = settled(ToyEncoder(), tree).config
    assert config.rounds.max == 7 and config.method.snapshots == 3
    assert config.method.optimizer.options["sigma"] == 0.1


@pytest.mark.parametrize(
    ("prompt", "method"),
    [
        ({"kind": "tokens"}, "fedwords"),
        ({"slots": 3}, "fedwords"),
        ({"dim": 9}, "fedlinear"),
        ({"dim": 9, "template": "{text} Is"}, "fedes"),
    ],
)
def test_a_prompt_that_is_asked_for_chooses_its_method(prompt, method):
    chosen = settled(ToyEncoder(), {"prompt": {"template": "It was {label}.", **prompt}})
    assert chosen.config.method.name == method
    assert chosen.why[0].startswith(method)


@pytest.mark.parametrize(("queries", "rounds"), [(16000, 16), (115, 6), (40, 4)])
def test_rounds_follow_the_budget(queries, rounds):
    chosen = settled(ToyEncoder(), queries=queries)
    assert chosen.config.rounds.max == rounds
    assert any(str(queries) in reason for reason in chosen.why)


def test_without_a_budget_there_is_no_search():
    chosen = settled(ToyEncoder(), queries=14)
    assert chosen.config.method.name == "manual" and "too few" in chosen.why[0]


@pytest.mark.parametrize(("queries", "width"), [(100_000, 20), (1_000, 15), (10, 4)])
def test_words_are_as_many_as_the_budget_pays_for(queries, width):
    config = settled(ToyEncoder(), {"prompt": {"template": "{text} It is"}}, queries=queries).config
    assert config.method.optimizer.options["width"] == width


def test_a_method_by_its_name_alone(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('method = "fedes"\n[data]\ntrain = "x.csv"\n[prompt]\ntemplate = "{label}"\n')
    config = read(path)
    assert config.method.name == "fedes" and settle(config).config is config


def test_over_many_machines_the_method_is_written_down():
    config = resolve({"data": {"train": ""}, "prompt": {"template": "{label}"}}, ".")
    with pytest.raises(ConfigError, match="names no method"):
        federated(config)


def test_a_run_says_what_it_chose_and_keeps_it(tmp_path):
    rows = [(f"note {i}", CLASSES[i % 3]) for i in range(9)]
    out = fedbbpt.tune(
        {"ash": rows, "birch": rows},
        "It was {label}.",
        tmp_path / "run",
        box=ToyEncoder(),
        queries=300,
    )
    assert out.result["method"] == "fedlinear"
    assert 'name = "fedlinear"' in (out.path / "config.toml").read_text("utf-8")
    told = [json.loads(x) for x in (out.path / "events.jsonl").read_text("utf-8").splitlines()]
    (chosen,) = [event for event in told if event["event"] == "chosen"]
    assert chosen["method"] == "fedlinear" and any("linear model" in why for why in chosen["why"])


def test_every_reason_is_about_what_is_recommended():
    for known in ({}, {"accepts": {"text"}}, {"accepts": {"image"}, "sides": {"image"}}):
        advice = recommend(Box(**known), True)
        assert advice.reasons[0].startswith(advice.method)
