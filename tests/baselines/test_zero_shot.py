"""Prompts that nobody learned: which template is tried, and that it costs nothing to fit."""

import numpy as np
import pytest

from fedbbpt.baselines.zero_shot import ZeroShot
from fedbbpt.boxes.function import Function
from fedbbpt.errors import ConfigError
from fedbbpt.testing.toys import ToyEncoder, toy_box
from fedbbpt.types import RenderedPrompt

LABELS = ("bad", "good")


@pytest.mark.parametrize(
    ("side", "manual", "bare"),
    [
        ("label", "It was {label} .", "{label}"),
        ("text", "{text} All in all it was", "{text}"),
        ("text", "{text} All in all it was {mask} .", "{text} {mask}"),
        ("text", "It was {mask} : {text}", "{text} {mask}"),
    ],
)
def test_which_template_is_tried(side, manual, bare):
    start = RenderedPrompt(manual, LABELS, side)
    tried = ZeroShot().prompted(start, None)
    assert (tried.template, tried.labels, tried.side) == (bare, LABELS, side)
    assert ZeroShot("manual").prompted(start, None) is start
    assert ZeroShot("So {text}").prompted(start, None).template == "So {text}"


def test_a_mask_in_the_tokenizers_spelling_is_a_mask(small_lm):
    box = small_lm()
    start = RenderedPrompt("{text} it was <mask> .", ("terrible", "great"), "text")
    ZeroShot().prepare(start, box)
    assert ZeroShot().prompted(start, box.vocabulary).template == "{text} <mask>"


def test_bare_words_against_the_manual_prompt(attempt):
    box = ToyEncoder()
    tried = attempt("zero-shot", box, "It was rather {label} .")
    batch = tried.split.test["(test)"]
    for which, template in (("baseline", "It was rather {label} ."), ("tuned", "{label}")):
        scores = box([RenderedPrompt(template, LABELS)], batch.inputs).scores[0]
        own = scores[np.arange(batch.size), batch.targets]
        assert tried.result[which]["loss"] == pytest.approx(-own.mean())
        assert tried.result[which]["accuracy"] == (scores.argmax(axis=1) == batch.targets).mean()
    assert tried.result["baseline"] != tried.result["tuned"]
    queries, rounds = tried.result["queries"], tried.result["rounds"]
    assert (queries["train"], queries["select"], rounds) == (0, 0, 0)
    assert tried.learned == {}


@pytest.mark.parametrize("template", ["It was {label} .", "{text} All in all it was"])
def test_manual_is_the_baseline_to_the_bit(attempt, template):
    result = attempt("manual", toy_box(), template).result
    assert result["tuned"] == result["baseline"]
    assert 0 < result["queries"]["evaluation"] == result["queries"]["paid"]


def test_a_masked_model(attempt, small_lm):
    words = {"bad": "terrible", "good": "great"}
    template = "{text} All in all it was {mask} ."
    result = attempt("zero-shot", small_lm(), template, prompt={"labels": words}).result
    assert result["queries"]["evaluation"] == 2 * result["test_examples"]
    assert result["baseline"]["loss"] != result["tuned"]["loss"]


@pytest.mark.parametrize("method", ["zero-shot", "manual", "calibration", "in-context"])
def test_a_box_that_takes_text_alone_is_enough(attempt, method):
    encoder = ToyEncoder()
    box = Function(lambda p, x: encoder(p, x).scores, "chat", accepts=["text"])
    prompt = {"kind": "soft", "dim": 7, "per_class": True}  # of a search, and nothing to these
    result = attempt(method, box, "It was {label} .", classes=3, prompt=prompt).result
    assert np.isfinite([result[which]["loss"] for which in ("baseline", "tuned")]).all()


@pytest.mark.parametrize("template", ["", "So it was", "{text}", "{label} {label}"])
def test_a_template_without_its_gap_is_refused_before_anything_is_paid(attempt, tmp_path, template):
    with pytest.raises(ConfigError) as caught:
        attempt("zero-shot", toy_box(), "It was {label} .", options={"template": template})
    must = "it must be 'bare', 'manual' or hold {label} once"
    assert str(caught.value) == f"method.baseline.template is '{template}'; {must}"
    assert not list(tmp_path.iterdir())


def test_what_the_box_refuses_is_refused_too(attempt, small_lm):
    words = {"labels": {"bad": "terrible", "good": "great"}}
    options = {"template": "{text} it was"}
    with pytest.raises(ConfigError, match=r"'{text} it was' has no mask"):
        attempt("zero-shot", small_lm(), "{text} {mask}", options=options, prompt=words)
