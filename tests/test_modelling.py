"""Clients that learn from scores: what is remembered, what is paid, what is refused."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import fedbbpt
from fedbbpt import modelling, registry
from fedbbpt.errors import Incompatible
from fedbbpt.testing.toys import ToyEncoder


def load_kit():
    path = Path(__file__).parent / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load_kit()
OWN = {"method.name": "fedlinear", "budget.queries": 600, "rounds.max": 8}


@pytest.fixture
def encoder(monkeypatch):
    make = registry.make

    def toy(group, *args, **kwargs):
        return ToyEncoder() if group == "boxes" else make(group, *args, **kwargs)

    monkeypatch.setattr(registry, "make", toy)


def tuned(folder, changes, name="run"):
    return fedbbpt.run(kit.write_config(folder, {**OWN, **changes}), folder / name)


def rounds(run):
    lines = map(json.loads, (run.path / "events.jsonl").read_text("utf-8").splitlines())
    return [event["loss"] for event in lines if event["event"] == "merge"]


def test_a_client_that_forgets_pays_nothing_and_learns_the_same(tmp_path, encoder, monkeypatch):
    one = tuned(tmp_path, {}, "one")
    monkeypatch.setattr(modelling, "REMEMBERED", 0)
    other = tuned(tmp_path, {}, "other")
    assert one.result["queries"] == {**other.result["queries"], **same(one, other)}
    np.testing.assert_allclose(rounds(other), rounds(one), rtol=1e-12)


def same(one, other):
    """Rows that the ledger answered are more where a client asks again; the budget's are not."""
    assert other.result["queries"]["cached"] >= one.result["queries"]["cached"]
    return {"cached": one.result["queries"]["cached"]}


def test_rounds_share_the_budget_out(tmp_path, encoder):
    spent = tuned(tmp_path, {}).result
    assert spent["rounds"] in (7, 8) and 500 < spent["queries"]["train"] <= 600


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method.wire": "replay"}, "set method.wire = 'state'"),
        ({"method.loss": "hinge"}, "leave method.loss"),
        ({"rounds.batch": 2}, "leave rounds.batch away"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, encoder, changes, words):
    with pytest.raises(Incompatible, match=words):
        tuned(tmp_path, changes)
