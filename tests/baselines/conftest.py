"""What the tests of baselines share: boxes, few examples, and a run that takes them as they are."""

import json
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt import api
from fedbbpt.arrays import decode
from fedbbpt.config import resolve
from fedbbpt.data.load import Table
from fedbbpt.outcome import Outcome
from fedbbpt.sharing import Split, share_out
from fedbbpt.testing.toys import ToyEncoder, toy_batch

CLASSES = ("bad", "good", "odd")


class Slopes(ToyEncoder):
    """The toy encoder with gradients, by central differences of its own scores."""

    gives = ToyEncoder.gives | {"gradients"}

    def gradient(self, prompt, examples, targets):
        soft = np.array(prompt.soft, np.float64)
        rows = np.arange(len(examples))

        def loss(moved):
            prompts = [replace(prompt, soft=tuple(moved))]
            return -self(prompts, examples).scores[0, rows, targets].mean()

        slope, h = np.zeros_like(soft), 1e-5
        for place in np.ndindex(soft.shape):
            step = np.zeros_like(soft)
            step[place] = h
            slope[place] = (loss(soft + step) - loss(soft - step)) / (2 * h)
        return loss(soft), slope


@pytest.fixture(scope="session")
def slopes():
    """A box with gradients that needs no network."""
    return Slopes


def pairs(size, classes=2, seed=0):
    """(text, label) of the toy examples."""
    batch = toy_batch(size, classes, seed)
    return [(text, CLASSES[c]) for text, c in zip(batch.inputs, batch.targets, strict=True)]


@dataclass
class Tried:
    """A finished run."""

    outcome: Outcome
    split: Split

    @property
    def result(self):
        return self.outcome.result

    def events(self, kind):
        lines = (self.outcome.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    @property
    def learned(self):
        return decode((self.outcome.path / "prompt" / "prompt.safetensors").read_bytes())


@pytest.fixture
def attempt(tmp_path):
    """Run a preset over two or three sites, on toy examples or on rows (text, label, site);
    ``options`` are the baseline's own.
    """

    def call(method, box, template, *, classes=2, sizes=(6, 8), train=None, test=None, **changes):
        sites = dict(zip(("ash", "birch", "cedar"), sizes, strict=False))
        rows = [
            (*pair, site)
            for seed, (site, size) in enumerate(sites.items())
            for pair in pairs(size, classes, seed)
        ]
        rows = rows if train is None else train
        test = [(*pair, "") for pair in pairs(6 * classes, classes, 9)] if test is None else test
        tree = {
            "data": {"train": ""},
            "prompt": {"template": template, "side": "text" if "{text}" in template else "label"},
            "method": {"name": method, "baseline": changes.pop("options", {})},
        }
        for section, content in changes.items():
            table = isinstance(content, dict)
            tree[section] = {**tree.get(section, {}), **content} if table else content
        config = resolve(tree, tmp_path)
        out = tmp_path / f"{method} {len(list(tmp_path.iterdir()))}"
        split = share_out(config, _table(rows), _table(test) if test else None)
        return Tried(api.run(config, out, box=box, split=split), split)

    return call


def _table(rows):
    texts, labels, sites = zip(*rows, strict=True)
    return Table(texts, labels, sites if any(sites) else None)


@pytest.fixture(scope="session")
def small_lm(tmp_path_factory):
    """(max_tokens) -> the small random masked model of that box's own tests, found by path."""
    pytest.importorskip("transformers")
    path = Path(__file__).parents[1] / "boxes" / "test_masked_lm.py"
    spec = spec_from_file_location("masked_lm_models", path)
    models = module_from_spec(spec)
    spec.loader.exec_module(models)
    folder = models.make_model("roberta", tmp_path_factory.mktemp("models"))
    return lambda max_tokens=models.LONGEST: models.load(folder, max_tokens=max_tokens)
