"""Demonstrations: what stands where, what fits, who sees them, and that none of them leaves."""

import numpy as np
import pytest

from fedbbpt.baselines.in_context import InContext
from fedbbpt.engines import local
from fedbbpt.errors import ConfigError
from fedbbpt.parts import Client
from fedbbpt.testing.toys import ToyEncoder, toy_batch, toy_box
from fedbbpt.types import Batch, RenderedPrompt

TEXT, LABEL = "{text} All in all it was", "It was {label} ."
MASKED = "{text} All in all it was {mask} ."
WORDS = {"bad": "terrible", "good": "great"}
LM_LABELS = ("terrible", "great")


def client(texts, targets, name="ash"):
    batch = Batch(tuple(texts), np.array(targets))
    return Client(name, batch, batch, batch, lambda job, phase: None)


def prompted(start, owner, box, shots=1, seed=0):
    return InContext(shots).prompted(start, owner, seed, box)


def parted(prompt, start):
    """The demonstrations of a text-side prompt."""
    assert prompt.template.endswith(start.template)
    return prompt.template.removesuffix(start.template)


# --- what stands where ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        (TEXT, "a dull film All in all it was bad a fine story All in all it was good "),
        ("It was {mask} : {text}", "It was bad : a dull film It was good : a fine story "),
    ],
)
def test_on_the_text_side_filled_templates_stand_in_front(template, filled):
    start = RenderedPrompt(template, ("bad", "good"), "text")
    owner = client(["a dull film", "a fine story"], [0, 1])
    found = set()
    for seed in range(8):
        prompt, shown = prompted(start, owner, toy_box(), seed=seed)
        assert (prompt.labels, prompt.side, shown) == (start.labels, "text", 2)
        found.add(parted(prompt, start))
    # The order is drawn, so that not every client ends on the same class.
    assert filled in found and len(found) == 2


def test_on_the_label_side_each_label_is_followed_by_those_of_its_class():
    start = RenderedPrompt("It was {label} .", ("bad", "good", "odd"))
    owner = client(["a dull film", "a fine story"], [0, 1])
    prompt, shown = prompted(start, owner, ToyEncoder())
    assert (prompt.template, shown) == ("{label}", 2)
    assert prompt.labels == (
        "It was bad . a dull film",
        "It was good . a fine story",
        "It was odd .",
    )


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_shots_count_for_each_class(shots):
    batch = toy_batch(9, 3)  # three of each class
    start = RenderedPrompt(TEXT, ("bad", "good", "odd"), "text")
    prompt, shown = prompted(start, client(*batch), toy_box(), shots)
    assert shown == 3 * min(shots, 3) == sum(text in prompt.template for text in batch.inputs)


def test_numbers_count_for_the_nearer_pole():
    start = RenderedPrompt(LABEL, ("low", "high"))
    prompt, _ = prompted(start, client(["cold", "warm"], [0.2, 0.9]), ToyEncoder())
    assert prompt.labels == ("It was low . cold", "It was high . warm")


def test_draws_belong_to_seed_and_client():
    start = RenderedPrompt(TEXT, ("bad", "good"), "text")
    batch = toy_batch(24)

    def template(seed, name):
        return prompted(start, client(*batch, name=name), toy_box(), seed=seed)[0].template

    assert template(0, "ash") == template(0, "ash")
    assert len({template(0, "ash"), template(1, "ash"), template(0, "birch")}) == 3


@pytest.mark.parametrize("spelling", ["{mask}", "<mask>"])
def test_a_text_that_looks_like_a_place_of_the_template_is_not_shown(small_lm, spelling):
    box = small_lm()
    start = RenderedPrompt(f"{{text}} it was {spelling} .", LM_LABELS, "text")
    texts = ["the {mask} film", "a {text}", "a <mask> too", "dull"]
    prompt, shown = prompted(start, client(texts, [0, 0, 0, 0]), box, shots=4)
    assert shown == 1 + (spelling == "{mask}")
    assert "dull it was terrible . " in prompt.template
    if spelling == "<mask>":
        box.prepare(prompt)


# --- what fits -----------------------------------------------------------------------------------


def test_the_longest_are_left_out_and_room_stays_for_a_text(small_lm):
    box = small_lm(max_tokens=32)
    start = RenderedPrompt("{text} {mask}", LM_LABELS, "text")
    owner = client(["dull", "the film was rather weak, and its story boring"], [0, 1])
    room = len(box.vocabulary.tokenise(owner.train.inputs[1]))
    prompt, shown = prompted(start, owner, box)
    assert (prompt.template, shown) == ("dull terrible {text} {mask}", 1)
    box.prepare(prompt)
    used = len(box.vocabulary.tokenise(prompt.template.replace("{text}", ""))) + 3
    assert used + min(room, 16) <= 32
    assert prompted(start, owner, small_lm())[1] == 2


