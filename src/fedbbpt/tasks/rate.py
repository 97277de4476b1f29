"""Rating: a number for every example, by how far its answer leans to the second of two words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.maths.metrics import Spearman
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.tasks._guarded import Guarded, pick
from fedbbpt.types import Batch, Reply


@dataclass(frozen=True)
class Rate(Guarded):
    """Losses and metric of a model that is asked for the likelier of a low and a high pole.

    Targets are numbers in [0, 1]: the labels on the scale of ``data.range``. What is answered is
    the probability of the high pole.

    Attributes:
        loss_kind: ``"cross_entropy"``, against the target as the high pole's probability.
        measure: ``"spearman"`` (also for ``"auto"``); with several holders of test examples the
            example-weighted mean of each holder's own correlation, for ranks need all examples
            in one place.
    """

    loss_kind: str = "cross_entropy"
    measure: str = field(default="auto", kw_only=True)

    numbers = True
    metric = Spearman()

    def __post_init__(self) -> None:
        if self.loss_kind != "cross_entropy":
            raise ConfigError(f"loss is '{self.loss_kind}'; for numbers it must be cross_entropy")
        super().__post_init__()
        pick(self.measure, (self.metric.name,))

    def plain_loss(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) cross-entropy between the target and the probabilities of the poles."""
        with np.errstate(invalid="ignore"):  # infinite scores are no answer, as NaN is
            low, high = np.moveaxis(log_softmax(reply.scores), 2, 0)
        return np.asarray(-(batch.targets * high + (1.0 - batch.targets) * low))

    def answers(self, reply: Reply) -> Array:
        """(K, B) probabilities of the high pole; NaN for no answer."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.exp(log_softmax(reply.scores)[..., 1]))

    def score(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) 1 less the distance from answer to target; 0 for no answer."""
        near = 1.0 - np.abs(self.answers(reply) - batch.targets)
        return np.where(np.isfinite(near), near, 0.0)
