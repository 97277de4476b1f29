"""Contextual calibration: the manual prompt without the classes that it prefers by itself.

Zhao et al., Calibrate Before Use, ICML 2021, section 5: the probabilities of an input are divided
by those of inputs without content and normalised again (W = diag(p_cf)^-1, b = 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.baselines import Baseline, Exchange
from fedbbpt.black_box import BlackBox
from fedbbpt.errors import BoxError
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.parts import Client, Parts, Phase, zero
from fedbbpt.phases import PHASES, compare
from fedbbpt.types import Job, Reply

FREE = ("N/A", "-", "...")
"""Inputs without content, nobody's data. The paper's other two are the empty text, which not every
box takes, and "[MASK]", which a masked model takes for its own."""


@dataclass(frozen=True)
class Calibration(Baseline):
    """One client asks the box about three inputs without content; those are training queries.

    As in the paper's code, the prior is the mean of the three inputs' probabilities.
    """

    pictures = False
    evaluate = "calibrated"

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One question, and the evaluation."""
        return (
            Phase("calibrate", "train", lambda _: ("prior",), _calibrate),
            Phase(self.evaluate, "evaluation", PHASES["evaluate"].sends, _evaluate),
        )

    def fit(self, exchange: Exchange) -> Arrays:
        """``{"prior": (C,)}``, log-probabilities."""
        # The prior depends on nobody's data: one client's answer is everybody's.
        (update,) = exchange.ask("calibrate", {}, exchange.holders("train")[:1])
        return {"prior": update.arrays["prior"]}


def calibrated(scores: Array, prior: Array) -> Array:
    """Log-probabilities (..., C) without their prior (C,)."""
    return log_softmax(scores - prior)


def _calibrate(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    scores = box([zero(parts.prompt)], FREE).scores[0]
    answered = scores[np.isfinite(scores).all(axis=1)]
    if not len(answered):
        raise BoxError(f"{box.name} answered none of the inputs without content: {FREE}")
    return {"prior": np.logaddexp.reduce(answered) - np.log(len(answered))}, 1.0


def _evaluate(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    start = parts.prompt.render(job.arrays["points"])
    scores = box(start, client.test.inputs).scores[:1]
    both = [scores, calibrated(scores, job.arrays["prior"])]
    return compare(parts, client, Reply(np.concatenate(both)))
