"""What is written of a prompt is read back as the same prompt."""

import json

import numpy as np
import pytest

from fedbbpt.artefact import META, load, save
from fedbbpt.types import RenderedPrompt

SOFT = tuple(np.full((2, 3), i, np.float32) for i in range(2))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tokens": ((3, 1),), "place": "after"},
        {"tokens": ((), (7, 7))},
        {"soft": SOFT, "mode": "insert"},
        {"side": "text", "template": "{text} It was", "soft": SOFT[:1]},
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
