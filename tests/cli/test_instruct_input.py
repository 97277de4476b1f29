"""Bad input where an instruction is tuned: exit code 2, one sentence, and no example quoted."""

import json
import sys
from types import ModuleType

import pytest
import tomli_w

OUTPUTS = {"apple": "apples", "pear": "pears", "fig": "figs", "plum": "plums"}


def answer(prompts, examples):
    """Follows nothing and writes one instruction."""
    return [[f"Write the plural, {len(x)} letters." for x in examples] for _ in prompts]


def score(said, references):
    raise ValueError(f"cannot read {said} beside {references}")


def high(said, references):
    return 2.0


@pytest.fixture
def config(tmp_path, monkeypatch):
    """(**tables) -> a config that a function answers; keys are dotted with two underscores."""
    module = ModuleType("instructed_here")
    for function in (answer, score, high):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "instructed_here", module)

    def write(cards=None, **changes):
        cards = [{"input": k, "output": v} for k, v in OUTPUTS.items()] if cards is None else cards
        (tmp_path / "cards.json").write_text(json.dumps(cards))
        tree = {
            "task": "generate",
            "data": {"train": "cards.json", "test": "cards.json"},
            "partition": {"kind": "iid", "clients": 2},
            "box": {"kind": "function", "answer": "instructed_here:answer", "gives": ["text"]},
            "prompt": {"instruction": "Say more.", "encoder": "ngrams"},
            "method": {"name": "fedinstruct"},
            "budget": {"queries": 60},
        }
        for path, value in changes.items():
            *names, key = path.split("__")
            place = tree
            for name in names:
                place = place.setdefault(name, {})
            place[key] = value
        path = tmp_path / "config.toml"
        path.write_text(tomli_w.dumps(tree))
        return path

    return write


def test_it_runs_when_nothing_is_wrong(cli, config, tmp_path):
    code, shown, said = cli("run", config(), "--out", tmp_path / "out")
    assert (code, said) == (0, "") and "yours     Say more." in shown


CHANGES = {
    "no instruction": (
        {"prompt": {"encoder": "ngrams"}},
        ["prompt.instruction is empty; write the instruction that you would give today"],
    ),
    "a gap in it": ({"prompt__instruction": "Say {text}."}, ["must hold none of {text}"]),
    "no place for it": ({"prompt__template": "Do: {text}"}, ["must hold {instruction} once"]),
    "a writer that is none": ({"prompt__writer": "pond"}, ["'pond'; known: pool, soft"]),
    "nothing to be proposed": ({"prompt__proposals": 0}, ["prompt.proposals is 0"]),
    "a writer of soft prompts": (
        {"prompt__writer": "soft"},
        ["prompt.writer is 'soft'", "accepts only", "[writer]"],
    ),
    "scores alone": ({"box__gives": ["scores"]}, ["gives scores; this task needs text"]),
    "a budget too small": ({"budget__queries": 3}, ["budget.queries is 3"]),
    "another metric": ({"metric": "exakt"}, ["exakt"]),
    "a metric that is nowhere": ({"metric": "nowhere:at_all"}, ["'nowhere:at_all'"]),
    "classes to share out by": ({"partition__kind": "dirichlet"}, ["classes", "'iid'"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_is_refused(refused, config, tmp_path, name):
    changes, names = CHANGES[name]
    refused("run", config(**changes), "--out", tmp_path / "out", names=names)


def test_a_writer_for_another_kind_of_prompt_is_refused(refused, kit, tmp_path):
    path = kit.write_config(tmp_path, {"writer": {"kind": "function", "answer": "toybox:answer"}})
    names = ["the table [writer] is for prompt.kind = 'instruction'"]
    refused("run", path, "--out", tmp_path / "out", names=names)


@pytest.mark.parametrize("empty", ["", "  ", [], [""], None])
def test_an_example_without_an_answer_is_named_by_its_row(refused, config, tmp_path, empty):
    cards = [{"input": "apple", "output": "apples"}, {"input": "secret", "output": empty}]
    said = refused("run", config(cards), "--out", tmp_path / "out", names=["cards.json", "2"])
    assert "answer" in said and "secret" not in said


@pytest.mark.parametrize(
    ("metric", "names"),
    [
        (
            "score",
            [
                "raised ValueError in ",
                "test_instruct_input.py, line ",
                "on training example 1 of client-00",
            ],
        ),
        ("high", ["gave 2 for training example 1 of client-00; it must be from 0 to 1"]),
    ],
)
def test_a_metric_that_fails_is_named_with_the_example_and_nothing_is_quoted(
    cli, config, tmp_path, metric, names
):
    path = config(metric=f"instructed_here:{metric}")
    code, shown, said = cli("run", path, "--out", tmp_path / "out")
    assert code == 2 and said.startswith("fedbbpt: ") and said.count("\n") == 1
    for part in (f"metric 'instructed_here:{metric}'", *names):
        assert part in said
    told = shown + said
    assert "Traceback" not in told and not any(word in told for word in OUTPUTS)
    # Mended, it goes on.
    setattr(sys.modules["instructed_here"], metric, lambda said, references: 0.5)
    assert cli("resume", tmp_path / "out")[0] == 0
