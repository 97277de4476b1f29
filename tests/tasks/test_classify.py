import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax

from fedbbpt.errors import ConfigError
from fedbbpt.random import stream
from fedbbpt.tasks.classify import Classify
from fedbbpt.testing.toys import ToyVocabulary, toy_batch
from fedbbpt.types import NO_LABEL, Batch, Reply

SCORES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 4)),
    elements=st.floats(-50, 50),
)


def batch_for(scores):
    targets = np.arange(scores.shape[1]) % scores.shape[2]
    return Batch(tuple(f"text {i}" for i in range(len(targets))), targets)


# --- losses --------------------------------------------------------------------------------------


@given(SCORES)
def test_cross_entropy_is_minus_the_log_softmax_of_the_target(scores):
    batch = batch_for(scores)
    expected = -log_softmax(scores, axis=2)[:, np.arange(batch.size), batch.targets]
    loss = Classify().loss(Reply(scores), batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-12, atol=1e-12)


def test_cross_entropy_of_a_choice_that_is_all_but_certain():
    scores = np.array([[[0.0, -2000.0], [-2000.0, 0.0]]])
    loss = Classify().loss(Reply(scores), Batch(("a", "b"), np.array([0, 0])))
    np.testing.assert_allclose(loss, [[0.0, 2000.0]])


def test_hinge_by_hand():
    """Margin 2. Right label -1: the others, -2 and -4, are 1 and 3 behind, so 2 - 1 = 1 and 0.
    Right label -4: the others are 3 and 2 ahead, so 3 + 2 and 2 + 2."""
    scores = np.array([[[-1.0, -2.0, -4.0], [-1.0, -2.0, -4.0]]])
    loss = Classify("hinge").loss(Reply(scores), Batch(("a", "b"), np.array([0, 2])))
    np.testing.assert_allclose(loss, [[1.0, 9.0]])


@given(SCORES, st.floats(0, 5))
def test_hinge_sums_over_the_wrong_labels(scores, margin):
    batch = batch_for(scores)
    loss = Classify("hinge", margin=margin).loss(Reply(scores), batch)
    for k, b in np.ndindex(loss.shape):
        right = batch.targets[b]
        wrong = [c for c in range(scores.shape[2]) if c != right]
        terms = [max(0.0, margin + scores[k, b, c] - scores[k, b, right]) for c in wrong]
        assert loss[k, b] == pytest.approx(sum(terms), abs=1e-9)


@given(SCORES)
def test_error_is_what_the_metric_leaves(scores):
    batch = batch_for(scores)
    task = Classify("error")
    loss = task.loss(Reply(scores), batch)
    np.testing.assert_array_equal(loss, 1.0 - task.score(Reply(scores), batch))
    right = scores.argmax(axis=2) == batch.targets
    np.testing.assert_array_equal(loss == 0, right)


@pytest.mark.parametrize("kind", ["cross_entropy", "hinge", "error"])
@pytest.mark.parametrize("hole", [(0, 0, 0), (0, 0, 1), (0, 0, slice(None))])
def test_an_unanswered_row_has_no_loss_and_scores_nothing(kind, hole):
    scores = log_softmax(np.array([[[2.0, 1.0], [1.0, 2.0]], [[0.0, 1.0], [3.0, 1.0]]]), axis=2)
    scores[hole] = np.nan
    batch, task = Batch(("a", "b"), np.array([0, 1])), Classify(kind)
    loss = task.loss(Reply(scores), batch)
    assert np.isnan(loss[0, 0])
    assert np.isfinite(loss).sum() == 3
    np.testing.assert_array_equal(task.score(Reply(scores), batch), [[0, 1], [0, 0]])


@given(SCORES)
def test_how_sure_is_the_probability_of_the_right_label(scores):
    batch = batch_for(scores)
    sure = Classify("error").sure(Reply(scores), batch)
    loss = Classify("cross_entropy").loss(Reply(scores), batch)
    np.testing.assert_allclose(sure, np.exp(-loss), atol=1e-12)
    assert ((sure >= 0) & (sure <= 1)).all()
    scores[0, 0], scores[-1, -1] = np.nan, NO_LABEL
    sure = Classify().sure(Reply(scores), batch)
    assert sure[0, 0] == sure[-1, -1] == 0 and np.isfinite(sure).all()


