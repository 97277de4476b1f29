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
from fedbbpt.maths import label_mapping
from fedbbpt.maths.merge import weighted_mean
from fedbbpt.protocols import BlackBox
from fedbbpt.round import Client, Parts, Phase
from fedbbpt.types import Job, Update

Ask = Callable[[str, Arrays, Sequence[str]], list[Update]]


class Agreed(NamedTuple):
    """What came of the counts.

    Attributes:
        mapping: (C, S), of all clients together.
        own: for each client (C, S) of all the others, with which it trains.
    """

    mapping: Array
    own: dict[str, Array]


def agree(ask: Ask, point: Array, clients: Sequence[str], learned: bool = False) -> Agreed:
    """Let all clients count under a point.

    Args:
        ask: sends a phase with arrays to clients.
        point: of the prompt.
        clients: names of those that train.
        learned: improve the counts by gradient steps, of which each takes one more exchange.
    """
    updates = ask(COUNT.name, {"point": point}, clients)
    counts = {update.client: update.arrays["counts"].astype(np.int64) for update in updates}
    total = np.sum(list(counts.values()), axis=0)
    job = {"point": point, "counts": total.astype(np.uint32)}
    told = [update for update in ask(SHARPEN.name, job, clients) if update.weight]
    sharpness = label_mapping.SHARPNESS
    if told:
        losses = weighted_mean(told, "losses")
        sharpness = label_mapping.SHARPNESSES[int(np.argmin(losses))]
    mapping = sharpness * label_mapping.weights(total)
    for _ in range(label_mapping.STEPS if learned else 0):
        slopes = ask(LEARN.name, {"point": point, "mapping": mapping}, clients)
        means = (weighted_mean(slopes, name) for name in label_mapping.Slope._fields)
        mapping = label_mapping.step(mapping, label_mapping.Slope(*means))
    own = {
        name: sharpness * label_mapping.weights(label_mapping.others(total, mine))
        for name, mine in counts.items()
    }
    return Agreed(mapping, own)


# --- at the client -------------------------------------------------------------------------------


def count(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """(C, S) counts of what the model answers to the client's examples under the point."""
    counts, _ = _counted(parts, client, job, box)
    return {"counts": counts.astype(np.uint32)}, float(client.train.size)


def sharpen(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """Losses on the client's examples under the others' counts, by sharpness."""
    mine, known = _counted(parts, client, job, box)
    rest = job.arrays["counts"].astype(np.int64) - mine
    if not rest.any() or not np.isfinite(known).all(axis=1).any():
        return {}, 0.0
    losses = label_mapping.losses(known, client.train.targets, rest)
    return {"losses": losses}, float(client.train.size)


def learn(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """The slope of the loss of the client's examples under a mapping."""
    _, known = _counted(parts, client, job, box)
    found = label_mapping.slope(known, client.train.targets, job.arrays["mapping"])
    return found._asdict(), float(client.train.size)


def _counted(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Array, Array]:
    """(C, S) counts and (B, S) log-probabilities, paid once for both phases."""
    prompt = parts.prompt.render(job.arrays["point"][None])[0]
    # Without labels: they may name none of the model's classes, and are not needed.
    known = box([replace(prompt, labels=(), mapping=None)], client.train.inputs).embeddings
    assert known is not None  # check has refused a box without classes
    counts = label_mapping.count(known, client.train.targets, len(prompt.labels))
    return counts, known


COUNT = Phase("count", "train", lambda _: ("counts",), count)
SHARPEN = Phase("sharpen", "train", lambda _: ("losses",), sharpen)
LEARN = Phase("learn", "train", lambda _: label_mapping.Slope._fields, learn)
