"""The doctor before servers of every kind, and before boxes on this machine."""

import json
import math
import re
import sys
import threading
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from struct import unpack

import pytest
import tomli_w

from fedbbpt.cli.main import main
from fedbbpt.doctor import doctor
from fedbbpt.errors import ConfigError
from fedbbpt.patient import QUESTION, TEXTS, png
from fedbbpt.testing import _fault_http
from fedbbpt.testing.faults import FaultServer
from fedbbpt.testing.simulated_llm import SimulatedLlm

KEY = "sk-secret-of-the-doctor"


def answer(text):
    """Either label with two thirds of the mass, and a word more."""
    share = 0.5 + (sum(text.encode()) % 29) / 100
    good = TEXTS[0] in text
    return {
        " positive": math.log(share if good else 0.8 - share),
        " negative": math.log(0.8 - share if good else share),
        " the": math.log(0.2),
    }


@pytest.fixture
def config(tmp_path):
    """Writes a config with [box] alone, or with the tables that are given."""

    def write(box, **tables):
        path = tmp_path / "box.toml"
        path.write_text(tomli_w.dumps({"box": box, **tables}), encoding="utf-8")
        return path

    return write


def openai(server, **options):
    url = server if isinstance(server, str) else server.url
    return {"kind": "openai_http", "url": url, "model": "toy", "deadline": 3.0, **options}


def found(report):
    return {finding.check: finding for finding in report.findings}


def data(folder):
    """Examples of two clients for a whole config."""
    rows = [
        f"{w} {i},{label},s{i % 2}" for i in range(8) for w, label in (("ok", "a"), ("no", "b"))
    ]
    (folder / "train.csv").write_text("text,label,site\n" + "\n".join(rows), encoding="utf-8")
    return {"train": "train.csv"}


# --- a healthy server ----------------------------------------------------------------------------


def test_a_healthy_server_is_found_to_be_one(config):
    with FaultServer(answer, requests_per_minute=500) as server:
        prices = {"input": 1e6, "output": 1e6}
        report = doctor(config(openai(server, prices=prices)))
        assert server.requests + 1 == report.requests <= 12  # the list of models is not logged
        assert server.refused == 0 and not server.faults
    seen = found(report)
    for check in ("reachable", "key", "model", "log-probabilities", "label named in words"):
        assert seen[check].ok is True, seen[check]
    assert re.match(r"9 characters in 0\.\d{3} s: negative", seen["answers in words"].seen)
    assert seen["model"].seen == "toy"
    assert "3 tokens of 20" in seen["labels among the likeliest tokens"].seen
    assert seen["temperature 0"].ok and seen["repeatable"].seen == "3 times the same"
    assert seen["embeddings"].ok is not True and seen["images"].ok is False
    assert "x-ratelimit-limit-requests: 500" in seen["limits"].seen
    assert seen["price"].ok and report.usd == report.tokens > 0
    assert report.possible and report.recommended.method == "fedwords"
    assert report.recommended.loss == "cross_entropy"
    assert "fedwords because the API takes text only" in report.recommended.reasons


def test_nobody_s_examples_are_sent(config, tmp_path):
    prompt = {"template": "{text} It is", "side": "text"} | {"candidates": 2, "words": ["x", "y"]}
    path = config(
        openai("http://127.0.0.1:9/v1"),
        data=data(tmp_path),
        prompt=prompt,
        method={"name": "fedwords"},
    )
    told = {"a": -0.5, "b": -1.5}
    with FaultServer(lambda text: {k: v - len(text) / 1e3 for k, v in told.items()}) as server:
        report = doctor(path, [f"box.url={server.url}"])
        bodies = [json.loads(seen.body) for seen in server.log]
    assert found(report)["config"].ok is True and "queries" in found(report)["config"].seen
    asked = {body["messages"][0]["content"] for body in bodies if "logprobs" in body}
    assert asked == {f"{text} It is" for text in TEXTS}
    assert report.possible


# --- servers that lack something -----------------------------------------------------------------


def test_a_host_that_is_not_there_ends_the_examination(config):
    report = doctor(config(openai("http://127.0.0.1:9/v1", deadline=77.0)))
    (lost,) = report.findings
    assert lost.check == "reachable" and lost.ok is False and not report.possible
    assert "http://127.0.0.1:9/v1" in lost.seen and "cannot be reached" in lost.seen
    assert "77 s (box.deadline)" in lost.advice and report.recommended is None


