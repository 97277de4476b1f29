"""The same federation in one process and over nodes: the same result, to the bit."""

import pytest


def comparable(result):
    """Without times; where the test is read in one place its mean is added up in another order."""
    kept = {k: v for k, v in result.items() if k != "seconds"}
    for name in ("baseline", "tuned"):
        kept[name] = pytest.approx(kept[name], abs=1e-12)
    return kept


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method.name": "fedbpt"},
        {"method.name": "fedavg-bbt", "rounds.steps": 2},
        {"method.wire": "state"},
        {"method.name": "fed-bbpt-text"},
    ],
    ids=str,
)
def test_a_run_over_nodes_is_the_run_in_one_process(world, changes):
    w = world(changes)
    here, there = w.here(), w.there()
    kept = {k: v for k, v in there.result.items() if k != "seconds"}
    assert kept == comparable(here.result)
