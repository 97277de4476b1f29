"""What the server lets in: every update is looked at before it is used, and turned away by name.

Nothing here knows of wires or keys. Who a message is from, and that it belongs to this run, is for
the engine to say; and numbers that are possible but false are for a robust merge to bear
(``median``, ``trimmed_mean``, ``krum``).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.expected import Expected, search_fields
from fedbbpt.parts import Parts
from fedbbpt.round import replay
from fedbbpt.types import Job, Update


@dataclass(frozen=True)
class Limits:
    """What is beyond reason.

    Attributes:
        largest: of any number, in size. Losses are logarithms of probabilities and points a few
            standard deviations, so a billion is nobody's; the sums and squares that a merge makes
            of it are still exact enough.
        times: how many times the median distance of the other clients' fields from the broadcast a
            client's own may be; ``None`` for any.

    Raises:
        ConfigError: one is not above 0, or times is below 1, where half of all would be too far.
    """

    largest: float = 1e9
    times: float | None = None

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if not self.largest > 0:
            raise ConfigError(f"largest is {self.largest}; it must be above 0")
        if self.times is not None and not self.times >= 1:
            raise ConfigError(f"times is {self.times}; it must be at least 1")


class Admission(NamedTuple):
    """Who was let in.

    Attributes:
        updates: in the order in which their clients were first heard; those of weight 0 too.
        refused: (client, reason) of the others, by client; reasons are sentences for the events
            that quote no array.
    """

    updates: list[Update]
    refused: list[tuple[str, str]]


def admitted(
    parts: Parts,
    job: Job,
    updates: Sequence[Update],
    most: Mapping[str, float],
    limits: Limits | None = None,
) -> Admission:
    """The updates of the search phase that may be merged: as asked for, and not too far off.

    Args:
        parts: of the federation.
        job: as it was broadcast, with its arrays.
        updates: what came back.
        most, limits: see :func:`admit`. Where ``times`` is set, every search is replayed twice.
    """
    limits = limits or Limits()
    let = admit(job, updates, most, search_fields(parts, job), limits)
    if limits.times is None:
        return let
    took = [replay(parts, job, one) for one in let.updates if one.weight > 0]
    far = dict(near(parts, job, took, limits).refused)
    close = [one for one in let.updates if one.client not in far]
    return Admission(close, sorted([*let.refused, *far.items()]))


def admit(
    job: Job,
    updates: Sequence[Update],
    clients: Mapping[str, float],
    fields: Mapping[str, Expected],
    limits: Limits | None = None,
) -> Admission:
    """The updates that answer this job as they should. No decision depends on their order.

    An update of weight 0 says that its client could take no step; that is no fault, and nobody
    reads its fields. Of updates with the same bits (a task that ran twice) one counts; of different
    ones from one client none does, for nobody can say which is its own. So whoever can write in
    another's name can silence it, but not speak for it.

    Args:
        job: as it was broadcast.
        updates: what came back.
        clients: who was asked, with the most that each may weigh: the examples that it has named
            before, say. Without such a bound one client can outweigh all others.
        fields: what an update holds, no more and no less, as :func:`search_fields` has it.
        limits: the defaults if absent.
    """
    limits = limits or Limits()

    def faults(update: Update) -> Iterator[str]:
        yield from _formal(job, update, clients[update.client])
        if update.weight > 0:
            yield from _faults(job, update, fields, limits)

    return _let_in(updates, clients, faults)


def sane(
    parts: Parts,
    job: Job,
    updates: Sequence[Update],
    clients: Iterable[str],
    limits: Limits | None = None,
) -> Admission:
    """The answers to a job of any other phase that do no harm to read.

    They hold what the phase declares, in finite numbers, counts not below 0; and, but for texts
    that a client writes, fields of the shape that most clients send. What a client may weigh is not
    known here.

    Args:
        parts: of the federation.
        job: as it was sent.
        updates: what came back.
        clients: who was asked.
        limits: of which ``largest`` counts.
    """
    limits, phase, clients = limits or Limits(), parts.phases[job.phase], {*clients}
    votes: dict[str, dict[object, set[str]]] = {}
    for update in sorted(updates, key=lambda one: one.client):  # the first name wins a tie
        for name in update.arrays if update.client in clients and update.weight > 0 else ():
            form = _form(update.arrays[name], phase.writes)
            votes.setdefault(name, {}).setdefault(form, set()).add(update.client)
    usual = {name: max(forms, key=lambda f: len(forms[f])) for name, forms in votes.items()}

    def faults(update: Update) -> Iterator[str]:
        yield from _formal(job, update, np.inf)
        if update.weight > 0:
            yield from _undeclared(update, {*phase.sends(parts)})
        for name, array in update.arrays.items() if update.weight > 0 else ():
            if array.dtype.kind not in "fiu":
                yield f"{name} holds {array.dtype}; it must be numbers"
            elif _form(array, phase.writes) != usual[name]:
                yield f"{name} has shape {array.shape}, other than most clients'"
            yield from _beyond(name, array, False, limits.largest)
            if array.dtype.kind == "i":
                yield from _below(name, array)

    return _let_in(updates, clients, faults)


def _form(array: Array, writes: bool) -> object:
    return array.dtype.kind, array.ndim if writes else array.shape


def _let_in(
    updates: Sequence[Update],
    clients: Container[str],
    faults: Callable[[Update], Iterator[str]],
) -> Admission:
    """One update of each client, if it has no fault and there are no two."""
    sent: dict[str, dict[object, Update]] = {}
    for update in updates:
        mine, merged = sent.setdefault(update.client, {}), _merged(update)
        # A task that ran again may have found its answers paid: the dearer one is the whole bill.
        mine[merged] = max(mine.get(merged, update), update, key=lambda one: one.queries)
    let: list[Update] = []
    refused: dict[str, str] = {}
    for client, mine in sent.items():
        update = next(iter(mine.values()))
        if client not in clients:
            refused[client] = "it was not asked in this round"
        elif len(mine) > 1:
            refused[client] = f"it sent {len(mine)} different updates, where one is right"
        elif fault := next(faults(update), ""):
            refused[client] = fault
        else:
            let.append(update)
    return Admission(let, sorted(refused.items()))


def _merged(update: Update) -> object:
    """All that a merge looks at, to the bit."""
    arrays = ((k, v.dtype.str, v.shape, v.tobytes()) for k, v in sorted(update.arrays.items()))
    return update.round, update.weight, tuple(arrays)


def _formal(job: Job, update: Update, most: float) -> Iterator[str]:
    """What is wrong with an update besides its fields."""
    if update.round != job.round:
        yield f"it answers round {update.round}, and this is round {job.round}"
    if not 0 <= update.weight <= most or update.weight == np.inf:
        yield f"its weight is {update.weight:g}; it must be above 0 and at most {most:g}"
    counts = (update.queries, update.dropped, update.common, update.paid)
    if min(counts) < 0 or not 0 <= update.seconds < np.inf:
        yield (
            f"it reports {update.queries} queries, {update.dropped} dropped and {update.seconds:g} "
            "seconds; none can be negative or infinite"
        )


def _undeclared(update: Update, declared: Set[str]) -> Iterator[str]:
    held = update.arrays.keys()
    for word, names in (("holds", held - declared), ("lacks", declared - held)):
        if names:
            yield f"it {word} {', '.join(sorted(names))}; declared is {', '.join(sorted(declared))}"


def _faults(
    job: Job, update: Update, fields: Mapping[str, Expected], limits: Limits
) -> Iterator[str]:
    """What is wrong with the fields of an update; later faults are read only without earlier."""
    yield from _undeclared(update, fields.keys())
    yield from _misshapen(update, job.steps, fields)
    for name, expected in fields.items():
        yield from _beyond(name, update.arrays[name], expected.holes, limits.largest)
        if expected.positive:
            yield from _below(name, update.arrays[name])


def _misshapen(update: Update, steps: int, fields: Mapping[str, Expected]) -> Iterator[str]:
    taken = set(range(1, steps + 1))
    for name, expected in fields.items():
        array = update.arrays[name]
        if array.dtype != expected.dtype:
            yield f"{name} holds {array.dtype}; it must be {expected.dtype}"
        fits = {s for s in range(1, steps + 1) if array.shape == expected.after(s)}
        if not fits:
            fewer = ", or fewer rows" if expected.more and steps > 1 else ""
            yield f"{name} has shape {array.shape}; it must be {expected.after(steps)}{fewer}"
        taken &= fits
    if not taken:
        yield "its fields are not all of the same number of steps"


def _beyond(name: str, array: Array, holes: bool, largest: float) -> Iterator[str]:
    sizes = np.abs(array.astype(np.float64))
    wrong = (array == -np.inf) if holes else ~np.isfinite(sizes)
    if wrong.any():
        yield f"{name} has {int(wrong.sum())} of {array.size} numbers that are not finite"
    top = sizes[np.isfinite(sizes)].max(initial=0.0)
    if top > largest:
        yield f"{name} has a number of size {top:.3g}; it must be at most {largest:.3g}"


def _below(name: str, array: Array) -> Iterator[str]:
    if array.min(initial=0) < 0:
        yield f"{name} has a number below 0"


def near(parts: Parts, job: Job, updates: Sequence[Update], limits: Limits) -> Admission:
    """Those whose state fields are not too far from the broadcast (``limits.times``).

    Compared are the fields of which a mean makes sense (``Optimizer.averages``), one by one, by
    their Euclidean distance from where the client began, with the median of the other clients'.
    So fewer than half hostile clients cannot hide behind each other, nor push others out. Nothing
    is refused of fewer than three updates, or by others half of whom did not move at all.

    Args:
        parts: of the federation.
        job: as it was broadcast, with its arrays.
        updates: admitted, and holding state fields; losses have to be replayed before.
        limits: of which ``times`` counts.
    """
    if limits.times is None or len(updates) < 3:
        return Admission(list(updates), [])
    start, refused = parts.receive(job.arrays), {}
    for name in parts.optimizer.averages:
        if not all(name in update.arrays for update in updates):
            continue
        moves = [update.arrays[name] - np.asarray(getattr(start, name)) for update in updates]
        far = np.array([np.linalg.norm(np.ravel(move)) for move in moves])
        for k, update in enumerate(updates):
            usual = float(np.median(np.delete(far, k)))
            if usual and far[k] > limits.times * usual:
                refused[update.client] = (
                    f"its {name} is {far[k]:.3g} away from the broadcast, and the others' median "
                    f"is {usual:.3g}; at most {limits.times:g} times that is let in"
                )
    let = [update for update in updates if update.client not in refused]
    return Admission(let, sorted(refused.items()))
