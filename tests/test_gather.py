"""Candidates from a corpus or from the clients: what is found, and what leaves for it."""

import csv
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fedbbpt import api
from fedbbpt.boxes.function import Function
from fedbbpt.config import resolve
from fedbbpt.engines import local
from fedbbpt.errors import BoxError, ConfigError, DataError, RunDirError
from fedbbpt.gather import VOCABULARY, gather
from fedbbpt.testing.toys import ToyEncoder, toy_batch, toy_box
from fedbbpt.types import Batch

PRIVATE = {
    "a": ("The royal mail came.", "Royal mail!"),
    "b": ("royal mail was late",),
    "c": ("a secret of Smith", "Smith!", "late, late"),
}


def config(engine=None, **prompt):
    prompt = {"kind": "tokens", "template": "It was {label}.", **prompt}
    tree = {"data": {"train": ""}, "prompt": prompt, "engine": engine or {}}
    return resolve(tree, Path("/nowhere"))


def batches(texts):
    return {name: Batch(own, np.zeros(len(own), np.int64)) for name, own in texts.items()}


def ask(engine=None, texts=PRIVATE, **prompt):
    return gather(config(engine, vocabulary="clients", **prompt), batches(texts))


@pytest.fixture
def letters(monkeypatch):
    """Every update that leaves a client."""
    seen, work = [], local.work

    def spy(*args):
        seen.append(work(*args))
        return seen[-1]

    monkeypatch.setattr(local, "work", spy)
    return seen


def test_what_enough_clients_hold_is_found():
    """Of 17 words; royal mail has a PMI of log(17 * 3 / (3 * 3)) = 1.7. Only c holds smith."""
    found = ask()
    assert found.words == ("late", "mail", "royal", "royal mail")
    assert ask(min_clients=3).words == ()
    assert set(ask(min_clients=1).words) == {*found.words, "smith"}
    assert found.reports == (
        {"client": "a", "hashed": 10, "sent": 3, "bytes_up": found.reports[0]["bytes_up"]},
        {"client": "b", "hashed": 10, "sent": 4, "bytes_up": found.reports[1]["bytes_up"]},
        {"client": "c", "hashed": 11, "sent": 1, "bytes_up": found.reports[2]["bytes_up"]},
    )
    assert all(report["bytes_up"] > 24 * report["hashed"] for report in found.reports)


def test_nothing_else_leaves(letters):
    ask()
    assert len(letters) == 6
    for update in letters:
        assert set(update.arrays) <= set(VOCABULARY.sends(None))
        assert update.queries == 0
    said = [update.arrays["ngrams"].tobytes().decode().split("\n") for update in letters[3:]]
    assert [sorted(grams) for grams in said] == [
        ["mail", "royal", "royal mail"],
        ["late", "mail", "royal", "royal mail"],
        ["late"],
    ]
    raw = b"".join(array.tobytes() for update in letters[:3] for array in update.arrays.values())
    for word in (b"royal", b"smith", b"secret"):
        assert word not in raw.lower()


def test_where_nothing_is_common_no_text_is_asked_for(letters):
    assert ask(texts={"a": ("one two",), "b": ("three",)}).words == ()
    assert len(letters) == 2 and not any("ngrams" in update.arrays for update in letters)


def test_threads_find_the_same():
    assert ask({"threads": 3}) == ask()


def test_a_client_without_a_word_is_heard_too():
    assert ask(texts=PRIVATE | {"d": ("1 2 3",), "e": ()}).words == ask().words


# --- a corpus, and nothing -----------------------------------------------------------------------


def test_a_public_corpus(tmp_path):
    (tmp_path / "lines.txt").write_text("new york is big\nnew york\nnew york\nso it is\nx y z\n")
    (tmp_path / "table.csv").write_text("text,label\nnew york,a\nnew york,b\n")
    # new york: log(14 * 3 / (3 * 3)) = 1.5 in the lines, log(4 * 2 / (2 * 2)) = .7 in the table
    for name, want in (
        ("lines.txt", ("new", "new york", "york", "is")),
        ("table.csv", ("new", "york")),
    ):
        found = gather(config(vocabulary="public", public=str(tmp_path / name)), {})
        assert found.words == want
        assert found.reports == () and found.phases == {}


@pytest.mark.parametrize("prompt", [{}, {"vocabulary": "near"}, {"words": ["a"]}])
def test_where_the_prompt_looks_for_its_own(prompt, letters):
    assert gather(config(**prompt), batches(PRIVATE)).words is None
    assert not letters


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"vocabulary": "clients", "min_clients": 4}, "is 4, but there are only 3 clients"),
        ({"vocabulary": "public"}, "'public' and a corpus need each other"),
        ({"public": "x.txt"}, "'auto' and prompt.public '.*x.txt'; 'public' and a corpus need"),
        ({"vocabulary": "file"}, "'file' needs prompt.words"),
        ({"vocabulary": "near", "words": ["a"]}, "prompt.words has no use where .* is 'near'"),
        ({"vocabulary": "clients", "words": ["a"]}, "prompt.words has no use"),
    ],
)
def test_refused(prompt, message, tmp_path):
    given = {"data": {"train": ""}, "prompt": {"template": "{label}", "kind": "tokens", **prompt}}
    with pytest.raises(ConfigError, match=message):
        gather(resolve(given, tmp_path), batches(PRIVATE))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"vocabulary": "secret"}, "prompt.vocabulary is 'secret': .*'near'"),
        ({"min_clients": 0}, "prompt.min_clients is 0: .* 1"),
    ],
)
def test_refused_by_the_config(prompt, message):
    with pytest.raises(ConfigError, match=message):
        config(**prompt)


