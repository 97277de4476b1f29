"""Exports of prompts in words ask what was asked in tuning, or nothing is written."""

import json

import numpy as np
import pytest

from fedbbpt.errors import ExportError, Incompatible, UnknownPart
from fedbbpt.exports import export
from fedbbpt.exports._again import SAMPLES
from fedbbpt.exports.openai import filled
from fedbbpt.types import RenderedPrompt

API = {"kind": "openai_http", "url": "http://127.0.0.1:9/v1", "model": "toy", "system": "Be brief."}
LOCAL = {"kind": "dual_encoder"}
LABELS = ("terrible", "so great")
TEMPLATE = 'Review: "{text}"\n\nIt was ünd so\\on \n'
TEXT = RenderedPrompt(TEMPLATE, LABELS, "text")
WORDS = RenderedPrompt("Write the plural.\n\n\nInput: {text}\nOutput: \n\n", (), "text")
SOFT = RenderedPrompt("{text} it was", LABELS, "text", soft=(np.ones((2, 3), np.float32),))


def content(written):
    return written.path.read_bytes()


@pytest.mark.parametrize("box", [API, LOCAL], ids=lambda box: box["kind"])
def test_a_prompt_as_people_read_it(ended, box):
    written = export(ended(box, TEXT), "text")
    assert content(written).decode() == f"{TEMPLATE}\n\nbad = terrible\ngood = so great\n"
    how = "byte for byte" if box is API else "character for character"
    assert how in written.draft.tested


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_request_is_the_one_of_tuning_byte_for_byte(ended, api):
    run = ended({**API, "api": api, "extra": {"top_k": 5}}, TEXT)
    written = export(run, "openai")
    form, box = content(written), run.box()
    assert form.count(b"{text}") == 1 and json.loads(form)["top_k"] == 5
    for text in ("plain", *SAMPLES):
        assert filled(form, text) == box.request(TEXT, text).body
    assert box.wire.url in written.draft.tested and f"/{api}" in written.draft.tested


def test_a_state_of_dspy(ended):
    run = ended(API, TEXT)
    state = json.loads(content(export(run, "dspy")))
    assert state.keys() == {"traces", "train", "demos", "signature", "lm", "metadata"}
    assert state["metadata"] == {"dependency_versions": {}}
    signature = state["signature"]
    assert signature["instructions"].startswith("Be brief.\n\n")
    assert TEMPLATE in signature["instructions"]
    assert [field["prefix"] for field in signature["fields"]] == ["Text:", "Label:"]
    assert signature["fields"][1]["description"] == "one of: terrible, so great"


def test_a_prompt_without_labels_is_exported_alone(ended):
    run = ended(API, WORDS, classes=())
    assert content(export(run, "text")).decode() == f"{WORDS.template}\n"
    form, box = content(export(run, "openai")), run.box()
    assert "logprobs" not in json.loads(form) and json.loads(form)["max_tokens"] == box.written
    for text in ("plain", *SAMPLES):
        assert filled(form, text) == box.request(WORDS, text).body
    written = export(run, "dspy")
    signature = json.loads(content(written))["signature"]
    assert WORDS.template in signature["instructions"] and "byte for byte" in written.draft.tested
    assert signature["fields"] == [
        {"prefix": "Text:", "description": "${text}"},
        {"prefix": "Answer:", "description": "${answer}"},
    ]


def test_an_export_goes_where_it_is_told(ended, tmp_path):
    run, out = ended(LOCAL, TEXT), tmp_path / "new" / "p.txt"
    assert export(run, "text", out).path == out and out.is_file()
    assert export(run, "text").path == run.path / "export" / "prompt.txt"


# --- what would be wrong is not written ---------------------------------------------------------


