"""What the server lets in: every update is looked at before it is merged, and turned away by name.

Nothing here knows of wires or keys. Who a message is from, and that it belongs to this run, is for
the engine to say; and numbers that are possible but false are for a robust merge to bear
(``median``, ``trimmed_mean``, ``krum``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.parts import Parts
from fedbbpt.round import local_search, replay
from fedbbpt.types import Job, Update


class Expected(NamedTuple):
    """What a field has to look like.

    Attributes:
        shape: after one step.
        dtype: exactly.
        more: rows that every further step adds.
        holes: NaN and +inf stand for *no answer*. Minus infinity is no loss of anything.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    more: int = 0
    holes: bool = False

    def after(self, steps: int) -> tuple[int, ...]:
        """Its shape after so many."""
        if not self.more:
            return self.shape
        return (self.shape[0] + (steps - 1) * self.more, *self.shape[1:])


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
        updates: in the order in which their clients were first heard.
        refused: (client, reason) of the others, by client; reasons are sentences for the events
            that quote no array.
    """

    updates: list[Update]
    refused: list[tuple[str, str]]


def heard(
    parts: Parts,
    job: Job,
    updates: Sequence[Update],
    clients: Mapping[str, float],
    limits: Limits | None = None,
) -> Admission:
    """What a merge gets of the search phase: admitted, replayed where losses came, not too far off.

    Args:
        parts: of the federation.
        job: as it was broadcast, with its arrays.
        updates, clients, limits: see :func:`admit`.
    """
    let = admit(job, updates, clients, search_fields(parts, job), limits)
    close = near(parts, job, [replay(parts, job, one) for one in let.updates], limits or Limits())
    return Admission(close.updates, sorted([*let.refused, *close.refused]))


def search_fields(parts: Parts, job: Job) -> dict[str, Expected]:
    """What the search phase declares, as this job makes it.

    Losses are (steps, K), fewer where a client runs out of queries. State fields look as they do
    after one step and after two, which are gone through here with made-up losses.

    Args:
        parts: of the federation.
        job: as it was broadcast, with its arrays.
    """
    number = np.dtype(np.float64)
    if parts.wire == "replay":
        size = len(parts.candidates(job, "", 0, parts.receive(job.arrays)))
        fields = {"losses": Expected((1, size), number, more=1, holes=True)}
    else:
        one, two = (_searched(parts, job, steps) for steps in (1, min(2, job.steps)))
        fields = {name: _grown(one[name], two[name]) for name in one}
    if parts.aggregator.loss:
        fields["loss"] = Expected((), number, holes=True)
    return fields


def _searched(parts: Parts, job: Job, steps: int) -> dict[str, Array]:
    def made_up(step: int, points: Array, turns: Array | None) -> Array:
        return np.arange(len(points), dtype=np.float64)

    # Not a copy where it need not be: shared candidates are kept by job.
    job = job if steps == job.steps else replace(job, steps=steps)
    state = local_search(parts, job, "", made_up)
    names = parts.aggregator.fields(parts.optimizer)
    return {name: np.asarray(getattr(state, name)) for name in names}


def _grown(one: Array, two: Array) -> Expected:
    more = len(two) - len(one) if one.ndim and one.shape != two.shape else 0
    return Expected(one.shape, one.dtype, more)


def admit(
    job: Job,
    updates: Sequence[Update],
    clients: Mapping[str, float],
    fields: Mapping[str, Expected],
    limits: Limits | None = None,
) -> Admission:
    """The updates that answer this job as they should. No decision depends on their order.

    An update of weight 0 says that its client could take no step; if nothing else is wrong with it,
    it is left out without a reason, for that is no fault. Of updates with the same bits (a task
    that ran twice) one counts; of different ones from one client none does, for nobody can say
    which is its own. So whoever can write in another's name can silence it, but not speak for it.

    Args:
        job: as it was broadcast.
        updates: what came back.
        clients: who was asked, with the most that each may weigh: the examples that it has named
            before, say. Without such a bound one client can outweigh all others.
        fields: what an update holds, no more and no less, as :func:`search_fields` has it.
        limits: the defaults if absent.
    """
    limits = limits or Limits()
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
        elif fault := next(_faults(job, update, clients[client], fields, limits), ""):
            refused[client] = fault
        elif update.weight > 0:
            let.append(update)
    return Admission(let, sorted(refused.items()))


def _merged(update: Update) -> object:
    """All that a merge looks at, to the bit."""
    arrays = ((k, v.dtype.str, v.shape, v.tobytes()) for k, v in sorted(update.arrays.items()))
    return update.round, update.weight, tuple(arrays)


def _faults(
    job: Job, update: Update, most: float, fields: Mapping[str, Expected], limits: Limits
) -> Iterator[str]:
    """Everything that is wrong with an update."""
    if update.round != job.round:
        yield f"it answers round {update.round}, and this is round {job.round}"
    if not 0 <= update.weight <= most:
        yield f"its weight is {update.weight:g}; it must be above 0 and at most {most:g}"
    if not (update.queries >= 0 and update.dropped >= 0 and 0 <= update.seconds < np.inf):
        yield (
            f"it reports {update.queries} queries, {update.dropped} dropped and {update.seconds:g} "
            "seconds; none can be negative or infinite"
        )
    if not update.weight > 0:
        return  # it took no step, so it has nothing to send
    held = update.arrays.keys()
    for word, names in (("holds", held - fields.keys()), ("lacks", fields.keys() - held)):
        if names:
            yield f"it {word} {', '.join(sorted(names))}; declared is {', '.join(sorted(fields))}"
            return
    yield from _misshapen(update, job.steps, fields)
    for name, expected in fields.items():
        yield from _beyond(name, update.arrays[name], expected.holes, limits.largest)


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
