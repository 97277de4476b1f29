"""Policy gradient over categorical prompts: sample, compare, shift probability to what did well.

The search of BDPL (Diao et al., TMLR 2023) and of Fed-BBPT's text instance. A prompt is one token
for each of L slots, drawn from L independent distributions over N candidates. The published form
moves the probabilities P themselves; ours moves the logits of a softmax, which needs no
projection and keeps its signal where P is peaked. Both estimate the gradient of the expected loss
from K samples x_k (one-hot rows) whose baseline is the mean loss of the *others* (RLOO: Kool et
al. 2019; Ahmadian et al., arXiv 2402.14740):

    A_k = l_k - 1/(K-1) sum_{j != k} l_j = K/(K-1) (l_k - mean l)
    g   = 1/K sum_k A_k grad log p(x_k)

With d/dlogits log p(x) = x - P, and sum_k (l_k - mean l) = 0, all that is common to the samples
drops out, and so does P:

    g = 1/(K-1) sum_k (l_k - mean l) x_k
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.maths import simplex
from fedbbpt.protocols import Optimizer
from fedbbpt.types import Space

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""Adam's usual constants, which the public BDPL code keeps."""
CLIP = 3.0
"""Largest norm of the published gradient (of each class's, in a separable space)."""
PER_CLASS = ("logits", "first", "second")
"""State fields whose first axis is the class in a separable space."""


class PolicyState(NamedTuple):
    """State of :class:`PolicyGradient` over L slots and N candidates, for C classes if separable.

    Attributes:
        logits: (L, N) or (C, L, N); probabilities, each row on the simplex, where
            ``as_published``.
        first, second: of the same shape, Adam's moments.
        steps: (), those behind the moments; a float, for the server averages it.
        rows: (), int64: C where classes are tried one at a time, else 0. Follows from the space,
            so it neither travels nor is averaged.
    """

    logits: Array
    first: Array
    second: Array
    steps: Array
    rows: Array