def test_a_label_text_stays_whole(minilm):
    long = "an unbelievably long and winding story " * 20
    start = RenderedPrompt(LABEL, ("bad", "good"))
    prompt, shown = prompted(start, client(["dull", long, long], [0, 0, 1]), minilm, shots=2)
    assert (prompt.labels, shown) == (("It was bad . dull", "It was good ."), 1)


def test_nothing_that_fits_is_said(attempt, small_lm):
    with pytest.raises(ConfigError, match="no client has a training example that fits"):
        attempt("in-context", small_lm(max_tokens=12), MASKED, prompt={"labels": WORDS})


def test_shots_of_zero_are_refused(attempt, tmp_path):
    with pytest.raises(ConfigError, match="in_context shots is 0; it must be at least 1"):
        attempt("in-context", toy_box(), TEXT, options={"shots": 0})
    assert not list(tmp_path.iterdir())


# --- whole runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [LABEL, TEXT])
@pytest.mark.parametrize("make", [ToyEncoder, toy_box])
def test_common_test_examples_are_scored_by_every_client(attempt, make, template):
    tried = attempt("in-context", make(), template, classes=3, sizes=(6, 8, 6))
    clients, test = tried.split.clients, tried.split.test["(test)"]
    assert tried.result["test_examples"] == test.size == 18
    assert set(tried.outcome.by_client) == set(clients) == {"ash", "birch", "cedar"}
    start = RenderedPrompt(
        template, ("bad", "good", "odd"), "text" if template == TEXT else "label"
    )
    accuracies, losses = [], []
    for name in clients:
        owner = Client(name, tried.split.train[name], test, test, lambda job, phase: None)
        prompt, _ = prompted(start, owner, make())
        scores = make()([prompt], test.inputs).scores[0]
        accuracies.append((scores.argmax(axis=1) == test.targets).mean())
        losses.append(-scores[np.arange(test.size), test.targets].mean())
        assert tried.outcome.by_client[name][1] == pytest.approx(accuracies[-1])
    assert len(set(losses)) == 3
    assert tried.result["tuned"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert tried.result["tuned"]["loss"] == pytest.approx(np.mean(losses))
    assert tried.result["queries"]["train"] == 0
    low, high = tried.result["gain_interval"]
    gain = tried.result["tuned"]["accuracy"] - tried.result["baseline"]["accuracy"]
    # Three clients on 18 examples are no 54 examples.
    assert low < gain < high and high - low > 2 * 1.96 * 0.05


def test_test_examples_of_a_site_are_scored_by_that_site(attempt):
    test = [("a dull film", "bad", "ash"), ("a fine one", "good", "birch"), ("fine", "good", "ash")]
    tried = attempt("in-context", toy_box(), TEXT, test=test)
    examples = {event["client"]: event["examples"] for event in tried.events("in_context")}
    assert examples == {"ash": 2, "birch": 1}
    assert tried.result["test_examples"] == 3


@pytest.mark.parametrize("template", [LABEL, TEXT])
def test_no_demonstration_leaves_its_client(attempt, monkeypatch, template):
    sent = []

    def watched(*args):
        sent.append(work(*args))
        return sent[-1]

    work = local.work
    monkeypatch.setattr(local, "work", watched)
    tried = attempt("in-context", toy_box(), template, options={"shots": 3})
    assert {update.client for update in sent} == {"ash", "birch"}
    for update in sent:
        for array in update.arrays.values():
            assert array.dtype.kind in "if" and array.size <= 6
    words = [text.encode() for batch in tried.split.train.values() for text in batch.inputs]
    for path in tried.outcome.path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [word for word in words if word in content], path
    # And the same numbers where clients work at the same time.
    again = attempt("in-context", toy_box(), template, options={"shots": 3}, engine={"threads": 2})
    assert {**again.result, "seconds": 0} == {**tried.result, "seconds": 0}


def test_a_masked_model(attempt, small_lm):
    train = [("dull", "bad", "ash"), ("great", "good", "ash"), ("odd, weak", "bad", "birch")]
    tried = attempt(
        "in-context",
        small_lm(),
        MASKED,
        train=train,
        prompt={"labels": WORDS},
        rounds={"holdout": 0.0},
    )
    assert np.isfinite(tried.result["tuned"]["loss"])
    assert tried.learned["shown"].tolist() == [2, 1]
