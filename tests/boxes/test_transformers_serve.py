"""A real peer: ``transformers serve`` with a small model, asked for typed choices and for words."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import fedbbpt
from fedbbpt.boxes.openai_http import OpenaiHttp
from fedbbpt.errors import BoxError
from fedbbpt.testing.boxes import check_box
from fedbbpt.types import NO_LABEL, RenderedPrompt

LABELS = ("bad", "good")
PROMPT = RenderedPrompt("Review: {text}", LABELS, side="text")
TEXTS = ("a fine film", "a dull, long film", "fine")
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(URL, model) of a server of this machine's own transformers."""
    for package in ("torch", "transformers", "fastapi", "uvicorn"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    import transformers

    spec = spec_from_file_location("causal", Path(__file__).with_name("test_causal_lm.py"))
    causal = module_from_spec(spec)
    spec.loader.exec_module(causal)
    folder = tmp_path_factory.mktemp("served")
    model = causal.make_model("qwen2", folder / "model", max_position_embeddings=512)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, *options],
            stdout=log,
            stderr=log,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 90
            while not up(url):
                said = (folder / "log").read_text()
                assert server.poll() is None and time.monotonic() < until, said
                time.sleep(0.1)
            yield url + "/v1", model
        finally:
            server.terminate()
            server.wait()


def up(url):
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def test_typed_choices_have_the_probabilities_that_the_server_says(served):
    url, model = served
    reply = OpenaiHttp(url, model, api="systemone", max_concurrency=2)([PROMPT], TEXTS)
    question = {"type": "choice", "criteria": dict.fromkeys(LABELS)}
    for text, row in zip(TEXTS, reply.scores[0], strict=True):
        body = {"model": model, "state": f"Review: {text}", "questions": {"label": question}}
        request = urllib.request.Request(
            url + "/systemone", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            shares = json.load(answer)["answers"]["label"]["probabilities"]
        np.testing.assert_allclose(np.exp(row), [shares[label] for label in LABELS], atol=1e-6)
    assert np.ptp(reply.scores[0][:, 0]) > 1e-3


def test_it_keeps_the_laws_of_a_box(served):
    url, model = served
    check_box(OpenaiHttp(url, model, api="systemone", max_concurrency=2))


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_model_of_random_weights_names_no_label_and_is_wrong(served, api):
    url, model = served
    reply = OpenaiHttp(url, model, api=api, scores="labels", reply_tokens=2)([PROMPT], TEXTS)
    assert (reply.scores == NO_LABEL).all()


def test_log_probabilities_that_it_does_not_give_are_missed_at_once(served):
    url, model = served
    began = time.monotonic()
    with pytest.raises(BoxError, match="log-probabilities"):
        OpenaiHttp(url, model, deadline=60.0)([PROMPT], TEXTS[:1])
    assert time.monotonic() - began < 30


def test_a_run_on_typed_choices(served, tmp_path):
    url, model = served
    pairs = [(text, LABELS[len(text) % 2]) for text in TEXTS]
    outcome = fedbbpt.tune(
        {"one": pairs, "two": pairs[::-1]},
        "Review: {text}",
        tmp_path / "out",
        test=pairs,
        method="fedwords",
        queries=60,
        box=OpenaiHttp(url, model, api="systemone", max_concurrency=2),
        prompt={
            "kind": "tokens",
            "side": "text",
            "template": "Review: {text}",
            "words": ["plain", "warm", "loud"],
            "candidates": 3,
            "slots": 1,
        },
    )
    assert outcome.result["rounds"] >= 1 and outcome.requests["failed"] == 0
    assert outcome.result["queries"]["paid"] == outcome.requests["sent"]
