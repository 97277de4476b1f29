"""From a classifier's own classes to those of a task: counts, naive Bayes, and steps from there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.maths import label_mapping as lm
from fedbbpt.maths.merge import weighted_mean
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.types import Update

S, C = 9, 4


def answers(seed=0, size=40, sharp=2.0):
    """((N, S) log-probabilities, (N,) classes) with a signal."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, C, size)
    means = np.random.default_rng(99).normal(0, sharp, (C, S))
    return log_softmax(means[targets] + rng.normal(0, 1, (size, S))), targets


def shared_out(size, clients, seed=0):
    """Rows of each client, some of whom may hold none."""
    owner = np.random.default_rng(seed).integers(0, clients, size)
    return [np.flatnonzero(owner == k) for k in range(clients)]


# --- against a plain transcription ---------------------------------------------------------------


def plain_features(log_p):
    return np.array([[p**0.2 / sum(q**0.2 for q in row) for p in row] for row in np.exp(log_p)])


def plain_weights(log_p, targets):
    """Multinomial naive Bayes, a loop for each sum."""
    features = plain_features(log_p)
    every = [sum(features[n, s] for n in range(len(targets))) for s in range(S)]
    m = [(t + 0.1) / (sum(every) + 0.1 * S) for t in every]
    table = np.zeros((C, S))
    for c in range(C):
        own = [features[n] for n in range(len(targets)) if targets[n] == c]
        for s in range(S):
            t = sum(row[s] for row in own)
            table[c, s] = np.log((t + 0.3 * m[s]) / (len(own) + 0.3))
    return table


def test_weights_and_scores_are_those_of_naive_bayes():
    log_p, targets = answers()
    counts = lm.count(log_p, targets, C)
    assert counts.dtype == np.int64 and counts.shape == (C, S)
    # Sums are rounded once, to 1/10,000 of an example.
    rounding = np.abs(
        counts / lm.UNIT
        - np.array([plain_features(log_p)[targets == c].sum(axis=0) for c in range(C)])
    )
    assert rounding.max() <= 0.5 / lm.UNIT + 1e-12
    mapping = lm.weights(counts)
    assert mapping.dtype == np.float32
    np.testing.assert_allclose(mapping, plain_weights(log_p, targets), atol=2e-4)
    np.testing.assert_allclose(np.exp(mapping.astype(np.float64)).sum(axis=1), 1.0, rtol=1e-4)
    found = lm.scores(log_p, 200 * mapping)
    for row, features in zip(found, plain_features(log_p), strict=True):
        raw = [sum(f * w for f, w in zip(features, line, strict=True)) for line in 200 * mapping]
        want = np.array(raw) - max(raw)
        np.testing.assert_allclose(row, want - np.log(np.exp(want).sum()), atol=1e-6)
    assert (found.argmax(axis=1) == targets).mean() > 0.8


def test_losses_are_the_cross_entropy_under_each_sharpness():
    log_p, targets = answers()
    counts = lm.count(*answers(seed=1), C)
    found = lm.losses(log_p, targets, counts)
    assert found.shape == (9,) and lm.SHARPNESSES[0] == 100 and lm.SHARPNESSES[-1] == 1600
    assert lm.SHARPNESS in lm.SHARPNESSES
    for beta, loss in zip(lm.SHARPNESSES, found, strict=True):
        own = lm.scores(log_p, beta * lm.weights(counts))[np.arange(40), targets]
        assert loss == pytest.approx(-own.mean(), rel=1e-5)


def test_a_sharpness_changes_no_answer():
    log_p, targets = answers()
    mapping = lm.weights(lm.count(log_p, targets, C))
    each = [lm.scores(log_p, beta * mapping).argmax(axis=1) for beta in lm.SHARPNESSES]
    assert all((one == each[0]).all() for one in each)


# --- edges ---------------------------------------------------------------------------------------