def test_the_metric():
    scores = np.array([[[0.0, -1.0], [0.0, -1.0], [-1.0, 0.0]]])
    task = Classify()
    assert task.metric.name == "accuracy"
    batch = Batch(("a", "b", "c"), np.array([0, 1, 1]))
    np.testing.assert_array_equal(task.score(Reply(scores), batch), [[1.0, 0.0, 1.0]])
    scores[0, 1, 1] = np.nan
    assert task.answers(Reply(scores)).tolist() == [[0, -1, 1]]


# --- the guard -----------------------------------------------------------------------------------


def guarded(guard="ratio", rate=0.6, **options):
    return Classify(guard=guard, guard_rate=rate, vocabulary=ToyVocabulary(), **options)


def test_without_a_guard_nothing_is_added():
    assert not Classify().extends
    assert guarded().extends


def test_companions_stand_behind_the_batch():
    batch = toy_batch(6, classes=3)
    asked = guarded().extend(batch, stream(0, "test"))
    assert asked.size == 12
    assert asked.inputs[:6] == batch.inputs
    np.testing.assert_array_equal(asked.targets, [*batch.targets, *batch.targets])
    again = guarded().extend(batch, stream(0, "test"))
    assert asked.inputs == again.inputs
    assert asked.inputs != guarded().extend(batch, stream(1, "test")).inputs


@pytest.mark.parametrize("rate", [0.1, 0.6, 1.0])
def test_a_share_of_the_tokens_is_replaced(rate):
    vocabulary = ToyVocabulary()
    text = " ".join(f"word{i}" for i in range(4000))
    batch = Batch((text,), np.array([0]))
    garbled = guarded(rate=rate).extend(batch, stream(0, "test")).inputs[1]
    before, after = vocabulary.tokenise(text), vocabulary.tokenise(garbled)
    assert len(before) == len(after)
    changed = np.mean(np.array(before) != np.array(after))
    assert changed == pytest.approx(rate * 254 / 255, abs=0.03)
    assert 0 not in set(after) - set(before)  # id 0 is no ordinary word


def test_a_text_without_tokens_stays_without():
    asked = guarded().extend(Batch(("", "word"), np.array([0, 1])), stream(0, "test"))
    assert asked.inputs[2] == ""


def test_ratio_divides_each_example_by_its_own_garbage():
    """FedBPT equation 7."""
    scores = log_softmax(stream(0, "test").standard_normal((3, 8, 2)), axis=2)
    batch = toy_batch(4)
    plain = Classify()
    own = plain.loss(Reply(scores[:, :4]), batch)
    garbage = plain.loss(Reply(scores[:, 4:]), batch)
    loss = guarded("ratio").loss(Reply(scores), batch)
    np.testing.assert_allclose(loss, own / garbage)
    means = guarded("ratio-of-means").loss(Reply(scores), batch)
    np.testing.assert_allclose(means.mean(axis=1), own.mean(axis=1) / garbage.mean(axis=1))


def test_a_garbage_loss_of_nothing_does_not_lose_the_candidate():
    scores = np.array([[[-1.0, -0.5], [0.0, -2000.0]]])
    loss = guarded().loss(Reply(scores), Batch(("a",), np.array([0])))
    assert np.isfinite(loss).all()


def test_selection_and_reports_know_no_guard():
    scores = log_softmax(stream(0, "test").standard_normal((3, 4, 2)), axis=2)
    batch = toy_batch(4)
    for guard in ("ratio", "ratio-of-means"):
        np.testing.assert_array_equal(
            guarded(guard).plain_loss(Reply(scores), batch), Classify().loss(Reply(scores), batch)
        )


def test_unanswered_garbage_loses_its_candidate():
    scores = log_softmax(stream(0, "test").standard_normal((2, 4, 2)), axis=2)
    scores[1, 3] = np.nan
    for guard in ("ratio", "ratio-of-means"):
        loss = guarded(guard).loss(Reply(scores), toy_batch(2)).mean(axis=1)
        assert np.isfinite(loss[0])
        assert np.isnan(loss[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_kind": "mse"}, "loss is 'mse'; known: cross_entropy, hinge, error"),
        ({"guard": "on"}, "guard is 'on'"),
        ({"guard_rate": 0.0}, "guard_rate is 0.0"),
        ({"guard_rate": 1.5}, "guard_rate is 1.5"),
        ({"guard": "ratio"}, "needs a box with a vocabulary"),
        ({"measure": "spearman"}, "metric is 'spearman'; this task knows: accuracy, f1, matthews"),
        ({"measure": "f1", "classes": 3}, "metric is 'f1', which needs two classes.* are 3"),
        ({"measure": "matthews", "classes": 4}, "metric is 'matthews', which needs two"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Classify(**options)