def test_a_missing_key_names_its_variable_and_is_never_told(config, monkeypatch):
    with FaultServer(answer, key="sk-right") as server:
        monkeypatch.setenv("MY_KEY", KEY)
        path = config(openai(server, key_env="MY_KEY"))
        report = doctor(path)
        assert report.findings[-1].check == "key" and not report.possible
        assert "$MY_KEY" in report.findings[-1].seen and KEY not in json.dumps(report.tree())
        monkeypatch.setenv("MY_KEY", "sk-right")
        report = doctor(path)
        assert found(report)["key"].seen == "$MY_KEY is sent" and report.possible


def test_an_unknown_model_lists_what_there_is(config):
    with FaultServer(answer, models=("ada", "toy")) as server:
        report = doctor(config(openai(server, model="else")))
    assert report.findings[-1].check == "model" and report.findings[-1].ok is False
    assert "models there: ada, toy" in report.findings[-1].seen and not report.possible


@pytest.mark.parametrize("fault", ["null-logprobs", "zero-logprobs", "minus-9999", "nan-logprobs"])
def test_log_probabilities_that_are_none_are_found_out(config, fault):
    with FaultServer(answer, {fault: 1.0}) as server:
        report = doctor(config(openai(server)))
        ill = found(report)["log-probabilities"]
        assert ill.ok is False and "box.scores = 'labels'" in ill.advice, ill
        assert found(report)["label named in words"].ok and not report.possible
        assert report.recommended.loss == "error"
        mended = doctor(config(openai(server, scores="labels")))
        assert mended.possible and found(mended)["scores"].ok


def test_log_probabilities_that_never_change_are_not_real(config):
    with FaultServer(lambda _: {"positive": -0.1, "negative": -2.5}) as server:
        ill = found(doctor(config(openai(server))))["log-probabilities"]
    assert ill.ok is False and "the same for two different texts" in ill.seen


def test_a_server_that_leaves_them_out(config, monkeypatch):
    make = _fault_http.reply
    monkeypatch.setattr(_fault_http, "reply", lambda a, picks: make(a._replace(tops=None), picks))
    with FaultServer(answer) as server:
        report = doctor(config(openai(server)))
        assert server.requests < 12
    assert found(report)["log-probabilities"].seen == "its replies hold none"
    assert found(report)["scores"].advice.startswith("set box.scores = 'labels'")
    assert not report.possible


def test_labels_that_are_never_listed_are_named(config):
    with FaultServer(lambda text: {" positive": -0.4 - len(text) / 1e3, " so": -1.9}) as server:
        seen = found(doctor(config(openai(server))))["labels among the likeliest tokens"]
    assert seen.ok is False and "'negative' not among them" in seen.seen


def test_noise_is_measured(config):
    more = count(1)
    shaken = lambda text: {" positive": -0.5 - next(more) / 50, " negative": -3.0}  # noqa: E731
    with FaultServer(shaken) as server:
        seen = found(doctor(config(openai(server))))["repeatable"]
    assert seen.ok is False and "nats" in seen.seen and "more examples" in seen.advice


def test_failures_that_pass_are_waited_out(config):
    with FaultServer(answer, {"503": 0.3, "reset": 0.3}, seed=4) as server:
        report = doctor(config(openai(server)))
        assert any(seen.fault for seen in server.log)
    assert report.possible and found(report)["log-probabilities"].ok


