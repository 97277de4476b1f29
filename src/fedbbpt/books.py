"""What a run keeps on disk from round to round: counts, snapshots, events, charges, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from fedbbpt.arrays import Array, Arrays, from_arrays, to_arrays, wire_bytes
from fedbbpt.budget import Away, Budget
from fedbbpt.checkpoint import Checkpoints, load
from fedbbpt.record import Lines
from fedbbpt.round import Played, Server
from fedbbpt.rundir import CHARGES, EVENTS, RunDir
from fedbbpt.shielding import Shield
from fedbbpt.types import Job, Update


@dataclass
class Counts:
    """What adds up over a run and must survive a kill. Times are seconds, sizes bytes.

    ``asides`` are rounds that were no step of the search, ``maps`` label mappings, ``pools`` how
    often a pool of instructions has grown, ``looks`` the number of the last look at held-back
    examples (:mod:`fedbbpt.stopping`). ``shown`` are by client the rounds that an epsilon
    counts.
    """

    up: int = 0
    down: int = 0
    client_rounds: int = 0
    setup: float = 0.0
    search: float = 0.0
    box: float = 0.0
    total: float = 0.0
    stopped: str = ""
    maps: int = 0
    asides: int = 0
    pools: int = 0
    looks: int = 0
    met: list[str] = field(default_factory=list)
    shown: dict[str, int] = field(default_factory=dict)


@dataclass
class Snapshots:
    """Points along the way, the starting prompt first; ``maps`` numbers their label mappings, 0
    where the labels say it all.
    """

    points: list[Array]
    queries: list[int]
    rounds: list[int]
    maps: list[int]


class Timer(Protocol):
    """Adds up seconds; see :class:`fedbbpt.wrappers.timed.Timed`."""

    @property
    def seconds(self) -> float:
        """So far."""


class Watch:
    """Seconds since it was made, and those of them spent in the box."""

    def __init__(self, box: Timer, counts: Counts) -> None:
        self._box, self._counts = box, counts
        self._began, self._boxed = time.perf_counter(), box.seconds

    def read(self) -> tuple[float, float]:
        """(all, in the box)."""
        return time.perf_counter() - self._began, self._box.seconds - self._boxed

    def add(self) -> None:
        """Count them as time of the search."""
        seconds, box = self.read()
        self._counts.search += seconds
        self._counts.box += box


class Books:
    """Opens a run directory's books and brings them up to its last checkpoint.

    ``heading`` is where the losses of past rounds fell; see :mod:`fedbbpt.agreement`.

    Args:
        directory: the run's.
        server: the first round's, for a run that has no checkpoint yet.
        start: the starting point.
        budget: gets back what was charged before.
        shields: behind which clients are.
    """

    def __init__(
        self,
        directory: RunDir,
        server: Server,
        start: Array,
        budget: Budget,
        shields: Sequence[Shield] = (),
    ) -> None:
        self.server, self.budget, self.shields = server, budget, shields
        self.counts = Counts()
        self.snapshots = Snapshots([start], [0], [0], [0])
        self.heading = np.zeros_like(start)
        facts: dict[str, Any] = {}
        saved = load(directory.state)
        if saved is not None:
            arrays, facts = saved
            self.counts = Counts(**facts["counts"])
            points = list(arrays["points"])
            each = (list(facts[key]) for key in ("queries", "rounds", "maps"))
            self.snapshots = Snapshots(points, *each)
            memory = {k[7:]: v for k, v in arrays.items() if k.startswith("memory.")}
            self.heading = arrays.get("heading", self.heading)
            state = from_arrays(type(server.state), arrays, "state.")
            self.server = Server(facts["round"], state, memory)
        self.checkpoints = Checkpoints(directory.state)
        self.events = Lines(directory.path / EVENTS, facts.get("events", 0))
        self.charges = Lines(directory.state / CHARGES, facts.get("charges", 0))
        budget.restore(self.charges.read())
        away = facts.get("away", ())
        budget.away = {(purse, name): Away(*counts) for purse, name, counts in away}

    def save(self) -> None:
        """One checkpoint; events and charges first, so that none is lost or doubled."""
        arrays: Arrays = {
            **to_arrays(self.server.state, "state."),
            **{f"memory.{k}": v for k, v in self.server.memory.items()},
            "points": np.array(self.snapshots.points),
            "heading": self.heading,
        }
        facts = {
            "round": self.server.round,
            "events": self.events.flush(),
            "charges": self.charges.flush(),
            "counts": asdict(self.counts),
            "queries": self.snapshots.queries,
            "rounds": self.snapshots.rounds,
            "maps": self.snapshots.maps,
            "away": [[*place, list(counts)] for place, counts in self.budget.away.items()],
        }
        self.checkpoints.save(arrays, facts)

    def settle(self, notices: Iterable[Mapping[str, Any]] = ()) -> None:
        """Note what was charged since the last time, and what happened to nodes."""
        for facts in notices:
            self.events.write("node", **facts)
        for (purse, account), keys in self.budget.take().items():
            self.charges.write("charge", purse=purse, account=account, keys=keys)

    def snapshot(self, point: Array, mapping: int = 0) -> None:
        """Keep a point as a candidate for the selection, once a round at the most."""
        if self.snapshots.rounds[-1] == self.server.round:
            return
        self.snapshots.points.append(np.array(point))
        self.snapshots.queries.append(self.budget.spent("train"))
        self.snapshots.rounds.append(self.server.round)
        self.snapshots.maps.append(mapping)
        rounds = max(self.counts.shown.values(), default=0)
        for spent in filter(None, (shield.spent(rounds) for shield in self.shields)):
            number = self.server.round
            self.events.write("privacy", round=number, rounds=rounds, **spent._asdict())

    def record(
        self, played: Played, seconds: float, box: float, agreement: float | None
    ) -> dict[str, Any]:
        """One event for each client and one for the merge, which is returned."""
        down, counts, number = wire_bytes(played.job.arrays), self.counts, played.job.round
        down += played.came.down if played.came else 0
        noisy = any(shield.levels for shield in self.shields) and played.job.phase == "search"
        for update in played.sent:
            up, loss = wire_bytes(update.arrays), _loss(update)
            if noisy and update.weight:
                counts.shown[update.client] = counts.shown.get(update.client, 0) + 1
            counts.up += up
            counts.down += down
            counts.client_rounds += 1
            self.events.write(
                "client",
                phase=played.job.phase,
                round=number,
                client=update.client,
                loss=loss,
                queries=update.queries,
                dropped=update.dropped,
                bytes_up=up,
                bytes_down=down,
                seconds=round(update.seconds, 6),
            )
        self.refuse(played.job, played.refused)
        # Behind a bound, losses tell how candidates compare and not how a client fares.
        bounded = any(shield.passes for shield in self.shields)
        losses = [] if bounded else [_loss(update) for update in played.updates]
        heard = [loss for loss in losses if np.isfinite(loss)]
        merge = {
            "phase": played.job.phase,
            "round": number,
            "clients": len(played.sent),
            "loss": float(np.mean(heard)) if heard else None,
            "agreement": agreement,
            "queries": self.budget.spent("train"),
            "bytes": counts.up + counts.down,
            "seconds": round(seconds, 6),
            "box_seconds": round(box, 6),
        }
        self.events.write("merge", **merge)
        return merge

    def refuse(self, job: Job, refused: Sequence[tuple[str, str]]) -> None:
        """One event for each (client, reason) of those whose update was not let in."""
        for client, reason in refused:
            self.events.write(
                "refused", phase=job.phase, round=job.round, client=client, reason=reason
            )

    def close(self) -> None:
        """Close every file."""
        for file in (self.events, self.charges, self.checkpoints):
            file.close()


def _loss(update: Update) -> float:
    """A client's mean loss in a round, as far as it leaves the client."""
    seen = update.arrays.get("losses", update.arrays.get("loss"))
    if not update.weight or seen is None or not np.isfinite(seen).any():
        return float("nan")
    return float(np.mean(seen[np.isfinite(seen)]))
