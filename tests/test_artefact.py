"""What is written of a prompt is read back as the same prompt."""

import json

import numpy as np
import pytest

from fedbbpt.artefact import ARRAYS, META, Tuned, load, save
from fedbbpt.boxes.function import Function
from fedbbpt.finished import Prediction, Predictor
from fedbbpt.prompts.visual import Visual
from fedbbpt.tasks.generate import Generate
from fedbbpt.types import Picture, RenderedPrompt


class Eye:
    """How a box without a model sees."""

    size, std = (12, 16), (0.2, 0.2, 0.2)


SOFT = tuple(np.full((2, 3), i, np.float32) for i in range(2))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tokens": ((3, 1),), "place": "after"},
        {"tokens": ((), (7, 7))},
        {"soft": SOFT, "mode": "insert"},
        {"side": "text", "template": "{text} It was", "soft": SOFT[:1]},
        {"side": "text", "template": "Write the plural.\n\nInput: {text}\n", "labels": ()},
    ],
)
def test_there_and_back(tmp_path, changes):
    prompt = RenderedPrompt(**{"template": "It was {label}", "labels": ("bad", "good")} | changes)
    save(tmp_path, prompt, np.zeros(3), {"text": ["so"]})
    again, meta = load(tmp_path)
    assert again.keys == prompt.keys
    assert (again.labels, again.side, again.kind) == (prompt.labels, prompt.side, prompt.kind)
    assert (again.tokens, again.place) == (prompt.tokens, prompt.place)
    assert meta["text"] == ["so"] == json.loads((tmp_path / META).read_text())["text"]


def test_what_was_said_is_the_prediction():
    box = Function(lambda _, x: [[{"cat": "cats", "mouse": ""}.get(t) for t in x]], gives=["text"])
    prompt = RenderedPrompt("Write the plural.\n{text}", (), "text")
    # An empty answer is one, and no answer is none.
    assert Tuned(box, prompt, ()).predict(["cat", "mouse", "sheep"]) == ["cats", "", None]
    found = Predictor(Tuned(box, prompt, ()), Generate(), None)(["sheep", "cat"])
    assert found == [Prediction(None, None), Prediction("cats", None)]


@pytest.mark.parametrize("form", ["look", "patch", "frame", "coordinator"])
@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_done_to_pictures_is_done_again(tmp_path, form, mapped):
    pytest.importorskip("torch" if form == "coordinator" else "PIL")
    numbers = np.random.default_rng(0)
    mapping = numbers.normal(size=(2, 7)).astype(np.float32) if mapped else None
    made = Visual(Eye(), "", ("bad", "good"), form=form, width=3, mapping=mapping)
    point = numbers.normal(size=made.space.shape)
    (prompt,) = made.render(point[None])
    save(tmp_path, prompt, point, {})
    again, meta = load(tmp_path)
    assert again.keys == prompt.keys and (again.kind, again.side) == ("image", "image")
    assert meta["parameters"] == point.size and meta["visual"]["prompt"] == "visual"
    assert meta["bytes"] == (tmp_path / ARRAYS).stat().st_size
    images = numbers.uniform(size=(2, *Eye.size, 3)).astype(np.float32)
    pictures = [Picture(numbers.integers(0, 256, (9, 9, 3), np.uint8)) for _ in range(2)]
    seen = again.visual.on(images.copy(), pictures)
    np.testing.assert_array_equal(seen, prompt.visual.on(images.copy(), pictures))
    assert np.abs(seen - images).max() > 1e-3
    assert (again.mapping is None) != mapped
    if mapped:
        np.testing.assert_array_equal(again.mapping, mapping)
    # The start of a visual prompt does nothing to pictures, before and after.
    (start,) = made.render(np.zeros((1, *made.space.shape)))
    save(tmp_path, start, point, {})
    assert load(tmp_path)[0].visual is None
