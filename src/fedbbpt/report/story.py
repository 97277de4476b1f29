"""What a run directory tells, whatever of it is there: finished, cut off, or an old one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Arrays
from fedbbpt.artefact import META
from fedbbpt.errors import ConfigError, RunDirError
from fedbbpt.maths.answers import MeanScore
from fedbbpt.maths.metrics import F1, Accuracy, Matthews, Metric, Spearman
from fedbbpt.rundir import CANDIDATES, CLIENTS, CONFIG, EVENTS, LEDGER, MARK, RESULT, RunDir
from fedbbpt.sharing import TESTER
from fedbbpt.trees import Tree, parse

SCHEMA = 1
"""Of result.json."""
OWN = (F1(), Matthews())
"""Metrics of which the fields that clients tell do not say which it is."""


@dataclass(frozen=True)
class Fared:
    """How one client fared.

    Attributes:
        before, after: the metric, or the held-back loss.
        ends: 95 % interval of what was gained, where it is known.
        examples: behind it.
    """

    client: str
    before: float
    after: float
    ends: tuple[float, float] | None
    examples: int

    @property
    def gain(self) -> float:
        """Of the metric."""
        return self.after - self.before


@dataclass(frozen=True)
class Story:
    """One run.

    Attributes:
        path: its directory.
        config: as resolved, in nested dicts.
        result: the content of result.json, or nothing.
        events: as far as they are whole.
        prompt: the content of prompt.json, or nothing.
        candidates: instructions that were tried, the best first.
        made: the content of state/run.json, or nothing.
        each: the runs of the clients, where each worked for itself.
    """

    path: Path
    config: Tree
    result: Tree = field(default_factory=dict)
    events: tuple[Tree, ...] = ()
    prompt: Tree = field(default_factory=dict)
    candidates: tuple[Tree, ...] = ()
    made: Tree = field(default_factory=dict)
    each: tuple[Story, ...] = ()

    def told(self, kind: str, **wanted: Any) -> list[Tree]:
        """Events of a kind with these facts."""
        of_kind = self._by_kind.get(kind, ())
        return [e for e in of_kind if all(e.get(k) == v for k, v in wanted.items())]

    @cached_property
    def _by_kind(self) -> dict[str, list[Tree]]:
        """A large run has a hundred thousand events, nearly all of one kind."""
        found: dict[str, list[Tree]] = {}
        for event in self.events:
            found.setdefault(event["event"], []).append(event)
        return found

    @property
    def method(self) -> str:
        """Its name in the config."""
        return str(self.config.get("method", {}).get("name", "?"))

    @property
    def metric(self) -> str:
        """Its name in result.json."""
        return str(self.result.get("metric", "score"))

    @property
    def scores(self) -> tuple[float, float] | None:
        """The metric before and after, if there were test examples."""
        if not self.result.get("test_examples"):
            return None
        both = (self.result[which].get(self.metric) for which in ("baseline", "tuned"))
        before, after = both
        return None if before is None or after is None else (float(before), float(after))

    @property
    def gain(self) -> tuple[float, float]:
        """Interval of what was gained."""
        low, high = self.result["gain_interval"]
        return float(low or 0.0), float(high or 0.0)

    @cached_property
    def snapshots(self) -> list[Tree]:
        """In the order in which they were taken; the starting prompt first."""
        return self.told("snapshot")

    @property
    def chosen(self) -> int:
        """Place of the chosen snapshot among all."""
        places = [i for i, one in enumerate(self.snapshots) if one["chosen"]]
        return places[0] if places else 0

    @cached_property
    def merges(self) -> list[Tree]:
        """Of the search's rounds."""
        return self.told("merge", phase="search")

    @cached_property
    def fared(self) -> list[Fared]:
        """What clients with test examples of their own gained, the most first."""
        if self.each:
            found = [_alone(one) for one in self.each if one.scores]
        else:
            which = self.chosen if self.snapshots else 1
            found = [
                _tested(event, which, self.metric)
                for event in self.events
                if event.get("examples")
                and event["event"] != "select"
                and event.get("client") != TESTER
            ]
        known = [one for one in found if one is not None]
        return sorted(known, key=lambda one: (-one.gain, one.client))

    @cached_property
    def held(self) -> list[Fared]:
        """The held-back losses of clients with the first and the chosen prompt."""
        return [
            Fared(e["client"], e["losses"][0], e["losses"][self.chosen], None, e["examples"])
            for e in self.told("select")
            if e["examples"] and len(e.get("losses", ())) > self.chosen
        ]

    @cached_property
    def dollars(self) -> dict[int, float] | None:
        """By round what its requests cost; ``None`` where no price is known."""
        if self.result.get("cost_usd") is None or "run" not in self.made:
            return None
        named = self.config.get("run", {}).get("ledger") or self.path / LEDGER
        asked = "SELECT round, sum(usd) FROM requests WHERE run = ? GROUP BY round"
        try:
            db = sqlite3.connect(f"{Path(named).absolute().as_uri()}?mode=ro", uri=True)
            try:
                return dict(db.execute(asked, (self.made["run"],)).fetchall())
            finally:
                db.close()
        except sqlite3.Error:
            return None


