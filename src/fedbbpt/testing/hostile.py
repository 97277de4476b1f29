"""Clients that lie, for trying out what a server lets in and what a merge bears.

::

    with infiltrated({"client 3": "nan", "client 7": "flip"}):
        fedbbpt.run("my.toml", "out")

What a client sends is spoiled on its way up; it has worked and paid as an honest one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from fedbbpt import api
from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.post import Card
from fedbbpt.protocols import Engine, Prompt
from fedbbpt.types import Job, Update

SCALE = 1e6
"""Of ``"scale"``."""
PUSH = 10.0
"""Of ``"push"``."""


class Hostile(Engine):
    """An engine some of whose clients are hostile.

    Faults, all of which leave the other clients' updates as they are:

    ``"nan"``, ``"shape"``, ``"dtype"``: one field is all NaN, has a row more, is float32.
    ``"stale"``: what it sent to the last job of this phase; at first the honest update.
    ``"scale"``: every number times a million; ``"flip"``, ``"push"``: times -1 and -10. Of losses
    that is what is sent; of state fields that the server broadcasts, how far they are from there,
    so that a flipped client walks the other way. Counts stay, and so do sizes that would fall
    below zero, for these would be found out.
    ``"copy"``: another client's update under its own name.
    ``"forge"``: a flipped update under another client's name, beside that one's own.
    ``"twice"``: the same update twice. ``"change"``: a second, scaled one. ``"silent"``: none.

    Args:
        inner: carries the jobs.
        faults: by client.
        phases: in which they are hostile.
    """

    def __init__(
        self, inner: Engine, faults: Mapping[str, str], phases: Sequence[str] = ("search",)
    ) -> None:
        for fault in faults.values():
            if fault not in FAULTS:
                raise ConfigError(f"no fault is named '{fault}'; there are {', '.join(FAULTS)}")
        self.inner, self.faults, self.phases = inner, faults, phases
        self._last: dict[tuple[str, str], Update] = {}

    def prepare(self, job: Job) -> Job:
        """As the inner engine."""
        return self.inner.prepare(job)

    def begin(self, run: str) -> None:
        """As the inner engine."""
        self.inner.begin(run)

    def enrol(self) -> list[Card]:
        """As the inner engine."""
        return self.inner.enrol()

    def notices(self) -> list[dict[str, Any]]:
        """As the inner engine."""
        return self.inner.notices()

    def adopt(self, parts: Any, prompts: Mapping[str, Prompt]) -> None:
        """As the inner engine."""
        self.inner.adopt(parts, prompts)

    def map(self, job: Job, clients: Sequence[str]) -> list[Update]:
        """Honest updates and in place of some what their clients make of them."""
        honest = self.inner.map(job, clients)
        sent = []
        for k, update in enumerate(honest):
            fault = self.faults.get(update.client)
            if fault is None or job.phase not in self.phases or not update.weight:
                sent.append(update)
                continue
            last = self._last.get((job.phase, update.client), update)
            self._last[job.phase, update.client] = update
            sent += FAULTS[fault](job, update, honest[(k + 1) % len(honest)], last)
        return sent


@contextmanager
def infiltrated(
    faults: Mapping[str, str], phases: Sequence[str] = ("search",)
) -> Iterator[list[Hostile]]:
    """Within, runs that this process begins or resumes have hostile clients.

    Args:
        faults, phases: see :class:`Hostile`.

    Yields:
        the engines of these runs, as they begin.
    """
    engines: list[Hostile] = []
    build = vars(api)["build"]

    def built(*given: Any, **named: Any) -> Any:
        federation = build(*given, **named)
        engines.append(Hostile(federation.engine, faults, phases))
        return replace(federation, engine=engines[-1])

    with patch.object(api, "build", built):
        yield engines


# --- what they do --------------------------------------------------------------------------------

Fault = Callable[[Job, Update, Update, Update], list[Update]]
"""(job, own update, another's, own one of the last job) -> what is sent."""


def _first(spoil: Callable[[Array], Array]) -> Fault:
    """Spoils one field, of fractions if there is one."""

    def fault(job: Job, own: Update, other: Update, last: Update) -> list[Update]:
        fields = sorted(own.arrays, key=lambda name: (own.arrays[name].dtype.kind != "f", name))
        bad = {name: spoil(own.arrays[name]) for name in fields[:1]}
        return [replace(own, arrays={**own.arrays, **bad})]

    return fault


def _longer(array: Array) -> Array:
    rows = np.atleast_1d(array)
    return np.concatenate([rows, rows[-1:]])


def _times(update: Update, job: Job, factor: float) -> Update:
    arrays = dict(update.arrays)
    for name, array in update.arrays.items():
        if name in ("losses", "loss"):
            arrays[name] = factor * array
        elif name in job.arrays and np.issubdtype(array.dtype, np.floating):
            start = job.arrays[name]
            moved = np.asarray(start + factor * (array - start))
            sizes = min(start.min(), array.min()) >= 0  # of steps, say
            arrays[name] = array if sizes and moved.min() < 0 else moved
    return replace(update, arrays=arrays)


def _scaled(factor: float) -> Fault:
    return lambda job, own, other, last: [_times(own, job, factor)]


FAULTS: dict[str, Fault] = {
    "nan": _first(lambda array: np.full(array.shape, np.nan)),
    "shape": _first(_longer),
    "dtype": _first(lambda array: array.astype(np.float32)),
    "stale": lambda job, own, other, last: [last],
    "scale": _scaled(SCALE),
    "flip": _scaled(-1.0),
    "push": _scaled(-PUSH),
    "copy": lambda job, own, other, last: [replace(other, client=own.client)],
    "forge": lambda job, own, other, last: [
        own,
        replace(_times(own, job, -1.0), client=other.client),
    ],
    "twice": lambda job, own, other, last: [own, own],
    "silent": lambda job, own, other, last: [],
    "change": lambda job, own, other, last: [own, _times(own, job, SCALE)],
}
