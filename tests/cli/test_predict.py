"""Labels for new texts: what goes in, what comes out, and what is refused in one sentence."""

import csv
import io
import json
import re

import numpy as np
import pytest

from fedbbpt import artefact
from fedbbpt.config import resolve
from fedbbpt.record import write_json
from fedbbpt.testing.faults import FaultServer
from fedbbpt.testing.simulated_llm import SimulatedLlm
from fedbbpt.types import RenderedPrompt

TEXT_SIDE = {"prompt.side": "text", "prompt.template": "It was {text} ."}


def read(text, delimiter=","):
    return list(csv.DictReader(io.StringIO(text), delimiter=delimiter))


@pytest.fixture
def ended(kit, cli, tmp_path):
    """The directory of a run with this config, which has ended."""

    def run(changes=None, name="run", **shape):
        config, out = kit.write_config(tmp_path / name, changes, **shape), tmp_path / name / "out"
        assert cli("run", config, "--out", out)[::2] == (0, "")
        return out

    return run


@pytest.mark.parametrize("changes", [{}, TEXT_SIDE, {"method.name": "fedwords"}])
def test_predictions_are_as_good_as_the_result_says(kit, cli, ended, tmp_path, changes):
    out = ended(changes, classes=("bad", "good", "odd"))
    test = tmp_path / "run" / "test.csv"
    code, said, told = cli("predict", out, "--input", test)
    assert code == 0 and "12 texts answered by function:toy" in told
    rows = read(said)
    assert [(r["text"], r["label"], r["site"]) for r in rows] == [
        tuple(r.values()) for r in read(test.read_text())
    ]
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert right / len(rows) == pytest.approx(kit.result(out)["tuned"]["accuracy"])
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)