def test_rows_without_an_answer_count_nowhere():
    log_p, targets = answers()
    holes = log_p.copy()
    holes[[3, 17]] = np.nan
    holes[5, 2] = -np.inf
    rest = np.delete(np.arange(40), [3, 17, 5])
    np.testing.assert_array_equal(
        lm.count(holes, targets, C), lm.count(log_p[rest], targets[rest], C)
    )
    mapping = 100 * lm.weights(lm.count(log_p, targets, C))
    for name, own, want in zip(
        lm.Slope._fields,
        lm.slope(holes, targets, mapping),
        lm.slope(log_p[rest], targets[rest], mapping),
        strict=True,
    ):
        np.testing.assert_allclose(own, want, err_msg=name)
    counts = lm.count(log_p, targets, C)
    np.testing.assert_allclose(
        lm.losses(holes, targets, counts), lm.losses(log_p[rest], targets[rest], counts)
    )
    none = lm.slope(np.full((2, S), np.nan), targets[:2], mapping)
    assert not any(np.any(part) for part in none)
    assert not lm.count(np.full((2, S), np.nan), targets[:2], C).any()


def test_a_class_without_examples_looks_like_all_of_them_together():
    log_p, targets = answers()
    kept = targets != 2
    mapping = lm.weights(lm.count(log_p[kept], targets[kept], C))
    assert np.isfinite(mapping).all()
    every = plain_features(log_p[kept]).sum(axis=0) + 0.1
    np.testing.assert_allclose(np.exp(mapping[2]), every / every.sum(), rtol=1e-3)
    found = lm.scores(log_p, 400 * mapping)
    assert np.isfinite(found).all() and (found[kept].argmax(axis=1) == targets[kept]).mean() > 0.8


def test_nothing_counted_is_nothing_known():
    mapping = lm.weights(np.zeros((C, S), np.int64))
    np.testing.assert_allclose(mapping, np.log(1 / S), rtol=1e-6)
    log_p, _ = answers()
    np.testing.assert_allclose(lm.scores(log_p, 400 * mapping), np.log(1 / C), rtol=1e-5)


def test_a_single_client_has_nobody_else():
    total = lm.count(*answers(), C)
    np.testing.assert_array_equal(lm.others(total, total), total)
    part = lm.count(*answers(seed=1), C)
    np.testing.assert_array_equal(lm.others(total + part, part), total)


def test_a_sure_model_and_one_that_rules_classes_out():
    """One-hot answers, as quantised models give them: logarithms of 1e-6, not of 0."""
    log_p = np.full((6, S), np.log(1e-6))
    log_p[np.arange(6), [0, 0, 3, 3, 5, 5]] = 0.0
    targets = np.array([0, 0, 1, 1, 2, 2])
    mapping = lm.weights(lm.count(log_p, targets, C))
    assert (lm.scores(log_p, 400 * mapping).argmax(axis=1) == targets).all()
    assert (mapping.argmax(axis=1)[:3] == [0, 3, 5]).all()


# --- many clients are one ------------------------------------------------------------------------


@given(seed=st.integers(0, 50), clients=st.integers(1, 6), order=st.randoms())
def test_counts_of_clients_are_those_of_the_pool(seed, clients, order):
    log_p, targets = answers(seed)
    each = [lm.count(log_p[r], targets[r], C) for r in shared_out(40, clients, seed)]
    whole = lm.count(log_p, targets, C)
    total = sum(each)
    # Each client rounds for itself.
    assert np.abs(total - whole).max() <= clients / 2 + 0.5
    order.shuffle(each)
    np.testing.assert_array_equal(lm.weights(sum(each)), lm.weights(total))


