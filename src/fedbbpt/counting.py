"""How clients agree on what a classifier's own classes mean; each example is asked once.

1. Each client sends counts of what the model answers to its training examples
   (:mod:`fedbbpt.maths.label_mapping`); their sum makes the mapping.
2. Each client tells how well the *others'* counts predict its examples, by sharpness; the best on
   average is taken. Under a mapping that has seen an example, its loss would say nothing.
3. If the mapping is to be learned, some exact gradient steps follow, as in federated SGD: for what
   stands behind the model no query is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.black_box import BlackBox
from fedbbpt.maths import label_mapping
from fedbbpt.maths.merge import weighted_mean
from fedbbpt.parts import Client, Parts, Phase
from fedbbpt.types import Batch, Job, Update

Ask = Callable[[str, Arrays, Sequence[str]], list[Update]]
Tell = Callable[[Parts, Batch, Job, BlackBox], tuple[Arrays, float]]


class Agreed(NamedTuple):
    """What came of the counts.

    Attributes:
        mapping: (C, S), of all clients together.
        own: for each client (C, S) of all the others, with which it trains.
    """

    mapping: Array
    own: dict[str, Array]


def agree(
    ask: Ask,
    point: Array,
    clients: Sequence[str],
    learned: bool = False,
    exchanges: Exchanges | None = None,
) -> Agreed:
    """Let all clients count under a point.

    Args:
        ask: sends a phase with arrays to clients.
        point: of the prompt.
        clients: names of those that train.
        learned: improve the counts by gradient steps, of which each takes one more exchange.
        exchanges: ``SEARCH`` if absent.
    """
    phases = exchanges or SEARCH
    updates = ask(phases.tally.name, {"point": point}, clients)
    counts = {update.client: update.arrays["counts"].astype(np.int64) for update in updates}
    total = np.sum(list(counts.values()), axis=0)
    job = {"point": point, "counts": _packed(total)}
    told = [update for update in ask(phases.sharpen.name, job, clients) if update.weight]
    sharpness = label_mapping.SHARPNESS
    if told:
        losses = weighted_mean(told, "by_sharpness")
        sharpness = label_mapping.SHARPNESSES[int(np.argmin(losses))]
    mapping = sharpness * label_mapping.weights(total)
    for _ in range(label_mapping.STEPS if learned else 0):
        job = {"point": point, "mapping": mapping}
        slopes = [update for update in ask(phases.learn.name, job, clients) if update.weight]
        if not slopes:
            break
        means = (weighted_mean(slopes, name) for name in label_mapping.Slope._fields)
        mapping = label_mapping.step(mapping, label_mapping.Slope(*means))
    own = {
        name: sharpness * label_mapping.weights(label_mapping.others(total, mine))
        for name, mine in counts.items()
    }
    return Agreed(mapping, own)


# --- at the client -------------------------------------------------------------------------------


def count(parts: Parts, batch: Batch, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """(C, S) counts of what the model answers to the client's examples under the point."""
    counts, known = _counted(parts, batch, job, box)
    return {"counts": _packed(counts)}, _answered(known)


def sharpen(parts: Parts, batch: Batch, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """Losses on the client's examples under the others' counts, by sharpness."""
    mine, known = _counted(parts, batch, job, box)
    rest = job.arrays["counts"].astype(np.int64) - mine
    if not rest.any() or not _answered(known):
        return {}, 0.0
    losses = label_mapping.losses(known, batch.targets, rest)
    return {"by_sharpness": losses}, _answered(known)


def learn(parts: Parts, batch: Batch, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """The slope of the loss of the client's examples under a mapping."""
    _, known = _known(parts, batch, job, box)
    found = label_mapping.slope(known, batch.targets, job.arrays["mapping"])
    return found._asdict(), _answered(known)


def _packed(counts: Array) -> Array:
    """In four bytes each, unless there are some 400,000 examples of a class."""
    return counts.astype(np.uint32 if counts.max(initial=0) < 2**32 else np.uint64)


def _answered(known: Array) -> float:
    """How many examples a mean is over."""
    return float(np.isfinite(known).all(axis=1).sum())


def _counted(parts: Parts, batch: Batch, job: Job, box: BlackBox) -> tuple[Array, Array]:
    """(C, S) counts and (B, S) log-probabilities."""
    classes, known = _known(parts, batch, job, box)
    return label_mapping.count(known, batch.targets, classes), known


def _known(parts: Parts, batch: Batch, job: Job, box: BlackBox) -> tuple[int, Array]:
    """C and (B, S) log-probabilities under the point, paid once for all phases."""
    prompt = parts.prompt.render(job.arrays["point"][None])[0]
    # Without labels: they may name none of the model's classes, and are not needed.
    known = box([replace(prompt, labels=(), mapping=None)], batch.inputs).embeddings
    assert known is not None  # check has refused a box without classes
    return len(prompt.labels), known


class Exchanges(NamedTuple):
    """The phases of one agreement."""

    tally: Phase
    sharpen: Phase
    learn: Phase


def _exchanges(purse: str, all_: bool) -> Exchanges:
    """On the training examples, or on these and those held back."""

    def phase(name: str, sends: tuple[str, ...], tell: Tell) -> Phase:
        def work(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
            batch = client.train.joined(client.holdout) if all_ else client.train
            return tell(parts, batch, job, box)

        return Phase(f"{name}_all" if all_ else name, purse, lambda _: sends, work)

    return Exchanges(
        phase("count", ("counts",), count),
        phase("sharpen", ("by_sharpness",), sharpen),
        phase("learn", label_mapping.Slope._fields, learn),
    )


SEARCH, FINAL = _exchanges("train", False), _exchanges("select", True)
"""During a search; and after the choice, when the examples that made it may teach as well."""
