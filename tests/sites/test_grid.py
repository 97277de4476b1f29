"""Letters over Flower's grid, which is a stand-in here."""

import json
from types import SimpleNamespace

import pytest

from fedbbpt.sites.grid import RECORD, GridPost


class Grid:
    """Nodes as ``{place: name}``; each is asked its name at most once while it is there."""

    def __init__(self, nodes):
        self.nodes, self.asked = nodes, []

    def get_node_ids(self):
        return list(self.nodes)

    def pull_messages(self, ids):
        return [self.reply(each) for each in ids]

    def reply(self, each):
        head = json.dumps({"kind": "name", "name": self.nodes[int(each)]})
        return SimpleNamespace(
            metadata=SimpleNamespace(reply_to_message_id=each),
            has_error=lambda: False,
            content={RECORD: {"head": head}},
        )


@pytest.fixture
def post(monkeypatch):
    monkeypatch.setattr(GridPost, "pause", lambda self: None)

    def push(self, letters):
        self._grid.asked += [place for place, _ in letters]
        return [str(place) for place, _ in letters]

    monkeypatch.setattr(GridPost, "_push", push)
    return lambda nodes: GridPost(Grid(nodes), None, {}, print)


def test_nodes_without_keys_are_asked_their_names_once(post):
    p = post({1: "ash", 2: "birch"})
    assert p.online() == p.online() == {"ash", "birch"} == p.names
    assert p._grid.asked == [1, 2]


def test_of_two_with_one_name_the_first_keeps_it_as_long_as_it_is_there(post):
    p = post({1: "ash"})
    p.online()
    p._grid.nodes[7] = "ash"
    assert p.online() == p.online() == {"ash"} and p._places == {"ash": 1}
    assert p._grid.asked == [1, 7]
    del p._grid.nodes[1]  # it was cut off, and the other is the same node, started again
    assert p.online() == {"ash"} and p._places == {"ash": 7}


def test_who_has_left_is_still_a_name_of_the_run(post):
    p = post({1: "ash", 2: "birch"})
    p.online()
    del p._grid.nodes[2]
    assert p.online() == {"ash"} and p.names == {"ash", "birch"}
