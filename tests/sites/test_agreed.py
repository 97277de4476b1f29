"""What server and nodes must have alike, and what many machines cannot do."""

import json

import pytest

from fedbbpt.config import read
from fedbbpt.errors import ConfigError
from fedbbpt.post import invite, own_version, read_head
from fedbbpt.sites.agreed import agreed, apart, federated
from fedbbpt.sites.site import Site
from fedbbpt.testing.sites import Desk

CLASSES = {"data.classes": ["bad", "good"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "add data.classes"),
        ({**CLASSES, "method.name": "local-only", "method.base": "fedes"}, "in one process"),
        ({**CLASSES, "method.name": "centralised", "method.base": "fedes"}, "in one process"),
        ({**CLASSES, "prompt.vocabulary": "clients"}, "prompt.vocabulary"),
    ],
    ids=str,
)
def test_what_many_machines_cannot_do_is_refused(kit, tmp_path, change, said):
    with pytest.raises(ConfigError, match=said):
        federated(read(kit.write_config(tmp_path, change)))


def test_the_key_that_differs_is_named(kit, tmp_path):
    mine = agreed(federated(read(kit.write_config(tmp_path / "a", CLASSES))))
    assert apart(mine, json.loads(json.dumps(mine))) == ""
    for key, value in {"run.seed": 1, "rounds.max": 9, "prompt.template": "So {label}"}.items():
        theirs = kit.write_config(tmp_path / key, {**CLASSES, key: value})
        assert apart(mine, agreed(federated(read(theirs)))) == key


def declined(letter):
    return json.loads(letter["head"])["why"]


def test_a_node_names_both_versions_and_the_key_that_differs(world):
    w = world()
    site = Site.at(w.homes["ash"])
    other = invite(agreed(w.over))
    head = {**json.loads(other["head"]), "version": "9.9"}
    said = declined(site.answer({"head": json.dumps(head)}))
    assert "9.9" in said and own_version() in said
    changed = {**agreed(w.over), "run": {"seed": 5}}
    assert "run.seed" in declined(site.answer(invite(changed)))
    assert read_head(site.answer(other), "card")["client"] == "ash"


def test_a_node_holds_its_server_to_the_agreed_rounds_and_tells_nothing_of_its_faults(world):
    w = world({"rounds.max": 2})
    letters = []

    class Spy(Desk):
        def send(self, number, batch):
            letters.extend(batch.values())
            super().send(number, batch)

    w.there(Spy(w.homes, agreed(w.over)))
    heads = [(letter, json.loads(letter["head"])) for letter in letters]
    letter, head = next((x, h) for x, h in heads if h.get("phase") == "search")
    site = Site.at(w.homes["ash"])
    for change, said in (
        ({"round": 7}, "more rounds than were agreed"),
        ({"steps": 4}, "4 steps"),
        ({"seed": 3}, "seed is 3"),
        ({"phase": "../../x"}, "plain word"),
        ({"phase": "nothing", "round": 9}, "KeyError; the node's own log"),
    ):
        asked = {**letter, "head": json.dumps({**head, **change})}
        assert said in declined(site.answer(asked))