def test_an_api_without_log_probabilities(config, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    with FaultServer(answer) as server:
        box = {"kind": "anthropic_http", "url": server.url, "model": "toy", "deadline": 3.0}
        report = doctor(config(box))
    seen = found(report)
    assert seen["log-probabilities"].ok is None and seen["label named in words"].ok is True
    assert seen["scores"].ok and report.possible and report.recommended.loss == "error"


@pytest.fixture
def vllm(tmp_path):
    """What stands in for vLLM in the tests of its box, and the folder of its model."""
    path = Path(__file__).parent / "boxes" / "test_vllm_http.py"
    spec = spec_from_file_location("vllm_kit", path)
    kit = module_from_spec(spec)
    spec.loader.exec_module(kit)
    spec = spec_from_file_location("causal_kit", path.with_name("test_causal_lm.py"))
    causal = module_from_spec(spec)
    spec.loader.exec_module(causal)
    folder = causal.make_model("llama", tmp_path / "model")
    server = kit.Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server, folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_soft_prompts_need_a_server_that_takes_embeddings(config, tmp_path, vllm, monkeypatch):
    server, folder = vllm
    url = f"http://127.0.0.1:{server.server_port}/v1"
    box = {"kind": "vllm_http", "url": url, "model": "tiny", "vocabulary": str(folder)}
    prompt = {"template": "{text} It was", "side": "text", "dim": 4}
    prompt["labels"] = {"a": "terrible", "b": "great"}
    tables = {"data": data(tmp_path), "prompt": prompt, "method": "fedes"}
    path = config(box | {"max_tokens": 48, "deadline": 3.0}, **tables)
    report = doctor(path)
    assert found(report)["embeddings"].ok and found(report)["log-probabilities"].ok
    assert report.possible and report.recommended.prompt == "tokens"
    complete = server.complete

    def refusing(body):
        if body.get("prompt_embeds"):
            raise ConnectionError("not enabled")
        return complete(body)

    monkeypatch.setattr(server, "complete", refusing)
    monkeypatch.setattr(server, "handle_error", lambda *_: None)
    report = doctor(path)
    assert found(report)["embeddings"].ok is False and not report.possible
    assert "--enable-prompt-embeds" in found(report)["config"].advice


# --- answers in words ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chat():
    """A chat model that gives words alone: it refuses to list log-probabilities."""
    with SimulatedLlm(embedding="ngrams") as model:
        yield model


def wordy(folder):
    """Tables of a config for a task with words."""
    rows = [{"input": f"word {i}", "output": ["w", "W"], "site": f"s{i % 2}"} for i in range(16)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "task": "generate",
        "data": {"train": "train.jsonl"},
        "prompt": {"instruction": "Write the first letter of the word.", "encoder": "ngrams"},
        "method": {"name": "fedinstruct"},
    }


def test_a_config_for_words_is_asked_for_no_labels(config, tmp_path, chat, monkeypatch):
    path, bodies, answer = config(openai(chat, model=chat.name), **wordy(tmp_path)), [], chat.answer
    monkeypatch.setattr(
        chat, "answer", lambda body: bodies.append(json.loads(body)) or answer(body)
    )
    report = doctor(path)
    assert report.possible and report.recommended.method == "fedinstruct"
    assert len(bodies) <= report.requests <= 12 and not any("logprobs" in body for body in bodies)
    asked = {str(body["messages"][0]["content"]) for body in bodies}
    instructed = "Write the first letter of the word.\n\nInput: {text}\nOutput:"
    made_up = {instructed.replace("{text}", text) for text in TEXTS}
    assert QUESTION in asked and made_up & asked and not any("word 1" in text for text in asked)
    seen = found(report)
    assert seen["answers"].ok and seen["temperature 0"].ok and seen["config"].ok
    assert seen["log-probabilities"].ok is seen["label named in words"].ok is None
    assert re.search(r"^\d+ characters in \d+\.\d{3} s: ", seen["answers in words"].seen)


def test_an_api_with_words_and_nothing_else(config, tmp_path, chat):
    report = doctor(config(openai(chat, model=chat.name)))
    assert found(report)["log-probabilities"].ok is False and "scores" not in found(report)
    assert report.possible and report.recommended.prompt == "instruction"
    tables = {"data": data(tmp_path), "prompt": {"template": "{text} It is", "side": "text"}}
    method = {"name": "fedwords", "loss": "error"}
    report = doctor(config(openai(chat, model=chat.name), method=method, **tables))
    assert found(report)["scores"].ok is False and not report.possible


def test_silence_is_no_answer(config, tmp_path, chat, monkeypatch):
    monkeypatch.setattr(chat, "_line", lambda *_: "")
    report = doctor(config(openai(chat, model=chat.name), **wordy(tmp_path)))
    silent = found(report)["answers in words"]
    assert silent.seen == "an empty reply" and "reply_tokens" in silent.advice
    assert not report.possible and report.recommended is None


# --- boxes on this machine -----------------------------------------------------------------------


def test_a_box_on_this_machine(config, minilm, monkeypatch):
    monkeypatch.setattr("fedbbpt.doctor.registry.make", lambda *_: minilm)  # loaded before
    report = doctor(config({"kind": "dual_encoder", "model": "minilm"}))
    seen = found(report)
    assert report.possible and seen["answers"].ok and seen["repeatable"].ok
    assert "soft" in seen["capabilities"].seen and report.usd == report.tokens == 0
    advice = report.recommended
    assert (advice.method, advice.prompt, advice.side) == ("fedlinear", "soft", "label")


def function(config, monkeypatch, tmp_path, body, tables=(), **options):
    (tmp_path / "mybox.py").write_text(f"import numpy as np\ndef answer(p, x):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mybox", raising=False)
    box = {"kind": "function", "answer": "mybox:answer", "name": "mine", **options}
    return doctor(config(box, **dict(tables)))


def test_a_box_that_gives_no_text_is_not_for_words(config, monkeypatch, tmp_path):
    scores = "return np.log([[[0.2, 0.8] if 'D' in t else [0.7, 0.3] for t in x] for _ in p])"
    report = function(config, monkeypatch, tmp_path, scores, wordy(tmp_path))
    ill = found(report)["config"]
    assert ill.ok is False and "needs text" in ill.seen and not report.possible
    assert found(report)["answers"].ok and "answers in words" not in found(report)


def test_a_box_that_gives_text_only(config, monkeypatch, tmp_path):
    echo, kind = "return [[t.upper() for t in x] for _ in p]", {"gives": ["text"]}
    report = function(config, monkeypatch, tmp_path, echo, **kind)
    seen = found(report)
    assert report.possible and report.requests == 4 and seen["answers"].seen == "words"
    assert seen["repeatable"].ok and f": {QUESTION.upper()}" in seen["answers in words"].seen
    assert report.recommended.method == "fedinstruct"
    mute = function(config, monkeypatch, tmp_path, "return [[None] * len(x) for _ in p]", **kind)
    assert found(mute)["answers"].ok is False and not mute.possible
    assert found(mute)["answers in words"].seen == "no reply"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('it broke')", "it broke"),
        ("return np.full((len(p), len(x), 2), np.log(0.5))", "the same scores"),
        ("return np.zeros((len(p), len(x), 2))", "do not add up"),
        ("return np.full((len(p), len(x), 2), np.nan)", "not finite"),
    ],
)
def test_a_box_that_cannot_be_used(config, monkeypatch, tmp_path, body, said):
    report = function(config, monkeypatch, tmp_path, body)
    assert said in found(report)["answers"].seen
    assert not report.possible and report.recommended is None


