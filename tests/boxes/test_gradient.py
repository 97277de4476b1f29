"""Gradients beside finite differences, coordinate by coordinate; torch forgets them at once."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.boxes._gradient import gather, numbered
from fedbbpt.errors import BoxError
from fedbbpt.prompts.soft import Soft
from fedbbpt.testing.toys import toy_box
from fedbbpt.types import RenderedPrompt

LABELS = ("terrible", "great", "odd")
EXAMPLES = ("a lovely story, and moving", "dull", "the film was rather weak", "dull", "")
TARGETS = np.array([1, 0, 0, 2, 1])


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    pytest.importorskip("transformers")
    spec = spec_from_file_location("models", Path(__file__).with_name("test_masked_lm.py"))
    models = module_from_spec(spec)
    spec.loader.exec_module(models)
    folder = models.make_model("roberta", tmp_path_factory.mktemp("roberta"))
    return models.load(folder, rows=2)


def prompt(box, template, side, mode, per_class):
    made = Soft(box.vocabulary, template, LABELS, side, mode, 2, "", 4, per_class)
    return made.render(np.random.default_rng(0).standard_normal((1, *made.space.shape)))[0]


def differences(box, start, places, step):
    """Slopes of the box's own mean cross-entropy at some places of the soft prompt."""
    rows, found = np.arange(len(EXAMPLES)), []
    for c, t, h in places:
        losses = []
        for sign in (1, -1):
            soft = np.array(start.soft, np.float32)
            soft[c, t, h] += np.float32(sign * step)
            moved = RenderedPrompt(
                start.template, start.labels, start.side, tuple(soft), start.mode
            )
            losses.append(-box([moved], EXAMPLES).scores[0, rows, TARGETS].mean())
        found.append((losses[0] - losses[1]) / (2 * step))
    return np.array(found)


def steepest(slope, count=8):
    """Where float32 rows tell a difference from their rounding."""
    flat = np.argsort(-np.abs(slope), axis=None)[:count]
    return np.stack(np.unravel_index(flat, slope.shape), axis=1)


@pytest.mark.parametrize("mode", ["add", "insert"])
@pytest.mark.parametrize(
    "template", ["{text} All in all it was {mask} .", "It was {mask} : {text}"]
)
def test_a_masked_model(masked, template, mode):
    start = prompt(masked, template, "text", mode, False)
    loss, slope = masked.gradient(start, EXAMPLES, TARGETS)
    scores = masked([start], EXAMPLES).scores[0]
    assert loss == pytest.approx(-scores[np.arange(5), TARGETS].mean(), abs=1e-5)
    assert slope.shape == (1, *start.soft[0].shape) and slope.dtype == np.float64
    places = steepest(slope)
    want = differences(masked, start, places, 5e-3)
    np.testing.assert_allclose(slope[tuple(places.T)], want, rtol=0.02)


@pytest.mark.parametrize(
    ("template", "side", "mode", "per_class"),
    [
        ("It was {label}.", "label", "add", False),
        ("It was {label}.", "label", "add", True),
        ("It was {label}.", "label", "insert", True),
        ("{text} All in all it was", "text", "add", False),
        ("{text} All in all it was", "text", "insert", False),
    ],
)
def test_a_sentence_encoder(minilm, template, side, mode, per_class):
    start = prompt(minilm, template, side, mode, per_class)
    loss, slope = minilm.gradient(start, EXAMPLES, TARGETS)
    scores = minilm([start], EXAMPLES).scores[0]
    assert loss == pytest.approx(-scores[np.arange(5), TARGETS].mean(), abs=1e-6)
    assert slope.shape == (3 if per_class else 1, *start.soft[0].shape)
    places = steepest(slope)
    want = differences(minilm, start, places, 2e-3)
    np.testing.assert_allclose(slope[tuple(places.T)], want, rtol=0.05)


def test_torch_keeps_no_gradients(masked, minilm):
    torch = pytest.importorskip("torch")
    for box, model, template, side in (
        (masked, masked.network, "{text} {mask} .", "text"),
        (minilm, minilm.encoder, "It was {label}.", "label"),
    ):
        start = prompt(box, template, side, "add", False)
        before = box([start], EXAMPLES).scores
        grad = torch.is_grad_enabled()
        box.gradient(start, EXAMPLES, TARGETS)
        assert torch.is_grad_enabled() == grad
        assert all(p.grad is None and not p.requires_grad for p in model.network.parameters())
        seen = []

        def look(module, given, output, seen=seen):
            seen.append(output[0].requires_grad)

        hook = model.network.register_forward_hook(look)
        # Examples that no cache knows.
        box([start], ["another text"]) if side == "text" else box([start], ())
        hook.remove()
        assert seen == [False]
        np.testing.assert_array_equal(box([start], EXAMPLES).scores, before)


def test_other_boxes_have_none():
    with pytest.raises(BoxError, match="function:toy gives no gradients"):
        toy_box().gradient(RenderedPrompt("{label}", LABELS), EXAMPLES, TARGETS)


def test_a_vector_that_stands_in_several_places_gets_the_sum():
    start = RenderedPrompt("{label}", LABELS, soft=(np.zeros((3, 2), np.float32),))
    number = numbered(start).soft[0]
    slope, gradient = np.arange(8.0).reshape(4, 2), np.zeros((3, 2))
    gather(gradient, slope, (np.arange(4), np.array([0, 1, 3]), number[[2, 0, 2]]))
    np.testing.assert_array_equal(gradient, [slope[1], [0, 0], slope[0] + slope[3]])