def _alone(story: Story) -> Fared | None:
    assert story.scores is not None
    before, after = story.scores
    name = str(story.config.get("partition", {}).get("only") or story.path.name)
    low, high = story.gain
    ends = None if low == high else (low, high)  # of the starting prompt itself
    return Fared(name, before, after, ends, int(story.result["test_examples"]))


def _tested(event: Mapping[str, Any], which: int, name: str) -> Fared | None:
    """One client's test scores; nothing where what it told is not to be read by itself."""
    told: Arrays = {
        key: np.asarray(value, np.float64)
        for key, value in event.items()
        if isinstance(value, list)
    }
    metric = _metric(told, name)
    if metric is None or len(told.get("losses", ())) <= which:
        return None
    score, examples = metric.value(told), int(event["examples"])
    low, high = metric.interval(told, which, examples)
    ends = (low, high) if which else None
    return Fared(event["client"], float(score[0]), float(score[which]), ends, examples)


def _metric(told: Arrays, name: str) -> Metric | None:
    """The metric whose fields these are."""
    if "joint" in told:
        return next((one for one in OWN if one.name == name), None)
    known = (Accuracy(), Spearman(), MeanScore("exact"))
    return next((one for one in known if set(one.sends) <= told.keys()), None)


def read_story(path: Path) -> Story:
    """What a run has left in its directory.

    Raises:
        RunDirError: there is no run, or its config cannot be read.
    """
    if not path.is_dir():
        raise RunDirError(f"there is no directory {path}; name one that a run has written")
    if not (path / CONFIG).is_file() or not is_run(path):
        raise RunDirError(f"{path} holds no run; name a directory that a run has written")
    try:
        config = parse(path / CONFIG)
    except ConfigError as error:
        raise RunDirError(str(error)) from None
    folder, result = RunDir(path, ""), _json(path / RESULT)
    if result and result.get("schema") != SCHEMA:
        raise RunDirError(
            f"{path / RESULT} has the schema {result.get('schema')}; this version reads {SCHEMA}"
        )
    shown = _json(folder.prompt / CANDIDATES).get("candidates", ())
    own = (path / CLIENTS).is_dir() and not (path / EVENTS).is_file()
    return Story(
        path,
        config,
        result,
        _events(path / EVENTS),
        _json(folder.prompt / META),
        tuple(shown),
        _json(folder.state / MARK),
        tuple(read_story(one) for one in sorted((path / CLIENTS).iterdir()) if is_run(one))
        if own
        else (),
    )


def data_name(config: Tree) -> str:
    """What the data of a run may be called: the set, else the training file."""
    data = config.get("data", {})
    parts = str(data.get("train") or "").replace("\\", "/").rstrip("/").split("/")
    # Of images it is a folder, which is called as it is in every set.
    file = "/".join(parts[-2:]) if "." not in parts[-1] else parts[-1]
    return str(data.get("set") or file)


def is_run(path: Path) -> bool:
    """Whether a run was begun in a directory."""
    marks = (path / RESULT, path / EVENTS, path / "state" / MARK)
    return (path / CONFIG).is_file() and any(mark.is_file() for mark in marks)


def _json(path: Path) -> Tree:
    """A JSON object; nothing where there is none that is whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _events(path: Path) -> tuple[Tree, ...]:
    """All lines; a run that is going on or was killed may have left half of the last."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            break
        if isinstance(event, dict) and "event" in event:
            found.append(event)
    return tuple(found)
