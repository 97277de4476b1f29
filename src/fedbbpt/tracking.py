"""What a tracker is: somebody outside who keeps the numbers of many runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Tracker(ABC):
    """Options, and what is told of one run: its beginning, every round, its end.

    One that fails is left out with a warning and never stops a run. It is told numbers and options
    and given files; no example, no key and no reply of a model is among them.
    """

    def ready(self) -> None:  # noqa: B027 - some need nothing
        """Raise a MissingExtra if a library is lacking; asked before anything is paid."""

    @abstractmethod
    def begin(self, run: str, folder: Path, config: Mapping[str, Any]) -> None:
        """A run begins, or goes on after a stop.

        Args:
            run: its id, the same when it is resumed.
            folder: its directory.
            config: as resolved, in nested dicts.
        """

    @abstractmethod
    def log(self, step: int, facts: Mapping[str, float]) -> None:
        """One round is over.

        Args:
            step: its number, from 0.
            facts: finite numbers: ``queries`` charged and ``bytes`` sent so far; ``seconds`` and
                ``box_seconds`` of the round, ``clients`` in it, and their mean ``loss`` where it
                is known.
        """

    @abstractmethod
    def end(self, result: Mapping[str, Any], files: Sequence[Path]) -> None:
        """The run is over.

        Args:
            result: the content of ``result.json``; empty where the run did not get that far.
            files: files and folders to keep with it.
        """


def flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A tree as one level of dotted keys; lists stay as they are."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{above}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """All numbers of ``result.json`` by dotted key; an interval has ``.low`` and ``.high``."""
    found = flat(result)
    low, high = found.pop("gain_interval", (None, None))
    found |= {"gain_interval.low": low, "gain_interval.high": high}
    return {
        key: float(value)
        for key, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key != "schema"
    }