@given(seed=st.integers(0, 50), clients=st.integers(1, 6), order=st.randoms())
def test_slopes_of_clients_are_those_of_the_pool(seed, clients, order):
    log_p, targets = answers(seed)
    mapping = 150 * lm.weights(lm.count(*answers(99), C))
    updates = []
    for k, rows in enumerate(shared_out(40, clients, seed)):
        if len(rows):
            found = lm.slope(log_p[rows], targets[rows], mapping)
            updates.append(Update(f"c{k}", 0, float(len(rows)), found._asdict()))
    means = lm.Slope(*(weighted_mean(updates, name) for name in lm.Slope._fields))
    whole = lm.slope(log_p, targets, mapping)
    for name, own, want in zip(lm.Slope._fields, means, whole, strict=True):
        np.testing.assert_allclose(own, want, rtol=1e-6, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(lm.step(mapping, means), lm.step(mapping, whole), atol=1e-3)
    order.shuffle(updates)
    again = lm.Slope(*(weighted_mean(updates, name) for name in lm.Slope._fields))
    np.testing.assert_array_equal(lm.step(mapping, again), lm.step(mapping, means))


# --- steps ---------------------------------------------------------------------------------------


def loss(log_p, targets, mapping):
    """In float64 throughout, whatever the type of the mapping."""
    raw = plain_features(log_p) @ mapping.T
    return -log_softmax(raw)[np.arange(len(targets)), targets].mean()


def test_the_slope_is_the_gradient():
    log_p, targets = answers(size=12)
    mapping = (60 * lm.weights(lm.count(log_p, targets, C))).astype(np.float64)
    found = lm.slope(log_p, targets, mapping)
    for c, s in ((0, 0), (1, 3), (3, 8)):
        h = np.zeros((C, S))
        h[c, s] = 1e-3
        both = [loss(log_p, targets, mapping + sign * h) for sign in (1, -1)]
        assert found.product[c, s] == pytest.approx((both[0] - both[1]) / 2e-3, abs=1e-7)
    np.testing.assert_allclose(found.errors.sum(), 0.0, atol=1e-12)
    np.testing.assert_allclose(found.features, plain_features(log_p).mean(axis=0))
    assert found.square == pytest.approx((plain_features(log_p) ** 2).sum(axis=1).mean())


def test_a_step_is_a_gradient_step_on_centred_features_of_length_one():
    """score = V (f - mean) / length + b, moved by C times the slope in V; b stays."""
    log_p, targets = answers()
    mapping = (60 * lm.weights(lm.count(log_p, targets, C))).astype(np.float64)
    features = plain_features(log_p)
    mean = features.mean(axis=0)
    length = np.sqrt(((features - mean) ** 2).sum(axis=1).mean())
    centred = (features - mean) / length
    assert (centred**2).sum(axis=1).mean() == pytest.approx(1.0)
    v, b = mapping * length, mapping @ mean
    error = np.exp(log_softmax(centred @ v.T + b)) - np.eye(C)[targets]
    v = v - C * lm.RATE * error.T @ centred / len(targets)
    moved = lm.step(mapping, lm.slope(log_p, targets, mapping))
    want = log_softmax(centred @ v.T + b)
    np.testing.assert_allclose(log_softmax(features @ moved.astype(np.float64).T), want, atol=1e-4)


def test_steps_lower_the_loss():
    log_p, targets = answers(size=200, sharp=0.7)
    mapping = 100 * lm.weights(lm.count(log_p, targets, C))
    losses = [loss(log_p, targets, mapping)]
    for _ in range(lm.STEPS):
        mapping = lm.step(mapping, lm.slope(log_p, targets, mapping))
        losses.append(loss(log_p, targets, mapping))
    assert mapping.dtype == np.float32 and losses[-1] < 0.9 * losses[0]
    assert (np.diff(losses) < 1e-3).all()


def test_a_step_without_any_spread_stays_where_it_is():
    same = np.tile(np.log(np.arange(1, S + 1) / 45), (5, 1))
    targets = np.array([0, 1, 2, 3, 0])
    mapping = 100 * lm.weights(lm.count(same, targets, C))
    moved = lm.step(mapping, lm.slope(same, targets, mapping))
    assert np.isfinite(moved).all()
    np.testing.assert_allclose(lm.scores(same, moved), lm.scores(same, mapping), atol=1e-2)
