import numpy as np
import pytest

from fedbbpt import artefact
from fedbbpt.config import resolve
from fedbbpt.finished import open_run
from fedbbpt.record import write_json
from fedbbpt.rundir import CONFIG, RESULT


@pytest.fixture
def ended(tmp_path):
    """A finished run as its directory tells of it, without the search."""

    def make(box, prompt, words=(), classes=("bad", "good")):
        path = tmp_path / "run"
        path.mkdir(exist_ok=True)
        tree = {
            "data": {"train": "train.csv"},
            "box": box,
            "prompt": {"template": prompt.template, "side": prompt.side},
        }
        (path / CONFIG).write_text(resolve(tree, path).toml(), encoding="utf-8")
        facts = {"text": list(words), "classes": list(classes), "box": "tuned"}
        artefact.save(path / "prompt", prompt, np.zeros(1), facts)
        write_json(path / RESULT, {"schema": 1})
        return open_run(path)

    return make
