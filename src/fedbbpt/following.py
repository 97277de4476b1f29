"""Trackers on a run's heels: told what it records, and left out with a warning when they fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fedbbpt import registry
from fedbbpt.config import Config
from fedbbpt.errors import UnknownPart, closest
from fedbbpt.report.pages import PAGE
from fedbbpt.rundir import RESULT, RunDir
from fedbbpt.runner import Progress
from fedbbpt.tracking import Tracker

FACTS = ("loss", "queries", "bytes", "seconds", "box_seconds", "clients", "agreement")
"""What trackers are told of a round, of the event of its merge."""


class Following:
    """The trackers of one run, from before its first query until it is over, however it ends.

    Args:
        config: names them.

    Raises:
        UsageError: there is no such tracker, an option is wrong, or a library is lacking.
    """

    def __init__(self, config: Config) -> None:
        tables, known = config.trackers.options, registry.names("trackers")
        for name in tables:
            if name not in known:
                raise UnknownPart(f"there is no tracker '{name}'; {closest(name, known)}")
        self._config, self.warnings = config, list[str]()
        self._trackers: dict[str, Tracker] = {
            name: registry.make("trackers", name, tables.get(name, {}), f"trackers.{name}")
            for name in config.run.trackers
        }
        for tracker in self._trackers.values():
            tracker.ready()
        self._begun: set[str] = set()

    def __enter__(self) -> Following:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """What was not ended is ended without a result."""
        self._each(lambda tracker: tracker.end({}, ()), self._begun)

    def begin(self, directory: RunDir) -> RunDir:
        """The run has its directory."""
        names = [*self._trackers]
        config = self._config.tree()
        self._begun |= {*names}
        self._each(lambda tracker: tracker.begin(directory.run, directory.path, config), names)
        return directory

    def listening(self, progress: Progress) -> Progress:
        """The same progress, heard by the trackers as well."""
        if not self._trackers:
            return progress

        def told(event: str, facts: dict[str, Any]) -> None:
            progress(event, facts)
            if event == "round":
                known = {key: facts.get(key) for key in FACTS}
                seen = {k: float(v) for k, v in known.items() if v is not None and math.isfinite(v)}
                self._each(lambda tracker: tracker.log(facts["round"], seen), self._begun)

        return told

    def end(self, result: dict[str, Any], path: Path) -> None:
        """The run is over; the result, the prompt and the page are worth keeping."""
        wanted = (path / RESULT, path / PAGE, RunDir(path, "").prompt)
        files = [file for file in wanted if file.exists()]
        self._each(lambda tracker: tracker.end(result, files), self._begun)
        self._begun.clear()

    def _each(self, tell: Callable[[Tracker], None], names: Sequence[str] | set[str]) -> None:
        for name in sorted(names):
            try:
                tell(self._trackers[name])
            except Exception as error:  # whatever it is, the run is worth more
                self._begun.discard(name)
                said = " ".join(str(error).split())[:200]
                self.warnings.append(
                    f"the tracker {name} failed and is left out ({type(error).__name__}: {said})"
                )
