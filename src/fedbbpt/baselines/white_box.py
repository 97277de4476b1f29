"""Gradient prompt tuning through the model itself: what it costs to see no more than scores.

Clients tune the prompt that ``fedes`` moves (offsets on the embeddings of the manual prompt's own
tokens, from zero) without its projection: prompt tuning (Lester et al., EMNLP 2021) by Adam, merged
by FedAvg (McMahan et al. 2017, algorithm 1). ``white-box-central`` has all data in one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.baselines import Baseline, Exchange
from fedbbpt.black_box import AtomicBox, BlackBox
from fedbbpt.errors import ConfigError
from fedbbpt.maths.choose import choose
from fedbbpt.maths.merge import weighted_mean
from fedbbpt.parts import Client, Parts, Phase, zero
from fedbbpt.phases import PHASES, compare, held_back
from fedbbpt.types import Job, RenderedPrompt

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Kingma & Ba 2015


@dataclass(frozen=True)
class WhiteBox(Baseline):
    """Federated soft prompt tuning by gradients of the mean cross-entropy.

    Queries are counted for the record: the gradient at one prompt counts one for each of its
    examples, forward and backward together. No budget limits them.

    Attributes:
        rounds: merges.
        steps: of Adam at a client between two merges, each over all its training examples; the
            moments begin anew in every round.
        lr: Adam's step, in standard deviations of the box's embeddings. Few small steps: beyond
            .02 a masked model learns some dozen examples by heart (docs/decisions.md).
        snapshots: prompts on the way, from which the held-back examples choose as they do for a
            search, the starting prompt among them.
    """

    rounds: int = 20
    steps: int = 2
    lr: float = 0.02
    snapshots: int = 20

    needs = frozenset({"gradients"})
    prompt = "soft"
    numbers = False
    evaluate = "white_evaluate"

    def __post_init__(self) -> None:
        for key in ("rounds", "steps", "snapshots"):
            if getattr(self, key) < 1:
                raise ConfigError(f"white_box {key} is {getattr(self, key)}; it must be at least 1")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"white_box lr is {self.lr}; it must be a positive number")

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Local training, selection and evaluation."""
        return (
            Phase("white_train", "train", lambda _: ("soft", "loss"), self._train),
            Phase("white_select", "select", PHASES["select"].sends, _select),
            Phase(self.evaluate, "evaluation", PHASES["evaluate"].sends, _evaluate),
        )

    def fit(self, exchange: Exchange) -> Arrays:
        """``{"soft": (1, S, T, H)}``, S being one prompt for all classes or one for each."""
        clients, arrays = exchange.holders("train"), Arrays()
        kept: list[Array] = []
        for number in range(self.rounds):
            updates = exchange.ask("white_train", arrays, clients)
            soft = weighted_mean(updates, "soft").astype(np.float32)
            kept = kept or [np.zeros_like(soft)]
            arrays = {"soft": soft}
            if (number + 1) * self.snapshots // self.rounds >= len(kept):
                kept.append(soft)
        every = np.array(kept)
        return {"soft": every[[self._chosen(exchange, every)]]}

    def _chosen(self, exchange: Exchange, every: Array) -> int:
        holders = exchange.holders("holdout")
        heard = exchange.ask("white_select", {"soft": every}, holders) if holders else []
        heard = [update for update in heard if update.weight]
        if not heard:
            return len(every) - 1
        means = {name: weighted_mean(heard, name) for name in ("losses", "squares")}
        return choose(means["losses"], means["squares"], sum(u.weight for u in heard))

    def _train(self, parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
        start = zero(parts.prompt)
        soft = np.array(job.arrays.get("soft", start.soft), np.float64)
        assert box.vocabulary is not None  # soft prompts need one
        lr, losses = self.lr * box.vocabulary.std, []
        first, second = np.zeros_like(soft), np.zeros_like(soft)
        for step in range(1, self.steps + 1):
            # Whatever stands behind a client's door is atomic: it has to be metered.
            loss, slope = cast(AtomicBox, box).gradient(
                moved(start, soft), client.train.inputs, client.train.targets
            )
            losses.append(loss)
            first = BETA1 * first + (1 - BETA1) * slope
            second = BETA2 * second + (1 - BETA2) * slope**2
            scale = np.sqrt(second / (1 - BETA2**step)) + EPS
            soft -= lr * first / (1 - BETA1**step) / scale
        sent = {"soft": soft.astype(np.float32), "loss": np.array(losses[0])}
        return sent, float(client.train.size)


def moved(start: RenderedPrompt, soft: Array) -> RenderedPrompt:
    """The starting prompt with another soft part (S, T, H)."""
    return replace(start, soft=tuple(np.asarray(soft, np.float32)))


def _select(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    start = zero(parts.prompt)
    prompts = [moved(start, soft) for soft in job.arrays["soft"]]
    return held_back(parts, client, box(prompts, client.holdout.inputs))


def _evaluate(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    start = parts.prompt.render(job.arrays["points"])[0]
    prompts = [start, moved(start, job.arrays["soft"][0])]
    return compare(parts, client, box(prompts, client.test.inputs))
