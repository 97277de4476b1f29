"""Classification: one of C labels for every example."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.maths.metrics import F1, Accuracy, Matthews, Metric
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.tasks._guarded import Guarded, pick
from fedbbpt.types import NO_LABEL, Batch, Reply

LOSSES = ("cross_entropy", "hinge", "error")
METRICS = ("accuracy", "f1", "matthews")


@dataclass(frozen=True)
class Classify(Guarded):
    """Losses and metrics of a classifier that is asked through a box.

    Attributes:
        loss_kind: ``"cross_entropy"``; ``"hinge"``, sum over wrong classes of
            max(0, margin + s_c - s_y) (Sun et al. 2022); or ``"error"``, 0 or 1, all that is
            left of a box that names labels only.
        margin: of the hinge, in log-probabilities.
        measure: ``"accuracy"`` (also for ``"auto"``), ``"f1"`` or ``"matthews"``, the latter two
            for two classes.
        classes: C.
        positive: index of the class that F1 looks for.
    """

    loss_kind: str = "cross_entropy"
    margin: float = 2.0
    measure: str = field(default="auto", kw_only=True)
    classes: int = field(default=2, kw_only=True)
    positive: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if self.loss_kind not in LOSSES:
            raise ConfigError(f"loss is '{self.loss_kind}'; known: {', '.join(LOSSES)}")
        super().__post_init__()
        object.__setattr__(self, "metric", self._metric())

    def _metric(self) -> Metric:
        name = pick(self.measure, METRICS)
        if name == "accuracy":
            return Accuracy()
        if self.classes != 2:
            raise ConfigError(
                f"metric is '{name}', which needs two classes, and there are {self.classes}; "
                "take metric = 'accuracy'"
            )
        return F1(self.positive) if name == "f1" else Matthews(self.positive)

    def plain_loss(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) losses of the kind chosen, without the guard."""
        # Infinite scores are no answer; what they turn into is not finite and left out.
        with np.errstate(invalid="ignore"):
            return self._loss(reply.scores, batch)

    def _loss(self, scores: Array, batch: Batch) -> Array:
        own = scores[:, np.arange(batch.size), batch.targets]
        if self.loss_kind == "cross_entropy":
            top = scores.max(axis=2)
            return np.asarray(np.log(np.exp(scores - top[..., None]).sum(axis=2)) + top - own)
        if self.loss_kind == "hinge":
            excess = np.maximum(0.0, scores - own[..., None] + self.margin)
            return np.asarray(excess.sum(axis=2) - self.margin)
        right = self.score(Reply(scores), batch)
        return np.where(np.isfinite(scores).all(axis=2), 1.0 - right, np.nan)

    def answers(self, reply: Reply) -> Array:
        """(K, B) the class that scores highest; -1 for no answer, or one that names no class."""
        answered = np.isfinite(reply.scores).all(axis=2) & (reply.scores.max(axis=2) > NO_LABEL)
        return np.where(answered, reply.scores.argmax(axis=2), -1)

    def score(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) 1 where the right label scores highest, else 0; unanswered counts as wrong."""
        return np.asarray(self.answers(reply) == batch.targets, np.float64)

    def sure(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) probability of the right label among all; 0 where no label was named."""
        with np.errstate(invalid="ignore"):  # infinite scores are no answer, as NaN is
            own = log_softmax(reply.scores)[:, np.arange(batch.size), batch.targets]
        return np.where(self.answers(reply) < 0, 0.0, np.exp(own))
