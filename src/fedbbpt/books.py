"""What a run keeps on disk from round to round: counts, snapshots, events, charges, checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays, from_arrays, to_arrays, wire_bytes
from fedbbpt.budget import Budget
from fedbbpt.checkpoint import Checkpoints, load
from fedbbpt.record import Lines
from fedbbpt.round import Played, Server
from fedbbpt.rundir import CHARGES, EVENTS, RunDir
from fedbbpt.types import Update


@dataclass
class Counts:
    """What adds up over a run and must survive a kill. Times are seconds, sizes bytes.

    ``asides`` are rounds that were no step of the search, ``maps`` label mappings, ``pools`` how
    often a pool of instructions has grown.
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
    met: list[str] = field(default_factory=list)


@dataclass
class Snapshots:
    """Points along the way, the starting prompt first; ``maps`` numbers their label mappings, 0
    where the labels say it all.
    """

    points: list[Array]
    queries: list[int]
    rounds: list[int]
    maps: list[int]


class Books:
    """Opens a run directory's books and brings them up to its last checkpoint.

    ``heading`` is where the losses of past rounds fell; see :mod:`fedbbpt.agreement`.

    Args:
        directory: the run's.
        server: the first round's, for a run that has no checkpoint yet.
        start: the starting point.
        budget: gets back what was charged before.
    """

    def __init__(self, directory: RunDir, server: Server, start: Array, budget: Budget) -> None:
        self.server, self.budget = server, budget
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
        }
        self.checkpoints.save(arrays, facts)

    def settle(self) -> None:
        """Note what was charged since the last time."""
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

    def record(
        self, played: Played, seconds: float, box: float, agreement: float | None
    ) -> dict[str, Any]:
        """One event for each client and one for the merge, which is returned."""
        down, counts, number = wire_bytes(played.job.arrays), self.counts, played.job.round
        losses = []
        for update in played.updates:
            up, loss = wire_bytes(update.arrays), _loss(update)
            losses.append(loss)
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
        heard = [loss for loss in losses if np.isfinite(loss)]
        merge = {
            "phase": played.job.phase,
            "round": number,
            "clients": len(played.updates),
            "loss": float(np.mean(heard)) if heard else None,
            "agreement": agreement,
            "queries": self.budget.spent("train"),
            "bytes": counts.up + counts.down,
            "seconds": round(seconds, 6),
            "box_seconds": round(box, 6),
        }
        self.events.write("merge", **merge)
        return merge

    def close(self) -> None:
        """Close every file."""
        for file in (self.events, self.charges, self.checkpoints):
            file.close()


def _loss(update: Update) -> float:
    """A client's mean loss in a round, as far as it leaves the client."""
    seen = update.arrays.get("losses", update.arrays.get("loss"))
    if seen is None or not np.isfinite(seen).any():
        return float("nan")
    return float(np.mean(seen[np.isfinite(seen)]))