@pytest.mark.parametrize("prompt", [TEXT, WORDS], ids=["labels", "words"])
@pytest.mark.parametrize(
    ("to", "broken", "said"),
    [
        ("text", "fedbbpt.exports.text._read", "not the one tuned"),
        ("openai", "fedbbpt.exports.openai.filled", "other bytes"),
        ("dspy", "fedbbpt.exports.dspy._read", "not the one tuned"),
    ],
)
def test_a_failed_self_test_is_loud(ended, monkeypatch, prompt, to, broken, said):
    wrong = {
        "text": lambda *_: [TEMPLATE.strip()],
        "openai": lambda form, text: form.replace(b"{text}", text.encode()),
        "dspy": lambda _: RenderedPrompt(TEMPLATE, LABELS[::-1], "text"),
    }
    run = ended(API, prompt, classes=("bad", "good")[: len(prompt.labels)])
    monkeypatch.setattr(broken, wrong[to])
    with pytest.raises(ExportError, match=said):
        export(run, to)
    assert not (run.path / "export").exists()


def test_a_second_gap_for_the_text_is_refused(ended):
    run = ended({**API, "system": "Say what {text} means."}, TEXT)
    with pytest.raises(ExportError, match="2 times"):
        export(run, "openai")


def test_labels_that_look_like_the_prompt_are_told_apart(ended):
    prompt = RenderedPrompt("bad = terrible\n\nbad = terrible\n{text}", LABELS, "text")
    written = export(ended(LOCAL, prompt), "text")
    assert content(written).decode().startswith(prompt.template)


REFUSED = {
    "soft as text": (LOCAL, SOFT, "text", "numbers, not of words"),
    "soft as request": (API, SOFT, "openai", "serve-prompt"),
    "local as request": (LOCAL, TEXT, "openai", "'dual_encoder' sends no requests"),
    "label side": (LOCAL, RenderedPrompt("It was {label}", LABELS), "dspy", "label side"),
    "comma": (LOCAL, RenderedPrompt("{text}", ("a, b", "c"), "text"), "dspy", "commas"),
    "words as adapter": (LOCAL, TEXT, "peft", "this one is text"),
    "instruction as adapter": (API, WORDS, "peft", "this one is text; use --to text"),
    "words of its own as request": (LOCAL, WORDS, "openai", "'dual_encoder' sends no requests"),
    "encoder as adapter": (LOCAL, SOFT, "peft", "'dual_encoder'"),
    "moved as adapter": ({"kind": "causal_lm", "model": "x"}, SOFT, "peft", "'insert'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_prompts_without_that_form(ended, monkeypatch, case):
    box, prompt, to, said = REFUSED[case]
    run = ended(box, prompt)
    with pytest.raises(Incompatible, match=said):
        export(run, to)
    assert not (run.path / "export").exists()


def test_a_form_that_does_not_exist(ended):
    with pytest.raises(UnknownPart, match="did you mean 'openai'"):
        export(ended(LOCAL, TEXT), "opeanai")


# --- tokens: only the model can say -------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("count", [1, 2])
def test_tuned_tokens_become_words_where_the_model_reads_them_so(ended, minilm, place, count):
    vocabulary = minilm.vocabulary
    words = ("really moving", "dull")[:count]
    ids = tuple(tuple(vocabulary.tokenise(text)) for text in words)
    prompt = RenderedPrompt("It was {label} .", LABELS, tokens=ids, place=place)
    run = ended({**LOCAL, "dtype": "float32", "device": "cpu"}, prompt, words)
    written = content(export(run, "text")).decode()
    first = "really moving It was {label} ." if place == "before" else "{label} really moving ."
    assert first in written and (count == 1 or "good = so great\n" in written)


def test_tokens_that_the_model_reads_otherwise_are_refused(ended, minilm):
    ids = tuple(minilm.vocabulary.tokenise("play")) + tuple(minilm.vocabulary.tokenise("ing"))
    prompt = RenderedPrompt("It was {label} .", LABELS, tokens=(ids,))
    run = ended({**LOCAL, "dtype": "float32", "device": "cpu"}, prompt, ["playing"])
    with pytest.raises(ExportError, match="other tokens than those tuned"):
        export(run, "text")
