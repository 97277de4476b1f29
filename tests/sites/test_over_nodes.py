"""The same federation in one process and over nodes: the same result, to the bit."""

import pytest

from fedbbpt import registry
from fedbbpt.testing.toys import ToyEncoder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method.name": "fedbpt"},
        {"method.name": "fedavg-bbt", "rounds.steps": 2},
        {"method.name": "fedlinear"},
        {"method.wire": "state"},
        {"method.name": "fed-bbpt-text"},
    ],
    ids=str,
)
def test_a_run_over_nodes_is_the_run_in_one_process(world, changes):
    w = world(changes)
    w.assert_same(w.here(), w.there(), within=1e-12)


@pytest.mark.parametrize("shields", [{}, {"mask": {}}], ids=["plain", "masked"])
def test_what_all_candidates_share_is_charged_once(world, monkeypatch, shields):
    make = registry.make

    def toy(group, *args, **kwargs):
        return ToyEncoder() if group == "boxes" else make(group, *args, **kwargs)

    monkeypatch.setattr(registry, "make", toy)
    w = world({"shields": shields, "budget.queries": 200})
    here, there = w.here(), w.there()
    kept = {k: v for k, v in there.result["queries"].items() if k not in ("paid", "cached")}
    assert {**here.result["queries"], **kept} == here.result["queries"]
    # Every node pays for what all share, and one process pays once.
    assert there.result["queries"]["paid"] > here.result["queries"]["paid"]
    assert there.result["tuned"] == pytest.approx(here.result["tuned"], abs=1e-6)