def test_a_missing_corpus(tmp_path):
    with pytest.raises(DataError, match=r"missing\.txt' cannot be read"):
        gather(config(vocabulary="public", public=str(tmp_path / "missing.txt")), {})


# --- whole runs ----------------------------------------------------------------------------------


def text_box(queries=10**6):
    """A box that takes text alone and has no vocabulary; it fails after some queries."""
    encoder, left = ToyEncoder(), [queries]

    def answer(prompts, examples):
        left[0] -= len(prompts) * len(examples)
        if left[0] < 0:
            raise BoxError("the box has had enough")
        return encoder(prompts, examples).scores

    return Function(answer, "text", accepts=("text",))


@pytest.fixture
def tree(tmp_path):
    batch = toy_batch(60)
    with (tmp_path / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for text, target in zip(batch.inputs, batch.targets, strict=True):
            writer.writerow((text, ("bad", "good")[target]))
    return {
        "data": {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "train.csv")},
        "partition": {"kind": "iid", "clients": 3},
        "prompt": {
            "kind": "tokens",
            "side": "text",
            "template": "{text} It was",
            "vocabulary": "clients",
            "min_clients": 3,
            "place": "after",
            "slots": 2,
            "candidates": 10,
        },
        "method": {"name": "fedone", "optimizer": {"name": "policy_gradient", "samples": 4}},
        "rounds": {"max": 4, "clients_per_round": 3},
        "budget": {"queries": 2000},
    }


def events(out, kind):
    lines = (out / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_a_box_that_takes_text_alone_is_tuned_on_words_of_the_clients(tree, tmp_path):
    out = tmp_path / "whole"
    outcome = api.run(resolve(tree, tmp_path), out, box=text_box())
    told = events(out, "vocabulary")
    assert [event["client"] for event in told] == sorted(
        {e["client"] for e in events(out, "client")}
    )
    assert all(event["hashed"] > event["sent"] > 10 for event in told)
    first = (out / "events.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["event"] == "vocabulary"
    meta = json.loads((out / "prompt" / "prompt.json").read_text())
    (text,) = meta["text"]
    assert meta["kind"] == "text" and meta["template"] == f"{{text}} {text} It was".replace(
        "  ", " "
    )
    assert outcome.result["rounds"] == 4
    threaded = tree | {"engine": {"threads": 3}}
    api.run(resolve(threaded, tmp_path), tmp_path / "threads", box=text_box())
    again = json.loads((tmp_path / "threads" / "prompt" / "prompt.json").read_text())
    assert again == meta and events(tmp_path / "threads", "vocabulary") == told


def test_a_run_that_was_cut_off_goes_on_with_the_same_words(tree, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    queries = api.run(resolve(tree, tmp_path), whole, box=text_box()).result["queries"]["paid"]
    with pytest.raises(BoxError, match="had enough"):
        api.run(resolve(tree, tmp_path), cut, box=text_box(queries // 2))
    api.resume(cut, box=text_box())
    assert events(cut, "vocabulary") == events(whole, "vocabulary")
    for name in ("prompt.json", "prompt.safetensors"):
        assert (cut / "prompt" / name).read_bytes() == (whole / "prompt" / name).read_bytes()


def test_a_corpus_that_changed_is_noticed(tree, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("great film\ngreat film\n")
    tree["prompt"] |= {"vocabulary": "public", "public": str(corpus), "candidates": 2}
    out = tmp_path / "out"
    api.run(resolve(tree, tmp_path), out, box=text_box())
    assert tomllib.loads((out / "config.toml").read_text())["prompt"]["public"] == str(corpus)
    corpus.write_text("poor film\npoor film\n")
    with pytest.raises(RunDirError, match=r"prompt\.public has changed"):
        api.resume(out, box=text_box())


@pytest.mark.parametrize(
    ("prompt", "box", "message"),
    [
        ({"kind": "soft", "vocabulary": "near"}, toy_box, "soft prompts have no candidates"),
        ({"candidates": 5000}, text_box, "only .* among those that prompt.vocabulary found"),
        ({"vocabulary": "near"}, text_box, "has no vocabulary to take candidates from"),
        ({"per_class": True}, text_box, "needs prompt.side = 'label'"),
    ],
)
def test_parts_that_do_not_fit(tree, tmp_path, prompt, box, message):
    for key in prompt.keys() & {"kind"}:
        tree["prompt"] = {"side": "text", "template": "{text} It was"} | {key: prompt[key]}
        tree["method"] = {"name": "fedes"}
    tree["prompt"] |= prompt
    with pytest.raises(ConfigError, match=message):
        api.run(resolve(tree, tmp_path), tmp_path / "out", box=box())
    assert not (tmp_path / "out").exists()


def test_several_classes_share_a_prompt_where_only_text_is_taken(tree, tmp_path):
    """``per_class = "auto"`` means one prompt per class from three classes on, but for text."""
    batch = toy_batch(60, classes=3)
    names = np.array(["bad", "good", "shape"])[batch.targets]
    rows = "".join(f"{text},{name}\n" for text, name in zip(batch.inputs, names, strict=True))
    (tmp_path / "train.csv").write_text("text,label\n" + rows)
    tree["prompt"] |= {"side": "label", "template": "It was {label}", "per_class": "auto"}
    for box, classes, vocabulary in ((text_box(), 1, "clients"), (toy_box(), 3, "near")):
        out, tree["prompt"]["vocabulary"] = tmp_path / str(classes), vocabulary
        api.run(resolve(tree, tmp_path), out, box=box)
        meta = json.loads((out / "prompt" / "prompt.json").read_text())
        assert len(meta["text"]) == classes
