"""Letters over Flower's grid: the :class:`fedbbpt.post.Post` of a server app."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from fedbbpt.post import Arrived, Letter

POLL = 0.5
"""Seconds between two looks for replies: short beside the 6 to 10 that a round takes Flower."""
RECORD = "letter"


class GridPost:
    """Nodes by the names under which their keys were registered.

    Without keys, which is for trying things on one machine, a node is asked its name.

    Args:
        grid: of the server app.
        names: that were registered; ``None`` where nodes have no keys.
        agreed: what nodes are asked to have alike.
        tell: takes what happened to a node.
    """

    def __init__(
        self,
        grid: Any,
        names: frozenset[str] | None,
        agreed: Mapping[str, Any],
        tell: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._grid, self._keys, self.agreed, self.tell = grid, names is not None, agreed, tell
        self.names = names or frozenset()
        self._places: dict[str, int] = {}
        self._told: dict[int, str] = {}
        self._written: dict[str, tuple[str, int]] = {}

    def online(self) -> set[str]:
        """The nodes that are connected now."""
        if self._keys:
            nodes = self._grid.get_nodes()
            self._places = {node.name: node.node_id for node in nodes if node.name in self.names}
        else:
            here = list(self._grid.get_node_ids())  # NVFlare's flwr has no get_nodes
            self._ask_names(here)
            self._told = {place: name for place, name in self._told.items() if place in here}
            self._places = {}
            for place, name in self._told.items():
                self._places.setdefault(name, place)  # of two with one name the first keeps it
            self.names |= self._places.keys()
        return set(self._places)

    def send(self, number: int, letters: Mapping[str, Letter]) -> None:
        """Write to nodes that :meth:`online` has just named."""
        order = list(letters)
        sent = self._push([(self._places[name], letters[name]) for name in order])
        for name, message in zip(order, sent, strict=True):
            self._written[message] = (name, number)

    def collect(self) -> list[Arrived]:
        """What has come since the last time."""
        found = []
        for message in self._grid.pull_messages(list(self._written)) if self._written else ():
            name, number = self._written.pop(message.metadata.reply_to_message_id)
            if message.has_error():
                found.append(Arrived(name, number, None, _reason(message.error)))
            else:
                found.append(Arrived(name, number, _letter(message)))
        return found

    def pause(self) -> None:
        """Wait a moment."""
        time.sleep(POLL)

    def _push(self, letters: list[tuple[int, Letter]]) -> list[str]:
        from flwr.app import ConfigRecord, Message, MessageType, RecordDict

        messages = [
            Message(
                RecordDict({RECORD: ConfigRecord(dict(letter))}),
                dst_node_id=place,
                message_type=MessageType.QUERY,
            )
            for place, letter in letters
        ]
        return list(self._grid.push_messages(messages))

    def _ask_names(self, places: list[int]) -> None:
        """Wait for the names of nodes that came."""
        fresh = [place for place in places if place not in self._told]
        if not fresh:
            return
        question: Letter = {"head": json.dumps({"kind": "name"})}
        waiting = dict(zip(self._push([(p, question) for p in fresh]), fresh, strict=True))
        end = time.monotonic() + 60
        while waiting and time.monotonic() < end:
            for message in self._grid.pull_messages(list(waiting)):
                place = waiting.pop(message.metadata.reply_to_message_id)
                name = "" if message.has_error() else _name(_letter(message))
                if name:
                    self._told[place] = name
            self.pause()


def _letter(message: Any) -> Letter:
    try:
        return dict(message.content[RECORD])
    except (KeyError, TypeError, ValueError):
        return {}


def _name(letter: Letter) -> str:
    try:
        return str(json.loads(letter["head"])["name"])
    except (KeyError, TypeError, ValueError):
        return ""


def _reason(error: Any) -> str:
    said = str(error.reason or "").strip().splitlines()
    return f"Flower's error {error.code}" + (f": {said[0][:200]}" if said else "")
