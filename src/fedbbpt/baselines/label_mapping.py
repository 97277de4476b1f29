"""What a classifier's own classes mean for the task, by the clients' counts: no prompt at all.

The searches with ``prompt.mapping = "counts"`` start from it (:mod:`fedbbpt.maths.label_mapping`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedbbpt.arrays import Arrays
from fedbbpt.baselines import Baseline, Exchange
from fedbbpt.black_box import BlackBox
from fedbbpt.counting import FINAL, agree
from fedbbpt.errors import ConfigError
from fedbbpt.parts import Client, Parts, Phase
from fedbbpt.phases import PHASES, compare
from fedbbpt.types import Job


def evaluate(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """Test sums by the labels, where they name classes of the model, and by the counts."""
    start = parts.prompt.render(job.arrays["points"])[0]
    counted = replace(start, mapping=job.arrays["mapping"])
    try:
        reply = box([start, counted], client.test.inputs)
    except ConfigError:
        reply = box([counted, counted], client.test.inputs)
    return compare(parts, client, reply)


@dataclass(frozen=True)
class LabelMapping(Baseline):
    """Naive Bayes on what the model answers; each example costs one query. It has nothing to
    choose, so those held back teach as well.

    Attributes:
        learned: improve it by gradient steps, which cost none.
    """

    learned: bool = False

    needs = frozenset({"classes"})
    numbers = False
    phases = (
        *FINAL,
        Phase("mapping_evaluate", "evaluation", PHASES["evaluate"].sends, evaluate),
    )
    evaluate = "mapping_evaluate"

    def fit(self, exchange: Exchange) -> Arrays:
        """``{"mapping": (C, S)}``."""
        found = agree(exchange.ask, np.zeros(0), exchange.holders("train"), self.learned, FINAL)
        return {"mapping": found.mapping}
