"""Nodes in this process, for tests of what crosses between machines.

A :class:`Desk` hands each letter to the node at once, in a site made anew as Flower's processes do,
and lets a test meddle with what comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedbbpt.post import Arrived, Letter
from fedbbpt.sites.site import Site

Meddle = Callable[[str, int, Letter, Letter], list[Arrived]]


def honest(client: str, number: int, letter: Letter, reply: Letter) -> list[Arrived]:
    """What a node says comes as it is."""
    return [Arrived(client, number, reply)]


class Desk:
    """A post whose nodes are here.

    Args:
        homes: of the nodes, by name.
        agreed: what they are asked to have alike.
        meddle: (client, number, letter, reply) -> what arrives for it; nothing for no reply.

    Attributes:
        away: nodes that are not connected.
        bytes: (to, from) the nodes, of all letters so far.
    """

    def __init__(
        self, homes: Mapping[str, Path], agreed: Mapping[str, Any], meddle: Meddle = honest
    ) -> None:
        self.homes, self.agreed, self.meddle = dict(homes), agreed, meddle
        self.names = frozenset(homes)
        self.away: set[str] = set()
        self.bytes = [0, 0]
        self._here: list[Arrived] = []

    def online(self) -> set[str]:
        """The nodes that are connected now."""
        return set(self.homes) - self.away

    def send(self, number: int, letters: Mapping[str, Letter]) -> None:
        """Hand letters out and take the replies."""
        for name, letter in letters.items():
            reply = Site.at(self.homes[name]).answer(dict(letter))
            for i, sent in enumerate((letter, reply)):
                self.bytes[i] += sum(len(part) for part in sent.values())
            self._here += self.meddle(name, number, letter, reply)

    def collect(self) -> list[Arrived]:
        """What has come since the last time."""
        here, self._here = self._here, []
        return here

    def pause(self) -> None:
        """Nothing else will happen."""

    def tell(self, notice: Mapping[str, Any]) -> None:
        """It is in the events."""
