"""The box for Anthropic's API: what is sent, and labels read from words."""

import json
import math

import numpy as np
import pytest

from fedbbpt.boxes.anthropic_http import AnthropicHttp
from fedbbpt.errors import BoxError
from fedbbpt.testing.faults import FaultServer, evenly
from fedbbpt.types import NO_LABEL, RenderedPrompt

PROMPT = RenderedPrompt("{text} is", ("bad", "good"), side="text")


def answer(text):
    likely = "good" if "fine" in text else "bad" if "poor" in text else "neither"
    return {likely: math.log(0.8), "it": math.log(0.2)}


@pytest.fixture
def server():
    with FaultServer(answer, key="sk-a") as running:
        yield running


@pytest.fixture
def box(server, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-a")
    return AnthropicHttp("toy", server.url, system="One word.", deadline=20.0, timeout=0.5)


def test_the_label_that_is_named_counts(box):
    scores = box([PROMPT], ["fine thing", "poor thing", "odd thing"]).scores[0]
    assert scores[0].argmax() == 1 and scores[1].argmax() == 0
    assert (scores[2] == NO_LABEL).all()


def test_what_is_sent(box, server):
    box([PROMPT], ["fine thing"])
    assert server.log[-1].path == "/v1/messages"
    assert json.loads(server.log[-1].body) == {
        "model": "toy",
        "max_tokens": 16,
        "temperature": 0,
        "messages": [{"role": "user", "content": "fine thing is"}],
        "system": "One word.",
    }


def test_without_labels_it_answers_in_words(box, server):
    wordy = RenderedPrompt("{text} is", (), side="text")
    assert box([wordy], ["fine thing", "poor thing"]).texts == (("good", "bad"),)
    sent = json.loads(server.log[-1].body)
    assert sent["max_tokens"] == 128 and sent["temperature"] == 0
    other = AnthropicHttp("toy", server.url, system="One word.", reply_tokens=64)
    assert other.name != box.name and (other.most, other.written) == (64, 64)
    several = {
        "content": [{"type": "text", "text": " a"}, {"type": "x"}, {"type": "text", "text": "b "}]
    }
    assert box.said(several) == " ab "
    assert box.said({"content": [], "stop_reason": "end_turn"}) == ""


def test_failures_are_asked_again():
    with FaultServer(answer, evenly(0.3)) as server:
        texts = [f"fine thing {i}" for i in range(30)]
        box = AnthropicHttp("toy", server.url, key_env="", deadline=30.0, timeout=0.3)
        assert (box([PROMPT], texts).scores[0].argmax(axis=1) == 1).all()
        assert server.requests > len(texts)


def test_a_missing_key_names_its_variable(server, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(BoxError, match=r"401.*set \$ANTHROPIC_API_KEY"):
        AnthropicHttp("toy", server.url)([PROMPT], ["fine thing"])


def test_bills_are_read(box):
    reply = {"usage": {"input_tokens": 7, "output_tokens": 2}}
    assert box.usage(reply) == (7, 2) and np.isfinite(box.most)
