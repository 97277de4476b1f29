"""A search that ends early over nodes is the one that ends early in one process."""

import json

import pytest

from fedbbpt import registry
from fedbbpt.sites import node
from fedbbpt.sites.site import Site
from fedbbpt.testing.sites import Desk
from fedbbpt.testing.toys import ToyEncoder

RIGHT = {"bad": "broken cold dull", "good": "lovely warm bright"}
WRONG = dict(zip(RIGHT, [*RIGHT.values()][::-1], strict=True))
SURE = {"stop.when": "sure", "rounds.max": 5, "budget.queries": 100_000, "prompt.dim": 8}
ENDS = {
    "improved": {"prompt.labels": WRONG, "method.aggregator": {"name": "adam", "lr": 3.0}},
    "hopeless": {"prompt.labels": RIGHT, "method.aggregator": {"name": "adam", "lr": 30.0}},
}


@pytest.fixture
def toys(monkeypatch):
    make = registry.make

    def toy(group, *args, **kwargs):
        return ToyEncoder() if group == "boxes" else make(group, *args, **kwargs)

    monkeypatch.setattr(registry, "make", toy)


@pytest.mark.parametrize(
    ("why", "shields"),
    [("improved", {}), ("improved", {"mask": {}}), ("hopeless", {})],
    ids=["improved", "masked", "hopeless"],
)
def test_it_ends_at_the_same_look(world, kit, toys, why, shields):
    w = world({**SURE, **ENDS[why], "shields": shields}, per_site=60)
    here, there = w.here(), w.there()
    assert here.result["stopped"] == there.result["stopped"] == why
    looks = [kit.events(run.path, "look") for run in (here, there)]
    assert looks[0][-1]["examples"] == 45
    for one, other in zip(*looks, strict=True):
        assert other == pytest.approx(one, abs=1e-6)
    assert there.result["rounds"] == here.result["rounds"] < 5
    assert there.result["tuned"] == pytest.approx(here.result["tuned"], abs=1e-6)
    assert there.result["queries"]["select"] == here.result["queries"]["select"]


def test_a_look_with_a_node_missing_is_of_fewer_examples(world, kit, toys):
    w = world({**SURE, **ENDS["hopeless"]}, per_site=60)
    desk, send = w.desk(), Desk.send

    def without_ash(number, letters):
        kept = {k: v for k, v in letters.items() if k != "ash" or not asks(v, "look")}
        send(desk, number, kept)

    desk.send = without_ash
    engine = w.over.engine.model_copy(update={"deadline": 0.05})
    w.over = w.over.model_copy(update={"engine": engine})
    run = w.there(desk)
    looks = kit.events(run.path, "look")
    assert run.result["stopped"] == "hopeless"
    assert {(look["clients"], look["examples"]) for look in looks} == {(2, 30)}
    late = [event["client"] for event in kit.events(run.path, "node") if event["what"] == "late"]
    assert {*late} == {"ash"}


def asks(letter, phase):
    return json.loads(letter["head"]).get("phase") == phase


def test_a_node_says_beforehand_that_it_will_be_asked(world, toys):
    said = node.statement_of(Site.at(world(SURE).homes["ash"]))
    assert "look: whether the newest prompt is surely better" in said
    assert "during the search, up to 4 times" in said
    assert "of 2 held-back examples, how many are answered better, and how many worse" in said
