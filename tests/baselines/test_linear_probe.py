"""The federated probe beside the same regression with all embeddings in one place."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from fedbbpt.errors import Incompatible
from fedbbpt.testing.toys import ToyEncoder, toy_box


def pooled(features, targets, classes, penalty):
    """Multinomial logistic regression with an L2 penalty on all but the bias."""

    def loss(flat):
        weights = flat.reshape(classes, -1)
        rows = log_softmax(features @ weights.T, axis=1)[np.arange(len(targets)), targets]
        return -rows.mean() + penalty / 2 * (weights[:, :-1] ** 2).sum()

    return minimize(loss, np.zeros(classes * features.shape[1]), tol=1e-10).x.reshape(classes, -1)


def features(box, inputs):
    return np.column_stack([box((), inputs).embeddings, np.ones(len(inputs))])


def test_it_equals_the_centralised_fit(attempt):
    box = ToyEncoder()
    tried = attempt(
        "linear-probe",
        box,
        "It was {label} .",
        classes=3,
        sizes=(6, 9, 12),
        options={"penalties": [0.05], "rounds": 200},
    )
    train = tried.split.train.values()
    inputs = [text for batch in train for text in batch.inputs]
    targets = np.concatenate([batch.targets for batch in train])
    want = pooled(features(box, inputs), targets, 3, 0.05)
    found = tried.learned["weights"]
    # The loss is blind to the same shift of all classes.
    np.testing.assert_allclose(found[0] - found[0].mean(0), want - want.mean(0), atol=5e-3)
    test = tried.split.test["(test)"]
    scores = log_softmax(features(box, test.inputs) @ found[0].T, axis=1)
    assert tried.result["tuned"]["accuracy"] == (scores.argmax(axis=1) == test.targets).mean()
    own = scores[np.arange(test.size), test.targets]
    assert tried.result["tuned"]["loss"] == pytest.approx(-own.mean())
    # No query but the examples, however many rounds it takes.
    assert tried.result["queries"]["train"] == len(set(inputs))


def test_the_penalty_is_the_best_on_held_back_examples(attempt):
    box = ToyEncoder()
    tried = attempt("linear-probe", box, "It was {label} .", options={"penalties": [9.0, 0.01]})
    batches = [batch for batch in tried.split.holdout.values() if batch.size]
    (weights,) = tried.learned["weights"]
    assert np.abs(weights).max() > 1  # the strong penalty allows no such weights
    assert tried.result["queries"]["select"] == sum(batch.size for batch in batches)


def test_a_box_without_embeddings_is_refused(attempt):
    with pytest.raises(Incompatible, match="linear_probe needs embeddings, but function:toy"):
        attempt("linear-probe", toy_box(), "It was {label} .")


def test_numbers_are_refused(attempt):
    rows = [("cold", "0.1", "ash"), ("warm", "0.9", "ash"), ("hot", "1.0", "ash")]
    changes = {"train": rows, "test": rows, "task": "rate", "data": {"range": [0, 1]}}
    with pytest.raises(Incompatible, match="linearprobe learns classes, but the labels"):
        attempt("linear-probe", ToyEncoder(), "It was {label} .", **changes)
