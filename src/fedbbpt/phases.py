"""The other phases. Each declares what leaves a client; egress statement and events follow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from fedbbpt.arrays import Arrays
from fedbbpt.black_box import AtomicBox, BlackBox
from fedbbpt.counting import FINAL, SEARCH
from fedbbpt.drawing import dearest
from fedbbpt.parts import Client, Parts, Phase
from fedbbpt.random import stream
from fedbbpt.round import extended, search
from fedbbpt.types import Batch, Job, RenderedPrompt, Reply


def setup(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """How many queries a step will cost this client; counted from the split, nothing is paid.

    ``step``: most atoms of one step that only this client asks. ``once``: what no candidate
    changes, paid in its first step: its bare examples, or the texts of classes beside prompted
    pictures. ``common``: atoms of a step that depend on no example.
    """
    space = parts.prompt.space
    state = parts.optimizer.init(space)
    points = parts.optimizer.ask(state, stream(job.seed, "setup"))
    if parts.aggregator.loss:
        points = np.concatenate([points, parts.optimizer.best(state)[None]])
    prompts = parts.prompt.render(points)
    batch = dearest(client.train, parts.batch)
    asked = extended(parts, job, client, batch)
    common = _keys(box, prompts, asked.take([]))
    others = common if parts.directions == "shared" else set()
    each = [_keys(box, [prompt], asked) - others for prompt in prompts]
    step, still = set.union(*each), set.intersection(*each)
    texts = still & common if prompts[0].side == "image" else set()
    bare = _keys(box, [], client.train)
    seen = set() if parts.counts else still & bare
    once = texts | bare if seen or parts.counts else texts
    again = 0
    if seen and batch.size < client.train.size:
        # Each step may be the first for its examples, so they stay in its price; a client's own
        # best point is tried on those of the step to come.
        again, once, seen = len(seen) * parts.aggregator.loss, texts, set()
    mine = len(step - texts - seen) + again
    counts = {"step": mine, "once": len(once), "common": len(common)}
    return {k: np.array(v, np.int64) for k, v in counts.items()}, float(client.train.size)


def _keys(box: BlackBox, prompts: Sequence[RenderedPrompt], batch: Batch) -> set[bytes]:
    # Whatever build puts behind a client's door is atomic: it has to be metered.
    return {atom.key for atom in cast(AtomicBox, box).split(prompts, batch.inputs).atoms}


HELD = ("losses", "squares", "answers", "labels")


def select(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """What :func:`held_back` says of every snapshot."""
    reply = box(parts.snapshots(job.arrays["points"]), client.holdout.inputs)
    return held_back(parts, client, reply)


def held_back(parts: Parts, client: Client, reply: Reply) -> tuple[Arrays, float]:
    """Of S answers (S, B, C): mean held-back loss, mean square of its distance to the last one's,
    and how many examples are answered with each class; besides, how many are of each class. Words
    are of none.
    """
    losses = parts.task.plain_loss(reply, client.holdout)
    answered = np.isfinite(losses).all(axis=0)
    if not answered.any():
        return {}, 0.0
    losses = losses[:, answered]
    arrays = {
        "losses": losses.mean(axis=1),
        "squares": ((losses - losses[-1]) ** 2).mean(axis=1),
    }
    every = np.arange(reply.scores.shape[2])
    if len(every):
        chosen = reply.scores[:, answered].argmax(axis=2)
        own = np.rint(client.holdout.targets[answered])  # a number counts for the nearer pole
        arrays["answers"] = (chosen[..., None] == every).sum(axis=1)
        arrays["labels"] = (own[:, None] == every).sum(axis=0)
    else:
        arrays["answers"], arrays["labels"] = np.zeros((len(losses), 0)), np.zeros(0)
    return arrays, float(losses.shape[1])


def evaluate(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """For every snapshot: test loss, and what the metric needs to set it against the first point,
    the starting prompt.
    """
    reply = box(parts.snapshots(job.arrays["points"]), client.test.inputs)
    return compare(parts, client, reply)


def compare(parts: Parts, client: Client, reply: Reply) -> tuple[Arrays, float]:
    """Means over the test examples of S answers to each, the first being the one to beat."""
    losses = parts.task.plain_loss(reply, client.test)
    answered = np.isfinite(losses)
    losses = np.where(answered, losses, 0.0).sum(axis=1) / answered.sum(axis=1).clip(min=1)
    told = parts.task.metric.tell(parts.task.answers(reply), client.test.targets)
    return {"losses": losses, **told}, float(client.test.size)


def _compared(parts: Parts) -> tuple[str, ...]:
    return ("losses", *parts.task.metric.sends)


def _searched(parts: Parts) -> tuple[str, ...]:
    fields = ("losses",) if parts.wire == "replay" else parts.aggregator.fields(parts.optimizer)
    return (*fields, "loss") if parts.aggregator.loss else fields


PHASES = {
    phase.name: phase
    for phase in (
        Phase("setup", "train", lambda _: ("step", "once", "common"), setup, guard="free"),
        Phase("search", "train", _searched, search, guard="all"),
        Phase("select", "select", lambda _: HELD, select, guard="mask", adds=HELD[2:]),
        Phase("evaluate", "evaluation", _compared, evaluate, guard="mask"),
        *SEARCH,
        *FINAL,
    )
}
