"""Federated logistic regression on the box's embeddings: no prompt, no query but the examples.

Each round is one evaluation of the global loss: clients send the sum of their losses and its
gradient, the server's L-BFGS takes the step. So the fit equals the centralised one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.baselines import Baseline, Exchange
from fedbbpt.black_box import BlackBox
from fedbbpt.maths.merge import weighted_mean
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.parts import Client, Parts, Phase
from fedbbpt.phases import PHASES, compare
from fedbbpt.types import Batch, Job, Reply


def gradient(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """Mean loss of the client's examples under the broadcast weights, and its gradient."""
    weights = job.arrays["weights"]
    features = _features(box, client.train)
    log_p = log_softmax(features @ weights.T)
    error = np.exp(log_p)
    rows = np.arange(client.train.size)
    error[rows, client.train.targets] -= 1.0
    loss = -log_p[rows, client.train.targets].mean()
    return {"loss": np.array(loss), "gradient": error.T @ features / len(rows)}, float(len(rows))


def held_back(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """Mean held-back loss under each of several weights."""
    scores = _scores(job.arrays["weights"], _features(box, client.holdout))
    rows = np.arange(client.holdout.size)
    losses = -scores[:, rows, client.holdout.targets].mean(axis=1)
    return {"losses": losses}, float(client.holdout.size)


def evaluate(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """Test sums of the starting prompt and of the probe."""
    prompted = box(parts.prompt.render(job.arrays["points"]), client.test.inputs).scores
    scores = _scores(job.arrays["weights"], _features(box, client.test))
    return compare(parts, client, Reply(np.concatenate([prompted, scores])))


@dataclass(frozen=True)
class LinearProbe(Baseline):
    """Multinomial logistic regression with an L2 penalty chosen on held-back examples.

    Attributes:
        penalties: L2 penalties tried, from the strongest on; each fit starts at the one before.
        rounds: most evaluations of the loss for each penalty.
    """

    penalties: tuple[float, ...] = (0.01, 0.003, 0.001, 0.0003)
    rounds: int = 60

    needs = frozenset({"embeddings"})
    numbers = False
    phases = (
        Phase("probe_gradient", "train", lambda _: ("loss", "gradient"), gradient),
        Phase("probe_select", "select", lambda _: ("losses",), held_back),
        Phase("probe_evaluate", "evaluation", PHASES["evaluate"].sends, evaluate),
    )
    evaluate = "probe_evaluate"

    def fit(self, exchange: Exchange) -> Arrays:
        """``{"weights": (1, C, H + 1)}``, the bias in the last column."""
        weights, fits = np.zeros(0), []
        for penalty in self.penalties:
            weights = self._minimise(exchange, penalty, weights)
            fits.append(weights)
        stack = np.array(fits)
        holders = exchange.holders("holdout")
        if not holders or len(fits) == 1:
            return {"weights": stack[-1:]}
        updates = exchange.ask("probe_select", {"weights": stack}, holders)
        best = int(np.argmin(weighted_mean(updates, "losses")))
        return {"weights": stack[best : best + 1]}

    def _minimise(self, exchange: Exchange, penalty: float, start: Array) -> Array:
        from scipy.optimize import minimize

        clients = exchange.holders("train")
        if not start.size:
            start = np.zeros((exchange.classes, exchange.hidden + 1))
        shape = start.shape

        def loss(flat: Array) -> tuple[float, Array]:
            weights = flat.reshape(shape)
            updates = exchange.ask("probe_gradient", {"weights": weights}, clients)
            pull = penalty * weights
            pull[:, -1] = 0.0  # the bias is free
            value = float(weighted_mean(updates, "loss")) + float((pull * weights).sum()) / 2
            return value, (weighted_mean(updates, "gradient") + pull).ravel()

        limit = {"maxfun": self.rounds}
        found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=limit)
        return np.asarray(found.x).reshape(shape)


def _features(box: BlackBox, batch: Batch) -> Array:
    """(B, H + 1): embeddings and a constant."""
    embeddings = box((), batch.inputs).embeddings
    assert embeddings is not None  # the box gives them, or check would have refused
    return np.concatenate([embeddings, np.ones((len(embeddings), 1))], axis=1)


def _scores(weights: Array, features: Array) -> Array:
    """(S, B, C) log-probabilities under S weights (S, C, H + 1)."""
    return log_softmax(features @ weights.swapaxes(1, 2))
