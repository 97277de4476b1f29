"""How good answers are, from what clients tell of them: means over examples, which add up.

S: answers to the same B examples, the first being the one to beat. Every field that a client tells
is a mean over its examples, so that the server's example-weighted mean stands for all of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.random import stream

NORMAL = 1.959964  # 97.5 % quantile
DRAWS = 2000  # of a joint table: the ends of a 95 % interval are then sure to a percentile's half
RESAMPLES = 500  # of a holder's examples: a standard error is then sure to about 3 %


class Metric(ABC):
    """One number for a set of answers; higher is better.

    Attributes:
        name: a key of ``result.json``.
        sends: what a client tells for it.
    """

    name: str
    sends: ClassVar[tuple[str, ...]]

    @abstractmethod
    def tell(self, answers: Array, targets: Array) -> Arrays:
        """The fields in ``sends`` of (S, B) answers to examples with (B,) targets."""

    @abstractmethod
    def value(self, told: Arrays) -> Array:
        """(S,) the metric, from one client's fields or from their mean over clients."""

    @abstractmethod
    def interval(self, told: Arrays, which: int, examples: int) -> list[float]:
        """95 % interval of what answer ``which`` gains over the first, paired by example."""


class Accuracy(Metric):
    """Share of right answers. Answers and targets are class indices, -1 stands for no answer."""

    name = "accuracy"
    sends = ("scores", "gained", "lost")

    def tell(self, answers: Array, targets: Array) -> Arrays:
        """Shares of right answers, and of those that only this or only the first has right."""
        right = (answers == targets).astype(np.float64)
        change = right - right[0]
        return {
            "scores": right.mean(axis=1),
            "gained": (change > 0).mean(axis=1),
            "lost": (change < 0).mean(axis=1),
        }

    def value(self, told: Arrays) -> Array:
        """The mean of all clients' examples."""
        return told["scores"]

    def interval(self, told: Arrays, which: int, examples: int) -> list[float]:
        """See :func:`paired_interval`."""
        return paired_interval(float(told["gained"][which]), float(told["lost"][which]), examples)


@dataclass(frozen=True)
class _Counted(Metric):
    """A metric of two classes that is a function of counts over all clients' examples.

    Attributes:
        positive: index of the class that is looked for; no answer counts as the wrong class.
    """

    positive: int = 1

    sends = ("joint",)

    def tell(self, answers: Array, targets: Array) -> Arrays:
        """(S, 2, 2, 2) shares of examples by target, first answer and this answer; 1: positive."""
        true = targets == self.positive
        said = np.where(answers < 0, ~true, answers == self.positive)
        joint = np.zeros((len(answers), 2, 2, 2))
        for s, own in enumerate(said):
            np.add.at(joint[s], (true.astype(int), said[0].astype(int), own.astype(int)), 1.0)
        return {"joint": joint / len(targets)}

    def value(self, told: Arrays) -> Array:
        """From the tables of target and this answer."""
        return self._of(told["joint"].sum(axis=-2))

    def interval(self, told: Arrays, which: int, examples: int) -> list[float]:
        """Percentiles over tables drawn from the joint table (multinomial bootstrap).

        Two made-up examples are spread over its eight cells, as in :func:`paired_interval`.
        """
        cells = told["joint"][which].ravel() * examples + 0.25
        rng = stream(0, "interval")
        drawn = rng.multinomial(examples + 2, cells / cells.sum(), DRAWS).reshape(-1, 2, 2, 2)
        gain = self._of(drawn.sum(axis=-2)) - self._of(drawn.sum(axis=-1))
        low, high = np.quantile(gain, [0.025, 0.975])
        return [float(low), float(high)]

    def _of(self, table: Array) -> Array:
        """The metric of (..., 2, 2) tables target x answer, to any scale."""
        raise NotImplementedError


class F1(_Counted):
    """Harmonic mean of precision and recall of the positive class; 0 where neither occurs."""

    name = "f1"

    def _of(self, table: Array) -> Array:
        true = 2.0 * table[..., 1, 1]
        return _ratio(true, true + table[..., 0, 1] + table[..., 1, 0])


class Matthews(_Counted):
    """Correlation of target and answer (Matthews 1975); 0 where one of them is constant."""

    name = "matthews"

    def _of(self, table: Array) -> Array:
        table = np.asarray(table, np.float64)
        true = table[..., 0, 0] * table[..., 1, 1] - table[..., 0, 1] * table[..., 1, 0]
        sides = table.sum(axis=-1).prod(axis=-1) * table.sum(axis=-2).prod(axis=-1)
        return _ratio(true, np.sqrt(sides))


class Spearman(Metric):
    """Rank correlation of answers and targets, both numbers in [0, 1]; ties share a rank.

    Ranks of different holders cannot be compared without showing them, so with several holders
    this is the example-weighted mean of each holder's own correlation. No answer (NaN) counts as
    the pole that is farther from the target; a correlation with a constant counts as 0.
    """

    name = "spearman"
    sends = ("scores", "spread")

    def tell(self, answers: Array, targets: Array) -> Arrays:
        """Correlations, and B times the bootstrap variance of their distance to the first."""
        answers = np.where(np.isfinite(answers), answers, (targets < 0.5).astype(float))
        # Row 0 is the examples as they are, the others are samples of them with replacement.
        rows = stream(0, "interval").integers(len(targets), size=(RESAMPLES + 1, len(targets)))
        rows[0] = np.arange(len(targets))
        truth = _ranks(targets[rows])
        scores = np.array([(_ranks(own[rows]) * truth).sum(axis=1) for own in answers])
        spread = (scores - scores[0])[:, 1:].var(axis=1) * len(targets)
        return {"scores": scores[:, 0], "spread": spread}

    def value(self, told: Arrays) -> Array:
        """The example-weighted mean."""
        return told["scores"]

    def interval(self, told: Arrays, which: int, examples: int) -> list[float]:
        """Normal, with variance sum_k (n_k / n)^2 v_k = (sum_k n_k (n_k v_k) / n) / n."""
        gain = float(told["scores"][which] - told["scores"][0])
        half = NORMAL * math.sqrt(float(told["spread"][which]) / max(1, examples))
        return [gain - half, gain + half]


def paired_interval(gained: float, lost: float, examples: int) -> list[float]:
    """95 % interval of the difference of two paired proportions.

    Wald's interval with half an example added to each of the four cells (Agresti & Min 2005),
    which keeps its coverage when few answers change.

    Args:
        gained, lost: share of examples that only the new, only the old prompt gets right.
        examples: how many there are.
    """
    if not examples:
        return [0.0, 0.0]
    size = examples + 2
    up, down = (gained * examples + 0.5) / size, (lost * examples + 0.5) / size
    middle = up - down
    half = NORMAL * math.sqrt(max(0.0, up + down - middle**2) / size)
    return [middle - half, middle + half]


def _ranks(rows: Array) -> Array:
    """Ranks within each row of (R, B), centred and of length 1; zeros for a constant row."""
    from scipy.stats import rankdata

    ranks = rankdata(rows, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks * ranks).sum(axis=1, keepdims=True))
    return _ratio(ranks, np.broadcast_to(length, ranks.shape))


def _ratio(above: Array, below: Array) -> Array:
    """Quotients, 0 where the divisor is."""
    return np.asarray(np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0))
