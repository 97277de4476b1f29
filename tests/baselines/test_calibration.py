"""Contextual calibration beside its formula."""

import numpy as np
import pytest

from fedbbpt.baselines.calibration import FREE, calibrated
from fedbbpt.testing.toys import CountingBox, ToyEncoder, toy_box
from fedbbpt.types import RenderedPrompt

LABELS = ("bad", "good", "odd")


def by_the_paper(box, prompt, examples):
    """(B, C): W p normalised, with W = diag(p_cf)^-1 and p_cf the mean over the free inputs."""
    free = np.exp(box([prompt], FREE).scores[0]).mean(axis=0)
    found = np.exp(box([prompt], examples).scores[0]) / free
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("make", [ToyEncoder, toy_box])
@pytest.mark.parametrize("template", ["It was {label} .", "{text} All in all it was"])
def test_the_result_is_the_formulas(attempt, make, template):
    tried = attempt("calibration", make(), template, classes=3)
    batch = tried.split.test["(test)"]
    side = "text" if "{text}" in template else "label"
    found = by_the_paper(make(), RenderedPrompt(template, LABELS, side), batch.inputs)
    own = found[np.arange(batch.size), batch.targets]
    assert tried.result["tuned"]["loss"] == pytest.approx(-np.log(own).mean())
    assert tried.result["tuned"]["accuracy"] == (found.argmax(axis=1) == batch.targets).mean()
    assert tried.result["tuned"]["loss"] != tried.result["baseline"]["loss"]
    assert tried.learned["prior"].shape == (3,)


def test_an_input_without_content_is_no_class_any_more():
    prior = np.log([0.7, 0.2, 0.1])
    np.testing.assert_allclose(calibrated(prior, prior), np.log(np.full(3, 1 / 3)))


@pytest.mark.parametrize(
    ("make", "template", "queries"),
    [
        (toy_box, "It was {label} .", 3),
        (ToyEncoder, "It was {label} .", 3 + 3),
        (ToyEncoder, "{text} All in all it was", 3 + 3),
    ],
)
def test_one_client_asks_three_questions_for_all(attempt, make, template, queries):
    """Where labels are atoms of their own they are paid with them."""
    tried = attempt("calibration", make(), template, classes=3, sizes=(6, 8, 6))
    assert tried.result["queries"]["train"] == queries
    assert [event["client"] for event in tried.events("client")] == ["ash"]


def test_a_masked_model(attempt, small_lm):
    words = {"bad": "terrible", "good": "great"}
    template = "{text} All in all it was {mask} ."
    result = attempt("calibration", small_lm(), template, prompt={"labels": words}).result
    assert result["queries"]["train"] == 3
    assert result["tuned"]["loss"] != result["baseline"]["loss"]


def test_an_input_that_is_not_answered_is_left_out(attempt):
    box = CountingBox(toy_box(), nans=0.34, times=None, seed=2)
    prompt = RenderedPrompt("It was {label} .", LABELS[:2])
    answered = np.isfinite(box([prompt], FREE).scores[0]).all(axis=1)
    assert 0 < answered.sum() < 3
    tried = attempt("calibration", box, "It was {label} .")
    scores = toy_box()([prompt], np.array(FREE)[answered]).scores[0]
    np.testing.assert_allclose(np.exp(tried.learned["prior"]), np.exp(scores).mean(axis=0))