def test_a_gateway_that_is_not_there(config):
    report = doctor(config({"kind": "gateway_http", "url": "http://127.0.0.1:9", "deadline": 0.3}))
    assert not report.possible and "http://127.0.0.1:9" in report.findings[0].seen


def test_parts_that_do_not_fit_are_told(config, tmp_path):
    tables = {"data": data(tmp_path), "prompt": {"template": "{text} is", "side": "text"}}
    tables["method"] = "fedes"
    with FaultServer(answer) as server:
        report = doctor(config(openai(server), **tables))
    ill = found(report)["config"]
    assert ill.ok is False and "soft prompts send soft" in ill.seen and not report.possible


# --- the command ---------------------------------------------------------------------------------


def test_the_command(config, monkeypatch, capsys):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["fedbbpt", "doctor", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().out

    with FaultServer(answer) as server:
        path = config(openai(server))
        code, shown = call(path)
        assert code == 0 and "verdict   a run is possible" in shown and "fedwords" in shown
        code, shown = call(path, "--json")
        assert code == 0 and json.loads(shown)["possible"] is True
        code, shown = call(path, "--json", "--set", "box.model=else")
        assert code == 1 and json.loads(shown)["possible"] is False


def test_a_config_without_a_box_is_refused(tmp_path):
    path = tmp_path / "none.toml"
    path.write_text("[run]\nseed = 1\n")
    with pytest.raises(ConfigError, match=r"no table \[box\]"):
        doctor(path)


def test_the_picture_is_one():
    picture = png(32)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and unpack(">II", picture[16:24]) == (32, 32)