def test_chunks_do_not_change_what_is_said(cli, ended, tmp_path, monkeypatch):
    out, test = ended(), tmp_path / "run" / "test.csv"
    whole = cli("predict", out, "--input", test)[1]
    monkeypatch.setattr("fedbbpt.cli.use.CHUNK", 5)
    assert cli("predict", out, "--input", test)[1] == whole


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_rows_keep_all_their_columns(cli, ended, tmp_path, suffix):
    out = ended()
    source, target = tmp_path / "in.jsonl", tmp_path / f"out{suffix}"
    given = [
        {"id": 7, "text": 'the "lovely", warm\nbright thing', "tags": ["x", {"y": 1}]},
        {"text": "the cold dull cold dull cold thing ü", "note": "a\tb"},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    assert cli("predict", out, "--input", source, "--output", target)[:2] == (0, "")
    text = target.read_bytes().decode()
    if suffix == ".jsonl":
        found = [json.loads(line) for line in text.splitlines()]
        assert [{k: row[k] for k in one} for row, one in zip(found, given, strict=True)] == given
        assert [list(row)[-2:] for row in found] == [["prediction", "probability"]] * 2
    else:
        found = read(text, "," if suffix == ".csv" else "\t")
        assert list(found[0]) == ["id", "text", "tags", "note", "prediction", "probability"]
        assert [row["text"] for row in found] == [row["text"] for row in given]
        assert (found[0]["id"], found[1]["id"], found[1]["note"]) == ("7", "", "a\tb")
        assert json.loads(found[0]["tags"]) == given[0]["tags"]
    assert [row["prediction"] for row in found] == ["good", "bad"]


def test_a_label_is_neither_needed_nor_read(cli, ended, tmp_path):
    source = tmp_path / "new.csv"
    source.write_text("text,label\nwarm,never seen\n")
    assert read(cli("predict", ended(), "--input", source)[1])[0]["prediction"] == "good"


def test_texts_are_made_as_in_training(kit, cli, ended, tmp_path):
    changes = {"data.text": "{title}: {body}"}
    folder = tmp_path / "run"
    header = ("title", "body", "label", "site")
    rows = [("note", *row) for row in kit.rows(8)]
    kit.write_config(folder, changes)
    config, out = folder / "config.toml", folder / "out"
    for name in ("train.csv", "test.csv"):
        kit.write_table(folder / name, rows, header)
    assert cli("run", config, "--out", out)[0] == 0
    found = read(cli("predict", out, "--input", folder / "test.csv")[1])
    right = sum(row["prediction"] == row["label"] for row in found)
    assert right / len(found) == pytest.approx(kit.result(out)["tuned"]["accuracy"])


def test_numbers_are_on_the_scale_of_the_labels(kit, cli, tmp_path):
    changes = {"task": "rate", "data.range": [0, 5], "prompt.labels": {"low": "dull"}}
    config = kit.write_config(tmp_path, changes)
    for name in ("train.csv", "test.csv"):
        rows = [
            (t, 4 + i / 99 if c == "good" else i / 99, s) for i, (t, c, s) in enumerate(kit.rows(8))
        ]
        kit.write_table(tmp_path / name, rows)
    out = tmp_path / "out"
    assert cli("run", config, "--out", out)[0] == 0
    found = read(cli("predict", out, "--input", tmp_path / "test.csv")[1])
    assert "probability" not in found[0]
    values = [float(row["prediction"]) for row in found]
    assert 0 <= min(values) < max(values) <= 5


def test_what_the_model_does_not_answer_is_left_open(cli, ended, tmp_path, monkeypatch):
    out = ended()
    monkeypatch.setenv("TOYBOX_FAULT", "silent")
    code, said, told = cli("predict", out, "--input", tmp_path / "run" / "test.csv")
    assert code == 0 and "12 texts" in told and "12 of them with no prediction" in told
    assert {(row["prediction"], row["probability"]) for row in read(said)} == {("", "")}


def test_what_was_answered_before_a_failure_stays(cli, ended, tmp_path, break_after, monkeypatch):
    out, target = ended(), tmp_path / "half.csv"
    monkeypatch.setattr("fedbbpt.cli.use.CHUNK", 5)
    break_after(1, "raise")
    args = ("predict", out, "--input", tmp_path / "run" / "test.csv", "--output", target)
    code, _, told = cli(*args)
    assert code == 1 and "5 of 12 predictions were written" in told and "the toy broke" in told
    assert len(read(target.read_text())) == 5


FILES = {
    "no text": ("title\nx\n", ("line 1", "no column 'text'")),
    "empty": ("", ("is empty",)),
    "blank": (" \n", ("is empty",)),
    "header alone": ("text\n", ("holds no examples",)),
    "empty text": ("text,id\nx,1\n ,2\n", ("line 3", "'text' is empty")),
    "two alike": ("text,id,id\nx,1,2\n", ("line 1", "2 columns 'id'")),
    "taken": ("text,prediction\nx,1\n", ("'prediction' already",)),
}


@pytest.mark.parametrize("case", FILES)
def test_input_that_cannot_be_used(cli, refused, ended, tmp_path, case):
    text, names = FILES[case]
    source, out, target = tmp_path / "in.csv", ended(), tmp_path / "answers.csv"
    source.write_text(text)
    refused("predict", out, "--input", source, "--output", target, names=[source, *names], out=out)
    assert not target.exists()


def test_paths_that_cannot_be_used(refused, ended, tmp_path):
    out, test = ended(), tmp_path / "run" / "test.csv"
    missing = tmp_path / "missing.csv"
    refused("predict", out, "--input", missing, names=[missing, "does not exist"])
    for target, names in (
        (tmp_path / "a.xls", ["'.xls'", ".csv"]),
        (test, [test, "the input itself"]),
        (tmp_path / "no" / "a.csv", ["cannot be written"]),
    ):
        refused("predict", out, "--input", test, "--output", target, names=names, out=test)


def test_runs_without_a_prompt_to_use(kit, cli, refused, unfinished, ended, tmp_path):
    test, nowhere = tmp_path / "test.csv", tmp_path / "nowhere"
    refused("predict", nowhere, "--input", test, names=[nowhere, "holds no run"])
    _, out = unfinished
    refused("predict", out, "--input", test, names=[f"fedbbpt resume {out}"])
    rival = ended({"method.name": "manual"}, "rival")
    refused("predict", rival, "--input", test, names=["'manual'", "tunes no prompt"])
    apart = ended({"method.name": "local-only"}, "apart")
    said = refused("predict", apart, "--input", test, names=["each client"])
    one = apart / "clients" / "ash"
    assert str(one) in said and cli("predict", one, "--input", test)[0] == 0


# --- a model behind an API -----------------------------------------------------------------------


@pytest.fixture
def paid(kit, tmp_path, monkeypatch):
    """(server, run directory) of a run on a server that wants a key and fails now and then."""
    pytest.importorskip("httpx2")

    def answer(text):
        if "mumble" in text:
            return {" hm": -0.1, " er": -3.0}
        return {" good": -0.2, " bad": -1.8} if "warm" in text else {" bad": -0.1, " good": -2.5}

    faults = {"503": 0.1, "null-logprobs": 0.1, "429-retry-after": 0.1}
    monkeypatch.setenv("TOY_KEY", "sk-secret")
    with FaultServer(answer, faults, key="sk-secret", retry_after=0.01) as server:
        path = tmp_path / "run"
        path.mkdir()
        prompt = RenderedPrompt("{text} It was", ("bad", "good"), "text")
        prices = {"input": 1e6, "output": 1e6}
        box = {"kind": "openai_http", "url": server.url, "model": "toy", "key_env": "TOY_KEY"}
        tree = {
            "data": {"train": "train.csv"},
            "box": {**box, "prices": prices},
            "prompt": {"template": prompt.template, "side": "text"},
        }
        (path / "config.toml").write_text(resolve(tree, path).toml(), encoding="utf-8")
        facts = {"text": [], "classes": ["no", "yes"], "box": "another"}
        artefact.save(path / "prompt", prompt, np.zeros(1), facts)
        write_json(path / "result.json", {})
        yield server, path


def test_a_paid_model_answers_through_failures_and_the_bill_is_shown(cli, paid, tmp_path):
    server, run = paid
    texts = [f"{i} {kind}" for i in range(20) for kind in ("warm", "cold", "mumble")]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    code, said, told = cli("predict", run, "--input", source)
    assert code == 0, told
    found = [json.loads(line) for line in said.splitlines()]
    right = {"warm": "yes", "cold": "no", "mumble": None}
    assert [row["prediction"] for row in found] == [right[t.split()[1]] for t in texts]
    assert found[0]["probability"] == pytest.approx(1 / (1 + np.exp(-1.6)), abs=1e-6)
    assert "60 texts" in told and "20 of them with no prediction" in told
    assert "tuned on another; what answers is openai_http:toy" in told
    # At a dollar a token the bill is the tokens; some replies cost and brought nothing.
    count, tokens, usd = re.search(r"billed +(\d+) requests, (\d+) tokens, \$(\d+)", told).groups()
    assert 60 <= int(count) <= server.requests and tokens == usd and int(tokens) >= 60 * 4
    assert server.requests > 60 and "sk-secret" not in said + told


# --- answers in words ----------------------------------------------------------------------------


@pytest.fixture
def instructed(tmp_path):
    """The directory of a run that found an instruction for a simulated chat model."""
    pytest.importorskip("httpx2")
    with SimulatedLlm(embedding="ngrams") as model:
        path = tmp_path / "run"
        path.mkdir()
        form = "{instruction}\n\nInput: {text}\nOutput:"
        said = "Break the input into its letters, with spaces between them."
        tree = {
            "task": "generate",
            "metric": "contains",
            "data": {"train": "train.csv"},
            "box": {"kind": "openai_http", "url": model.url, "model": model.name},
            "prompt": {"instruction": "Do it.", "template": form},
            "method": {"name": "fedinstruct"},
        }
        (path / "config.toml").write_text(resolve(tree, path).toml(), encoding="utf-8")
        prompt = RenderedPrompt(form.replace("{instruction}", said), (), "text")
        facts = {"text": [said], "classes": [], "box": f"openai_http:{model.name}"}
        artefact.save(path / "prompt", prompt, np.zeros(1), facts)
        write_json(path / "result.json", {})
        yield path


@pytest.mark.parametrize("column", ["input", "text"])
def test_words_are_written_as_they_were_said(cli, instructed, tmp_path, column):
    source = tmp_path / "in.csv"
    source.write_text(f"id,{column}\n1,cat\n2,house\n")
    code, said, told = cli("predict", instructed, "--input", source)
    assert code == 0 and "2 texts answered by openai_http:simulated" in told
    assert list(read(said)[0]) == ["id", column, "prediction"]  # and no probability
    assert [row["prediction"] for row in read(said)] == ["c a t", "h o u s e"]


def test_a_file_of_instruction_induction_is_read_as_in_training(cli, instructed, tmp_path):
    source, target = tmp_path / "task.json", tmp_path / "said.jsonl"
    pairs = {"1": {"input": "cat", "output": "c a t"}, "2": {"input": "dog", "output": "d o g"}}
    source.write_text(json.dumps({"metadata": {}, "examples": pairs}))
    assert cli("predict", instructed, "--input", source, "--output", target)[0] == 0
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert found == [{"input": x, "prediction": y} for x, y in (("cat", "c a t"), ("dog", "d o g"))]
