"""Generation: an answer in words, scored against one or more references for every example."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import BoxError, ConfigError, ExampleFault
from fedbbpt.maths.answers import MeanScore
from fedbbpt.protocols import Task
from fedbbpt.types import Batch, Reply


@dataclass(frozen=True)
class Generate(Task):
    """Loss and metric of a model that answers in words: a loss is 1 - score.

    Targets are tuples of references. An example without an answer has no loss (NaN) in search and
    selection, and scores 0 in the metric.

    Attributes:
        loss_kind: ``"error"``, 1 - score; a config that names no loss says ``"cross_entropy"``,
            which is taken for it.
        measure: ``"exact"`` (also for ``"auto"``), ``"contains"``, ``"set"``, ``"f1"``,
            ``"number"`` or ``"package.module:function"``, see :mod:`fedbbpt.maths.answers`.
        guard: ``"none"``; garbled inputs have no right answer to set a loss against.

    Raises:
        ConfigError: an option is none of these.
    """

    loss_kind: str = "cross_entropy"
    measure: str = field(default="auto", kw_only=True)
    guard: str = field(default="none", kw_only=True)
    scored: MeanScore = field(init=False, repr=False, compare=False)

    words = True

    def __post_init__(self) -> None:
        if self.loss_kind not in ("cross_entropy", "error"):
            raise ConfigError(
                f"loss is '{self.loss_kind}'; for answers in words it must be 'error', 1 - score"
            )
        if self.guard != "none":
            raise ConfigError(f"guard is '{self.guard}'; for answers in words it must be 'none'")
        measure = "exact" if self.measure == "auto" else self.measure
        object.__setattr__(self, "scored", MeanScore(measure))
        object.__setattr__(self, "metric", self.scored)

    def loss(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) losses; NaN where there is no answer."""
        return self.plain_loss(reply, batch)

    def plain_loss(self, reply: Reply, batch: Batch) -> Array:
        """The same: there is no guard."""
        answers = self.answers(reply)
        answered = np.array([[text is not None for text in row] for row in answers], bool)
        return np.where(answered, 1.0 - self.score(reply, batch), np.nan)

    def score(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) scores, 0 without an answer."""
        try:
            return self.scored.scores(self.answers(reply), batch.targets)
        except ExampleFault as fault:
            raise ExampleFault(fault.what, fault.place, batch.inputs[fault.place]) from None

    def answers(self, reply: Reply) -> Array:
        """(K, B) texts, ``None`` for no answer.

        Raises:
            BoxError: the reply is not in words.
        """
        if reply.texts is None:
            raise BoxError("the model gave scores of labels; this task needs answers in words")
        return np.array(reply.texts, dtype=object)
