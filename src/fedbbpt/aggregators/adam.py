"""FedAdam: Adam at the server on the mean client step (Reddi et al. 2021, algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from fedbbpt.aggregators._merged import check_krum, check_trim, trusted
from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import ConfigError
from fedbbpt.maths import robust
from fedbbpt.maths.merge import stacked, weighted_mean
from fedbbpt.protocols import Aggregator, Optimizer
from fedbbpt.types import Update

Robust = Literal["mean", "median", "trimmed_mean", "krum"]


@dataclass(frozen=True)
class Adam(Aggregator):
    """Server optimiser on the pseudo-gradient ``mean_k(x_k) - x``.

    Attributes:
        lr: server step. Adam's steps do not depend on the size of the clients' gradients, so
            one value serves boxes whose losses differ in scale.
        beta1, beta2: decay of the two moments, Adam's usual ones but a shorter memory for the
            second, since a run has only some hundred rounds.
        eps: keeps a coordinate without any gradient still.
        averaging: the point handed out is the mean of all iterates so far, weighted by
            round**averaging (Shamir & Zhang 2013, polynomial-decay averaging): it loses most of
            the noise that a few paid pairs put into every step. 0 hands out the last iterate.
        robust: what stands for ``mean_k(x_k)``: the weighted mean, or one that bears hostile
            clients, as the aggregators of these names do. (Adam's own steps are at most some
            ``lr`` per coordinate however far a client pulls, but it may pull every one of them.)
        trim: of ``"trimmed_mean"``.
        bad, keep: of ``"krum"``; too few updates are refused as there.

    Raises:
        ConfigError: an option is out of range.
    """

    lr: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    averaging: float = 0.0
    robust: Robust = "mean"
    trim: float = 0.2
    bad: int = 1
    keep: int = 1

    reads = ("mean",)
    needs = ("mean",)

    def __post_init__(self) -> None:
        if not self.lr > 0 or not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1:
            raise ConfigError("adam needs lr > 0 and beta1, beta2 in [0, 1)")
        if not self.eps > 0:
            raise ConfigError(f"adam.eps is {self.eps}; it must be above 0")
        if not self.averaging >= 0:
            raise ConfigError(f"adam.averaging is {self.averaging}; it must be 0 or more")
        if self.robust not in get_args(Robust):
            raise ConfigError(
                f"adam.robust is {self.robust!r}; it must be one of {get_args(Robust)}"
            )
        check_trim("adam", self.trim)
        check_krum("adam", self.bad, self.keep)

    @property
    def least(self) -> int:
        """As many updates as Krum needs, or one."""
        return robust.fewest(self.bad, self.keep) if self.robust == "krum" else 1

    @property
    def sums(self) -> bool:
        """Unless it is to bear hostile clients."""
        return self.robust == "mean"

    @property
    def bears(self) -> bool:
        """If it is to."""
        return self.robust != "mean"

    def init(self, state: Any) -> Arrays:
        """First and second moment, mean iterate, and how many updates went into them."""
        zeros = np.zeros_like(state.mean)
        moments = {"first": zeros, "second": zeros.copy(), "average": state.mean.copy()}
        return {**moments, "count": np.array(0, np.int64)}

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """One Adam step; without any update, no change.

        Raises:
            ConfigError: there are fewer than :attr:`least` updates.
            ValueError: a robust merge met a number that is not finite.
        """
        if not updates:
            return state, memory
        delta = self._centre(updates) - state.mean
        count = int(memory["count"]) + 1
        first = self.beta1 * memory["first"] + (1 - self.beta1) * delta
        second = self.beta2 * memory["second"] + (1 - self.beta2) * delta**2
        # Bias correction: Kingma & Ba 2015, algorithm 1.
        step = first / (1 - self.beta1**count)
        scale = np.sqrt(second / (1 - self.beta2**count)) + self.eps
        mean = state.mean + self.lr * step / scale
        share = (1 + self.averaging) / (count + self.averaging)
        average = memory["average"] + share * (mean - memory["average"])
        memory = {
            "first": first,
            "second": second,
            "average": average,
            "count": np.array(count, np.int64),
        }
        return state._replace(mean=mean), memory

    def _centre(self, updates: Sequence[Update]) -> Array:
        """(*shape) where the clients are, taken together."""
        if self.robust == "median":
            return robust.median(*stacked(updates, "mean"))
        if self.robust == "trimmed_mean":
            return robust.trimmed_mean(*stacked(updates, "mean"), self.trim)
        if self.robust == "krum":
            updates = trusted(updates, self.reads, self.bad, self.keep, "adam.robust = 'krum'")
        return weighted_mean(updates, "mean")

    def best(self, optimizer: Optimizer[Any], state: Any, memory: Arrays) -> Array:
        """The weighted mean of the iterates, or the last one."""
        return memory["average"] if self.averaging else optimizer.best(state)