@dataclass(frozen=True)
class PolicyGradient(Optimizer[PolicyState]):
    """REINFORCE with a leave-one-out baseline, steps by AdamW.

    All of the state travels and is averaged, Adam's moments too: a client that began every round
    without them would take steps of plus or minus ``lr``, however small the gradient. (The public
    code leaves them at the client.) Where clients send their losses alone, none of it goes up.

    In a separable space every class has a policy of its own: K samples each, in which the other
    classes stay at their best, and a gradient from these samples alone. So a candidate costs the
    atoms of one class.

    Attributes:
        samples: prompts K per step (and per class in a separable space).
        lr: step of AdamW. At .1 a search wastes the few steps that a budget pays for, from .5 on
            it settles before it knows: .2 was best or near it on separable losses, the toy box
            and MiniLM.
        weight_decay: pull of the logits to 0, so towards every candidate being as likely, per
            unit of ``lr`` (decoupled: Loshchilov & Hutter 2019).
        as_published: BDPL's own update of the probabilities, with two repairs: no division by a
            probability of zero, and rows that weight decay has shrunk are raised to 1 again. Its
            steps are of probabilities, so ``lr`` is to be some 1e-4.
        gumbel: temperature tau of a Gumbel-softmax (FedOne, ICML 2025), 0 for none: in every step
            all K samples come from softmax((logits + G) / tau) with *one* Gumbel noise G. Noise
            of its own for every sample and then the largest entry would be plain sampling.
        prior: logit that the first candidate starts with, the others at 0. In a prompt of tokens
            it is *no token*: from 0 on the first samples are random words in all slots, and a
            search of few steps ends worse than it began (docs/decisions.md). Not ``as_published``.

    Raises:
        ConfigError: an option is out of range.
    """

    samples: int = 20
    lr: float = 0.2
    weight_decay: float = 0.0
    as_published: bool = False
    gumbel: float = 0.0
    prior: float = 0.0

    spaces: ClassVar[frozenset[str]] = frozenset({"categorical"})
    state: ClassVar[type[PolicyState]] = PolicyState
    shares: ClassVar[tuple[str, ...]] = ("logits", "first", "second", "steps")
    averages: ClassVar[tuple[str, ...]] = ("logits", "first", "second", "steps")
    relative: ClassVar[bool] = True
    positive: ClassVar[tuple[str, ...]] = ("second", "steps")

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.samples < 2:
            raise ConfigError(f"policy_gradient samples is {self.samples}; it compares at least 2")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"policy_gradient lr is {self.lr}; it must be a positive number")
        for key, value in (("weight_decay", self.weight_decay), ("gumbel", self.gumbel)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"policy_gradient {key} is {value}; it must be 0 or more")
        if not math.isfinite(self.prior):
            raise ConfigError(f"policy_gradient prior is {self.prior}; it must be a number")
        if (self.gumbel or self.prior) and self.as_published:
            raise ConfigError(
                "policy_gradient gumbel or prior moves logits: it needs as_published false"
            )

    def init(self, space: Space) -> PolicyState:
        """The most likely candidate, or the first of equals, is the starting prompt's."""
        start = np.full(space.shape, 1 / space.shape[-1] if self.as_published else 0.0)
        start[..., 0] += self.prior
        rows = np.array(space.shape[0] if space.separable else 0, np.int64)
        moments = np.zeros(space.shape), np.zeros(space.shape)
        return PolicyState(start, *moments, np.asarray(0.0), rows)

    def ask(self, state: PolicyState, rng: np.random.Generator) -> Array:
        """(K, L, N) one-hot rows, or (K C, C, L, N) with the classes taking turns."""
        shape, rows = state.logits.shape, int(state.rows)
        one_hot = np.eye(shape[-1])
        # An entry of probability 0 spans no interval, so it is never drawn.
        edges = self._probabilities(state, rng).cumsum(axis=-1)
        edges /= edges[..., -1:]
        drawn = rng.random((self.samples, *shape[:-1], 1))
        points = one_hot[(edges <= drawn).sum(axis=-1)]
        if not rows:
            return np.asarray(points)
        still = one_hot[state.logits.argmax(axis=-1)]
        moved = np.tile(still, (self.samples, rows, *[1] * still.ndim))
        each = np.arange(rows)
        moved[:, each, each] = points
        return moved.reshape(-1, *shape)

    def tell(self, state: PolicyState, points: Array, losses: Array) -> PolicyState:
        """One step down the estimated gradient; nothing is learnt from fewer than two answers."""
        rows = int(state.rows)
        if not rows:
            return self._told(state, points, losses)
        each = [
            self._told(_of_class(state, c), points[c::rows, c], losses[c::rows])
            for c in range(rows)
        ]
        fields = {name: np.stack([getattr(told, name) for told in each]) for name in PER_CLASS}
        return state._replace(steps=np.asarray(max(told.steps for told in each)), **fields)

    def _told(self, state: PolicyState, points: Array, losses: Array) -> PolicyState:
        answered = np.isfinite(losses)
        if answered.sum() < 2:
            return state
        x, loss = points[answered], losses[answered]
        # RLOO on logits: g = 1/(K-1) sum_k (l_k - mean l) x_k
        gradient = np.tensordot(loss - loss.mean(), x, axes=1) / (len(loss) - 1)
        if not self.as_published:
            # The logits of a Gumbel-softmax are divided by tau, and so is their gradient.
            return self._adamw(state, gradient / (self.gumbel or 1.0))
        told = self._adamw(state, _published(gradient, state.logits))
        return told._replace(logits=simplex.project(told.logits))

    def best(self, state: PolicyState) -> Array:
        """The logits: a prompt takes the most likely candidate of every slot."""
        return state.logits

    def _probabilities(self, state: PolicyState, rng: np.random.Generator) -> Array:
        """Positive numbers in proportion to the probabilities of this step's samples."""
        if self.as_published:
            return state.logits
        logits = state.logits
        if self.gumbel:
            logits = (logits + rng.gumbel(size=logits.shape)) / self.gumbel
        return np.asarray(np.exp(logits - logits.max(axis=-1, keepdims=True)))

    def _adamw(self, state: PolicyState, gradient: Array) -> PolicyState:
        """Kingma & Ba 2015, algorithm 1; decay as in Loshchilov & Hutter 2019, algorithm 2."""
        steps = state.steps + 1
        first = BETA1 * state.first + (1 - BETA1) * gradient
        second = BETA2 * state.second + (1 - BETA2) * gradient**2
        step = first / (1 - BETA1**steps)
        scale = np.sqrt(second / (1 - BETA2**steps)) + EPS
        logits = (1 - self.lr * self.weight_decay) * state.logits - self.lr * step / scale
        return PolicyState(logits, first, second, np.asarray(steps), state.rows)


def _of_class(state: PolicyState, which: int) -> PolicyState:
    return state._replace(**{name: getattr(state, name)[which] for name in PER_CLASS})


def _published(gradient: Array, probabilities: Array) -> Array:
    """BDPL's gradient with respect to P, from that with respect to the logits.

    BDPL: G = 1/(K-1) sum_k (l_k - mean l) D_k with D_k = 1/P where x_k chose and -1/P elsewhere,
    so D_k = (2 x_k - 1) / P. The -1 drops out as above: G = 2 g / P. Only chosen entries count,
    and no probability of zero can be chosen; the public code divides by all of them and dies.
    """
    chosen = (gradient != 0) & (probabilities > 0)
    whole = np.divide(2 * gradient, probabilities, out=np.zeros_like(gradient), where=chosen)
    norm = float(np.linalg.norm(whole))
    return np.asarray(whole * min(1.0, CLIP / (norm + 1e-6)))
