"""FedBPT's server step: the clients' means are candidates of a CMA-ES that runs on the server.

Sun et al., *FedBPT: Efficient Federated Black-box Prompt Tuning for Large Language Models*,
ICML 2024, arXiv:2310.01467. The maths and its equation numbers are in :mod:`fedbbpt.maths.cma`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import ConfigError
from fedbbpt.maths import cma
from fedbbpt.protocols import Aggregator
from fedbbpt.types import Update

SigmaRule = Literal["paper", "code"]


@dataclass(frozen=True)
class Cma(Aggregator):
    """Rank the clients by the loss at their own mean and tell a CMA-ES on the server.

    In effect a mean of client means weighted by rank; how many examples a client has does not
    count, as in the publication. Weights are never negative.

    Attributes:
        sigma: how the server's step size follows from those of the clients. ``"paper"`` (eq. 6)
            looks at the better half of the clients, ``"code"`` (the public implementation) at all
            of them. They agree for an even popsize and halves that are alike; for a popsize of 5
            the code's is 12% larger.
        parents: share of the clients that count. .5 as in the paper; the public code has 1.0.
        sigma_floor: least step size sent to the clients. 0 means none, which is what the public
            code amounts to: its own floor is undone two lines later.

    Raises:
        ConfigError: an option is out of range.
    """

    sigma: SigmaRule = "paper"
    parents: float = 0.5
    sigma_floor: float = 0.0

    reads: ClassVar[tuple[str, ...]] = ("mean", "sigma_sq", "popsize")
    needs: ClassVar[tuple[str, ...]] = ("mean", "sigma", "cov", "sigma_sq", "popsize")
    loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.sigma not in get_args(SigmaRule):
            raise ConfigError(
                f"cma sigma is {self.sigma!r}; it must be one of {get_args(SigmaRule)}"
            )
        if not 0 < self.parents <= 1:
            raise ConfigError(f"cma parents is {self.parents}; it must be above 0 and at most 1")
        if not (math.isfinite(self.sigma_floor) and self.sigma_floor >= 0):
            raise ConfigError(f"cma sigma_floor is {self.sigma_floor}; it must be 0 or more")

    def init(self, state: Any) -> Arrays:
        """Paths (n,) and generation () of the server's own CMA-ES."""
        n = state.mean.size
        return {"p_sigma": np.zeros(n), "p_c": np.zeros(n), "generation": np.asarray(0)}

    def merge(self, state: Any, updates: Sequence[Update], memory: Arrays) -> tuple[Any, Arrays]:
        """The next broadcast, in which ``mean``, ``sigma`` and ``cov`` differ.

        Left out are updates that hold numbers which are not finite, clients that took no step
        (whose ``sigma_sq`` is 0), for they offer no candidate, and those that claim a popsize of
        one or none. Without any others nothing changes.
        Any number of clients may have taken part: all constants follow from it.

        Args:
            state: the broadcast that the updates answer.
            updates: ``arrays`` holds ``mean`` (*shape), ``sigma_sq`` (), ``popsize`` () and
                ``loss`` (), the client's loss at its own mean.
            memory: as made by :meth:`init`.
        """
        ranked = sorted(filter(_usable, updates), key=lambda u: (float(u.arrays["loss"]), u.client))
        if not ranked:
            return state, memory
        n = state.mean.size
        before = cma.Search(
            state.mean.reshape(-1),
            self.server_sigma(ranked),
            state.cov,
            memory["p_sigma"],
            memory["p_c"],
            int(memory["generation"]),
        )
        c = cma.constants(n, self.server_popsize(len(ranked)), _form(state.cov), active=False)
        axes = cma.axes_of(state.cov)  # the clients of this process have decomposed it already
        means = np.stack([u.arrays["mean"].reshape(-1) for u in ranked[: c.mu]])
        after = cma.move(before, axes, cma.clip(before, axes, means), c)
        sigma = float(state.sigma) * cma.csa(after.p_sigma, c)
        merged = state._replace(
            mean=after.mean.reshape(state.mean.shape),
            sigma=np.asarray(max(sigma, self.sigma_floor)),
            cov=after.cov,
        )
        generation = np.asarray(after.generation)
        return merged, {"p_sigma": after.p_sigma, "p_c": after.p_c, "generation": generation}

    def server_sigma(self, ranked: Sequence[Update]) -> float:
        """Step size with which the clients' means count as drawn (sigma').

        A client's mean is the end of a walk of several steps, each the mean of about popsize / 2
        draws, so variances add over steps and shrink by that number. The paper divides the sum
        over the better half by all m clients and by popsize, and doubles the root; that is the
        better half's mean divided by popsize / 2, which is also right for an odd m.

        Args:
            ranked: updates, lowest loss first.
        """
        better = ranked if self.sigma == "code" else ranked[: max(1, len(ranked) // 2)]
        total = np.array([float(u.arrays["sigma_sq"]) for u in better])
        popsize = np.array([int(u.arrays["popsize"]) for u in better])
        draws = popsize // 2 if self.sigma == "code" else popsize / 2
        return math.sqrt(float(np.mean(total / draws)))

    def server_popsize(self, clients: int) -> int:
        """Lambda whose better half is the share of the clients that count.

        Parents are the first half of lambda ranks, so .5 of m clients are the parents of a plain
        generation of m, and all of them those of one of 2 m whose worse half was never drawn.
        """
        return max(2, round(2 * self.parents * clients))


def _usable(update: Update) -> bool:
    finite = all(np.isfinite(update.arrays[f]).all() for f in ("loss", "mean", "sigma_sq"))
    return finite and float(update.arrays["sigma_sq"]) > 0 and int(update.arrays["popsize"]) > 1


def _form(cov: Array) -> cma.Covariance:
    if cov.ndim == 2:
        return "full"
    return "separable" if cov.size else "isotropic"
