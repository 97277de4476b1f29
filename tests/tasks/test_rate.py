import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax, softmax

from fedbbpt.errors import ConfigError
from fedbbpt.random import stream
from fedbbpt.tasks.rate import Rate
from fedbbpt.testing.toys import ToyVocabulary
from fedbbpt.types import Batch, Reply

SCORES = hnp.arrays(np.float64, st.just((2, 5, 2)), elements=st.floats(-50, 50))
BATCH = Batch(tuple("abcde"), np.array([0.0, 0.25, 0.5, 0.9, 1.0]))


@given(SCORES)
def test_the_loss_is_the_cross_entropy_to_a_soft_target(scores):
    log_p = log_softmax(scores, axis=2)
    soft = np.stack([1 - BATCH.targets, BATCH.targets], axis=1)
    expected = -(soft * log_p).sum(axis=2)
    loss = Rate().loss(Reply(scores), BATCH)
    np.testing.assert_allclose(loss, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        Rate().answers(Reply(scores)), softmax(scores, axis=2)[..., 1], rtol=1e-9
    )


def test_no_target_has_a_lower_loss_than_its_own_probability():
    grid = np.linspace(0.01, 0.99, 99)
    scores = np.log(np.stack([1 - grid, grid], axis=1))[:, None]
    for target in (0.1, 0.25, 0.5, 0.9):
        loss = Rate().loss(Reply(scores), Batch(("a",), np.array([target])))[:, 0]
        assert grid[loss.argmin()] == pytest.approx(target)


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_no_answer_is_no_number(score):
    scores = np.zeros((1, 2, 2))
    scores[0, 0] = score
    batch = BATCH.take([1, 3])
    assert np.isfinite(Rate().answers(Reply(scores))).tolist() == [[False, True]]
    assert np.isfinite(Rate().loss(Reply(scores), batch)).tolist() == [[False, True]]


def test_the_guard_divides_by_the_loss_on_garbage():
    task = Rate(guard="ratio", vocabulary=ToyVocabulary())
    asked = task.extend(BATCH, stream(0, "guard"))
    assert asked.size == 10 and asked.targets.tolist() == [*BATCH.targets] * 2
    scores = np.log(np.random.default_rng(0).dirichlet([1, 1], (3, 10)))
    whole = Rate().loss(Reply(scores), asked)
    np.testing.assert_allclose(task.loss(Reply(scores), BATCH), whole[:, :5] / whole[:, 5:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_kind": "hinge"}, "loss is 'hinge'; for numbers it must be cross_entropy"),
        ({"measure": "matthews"}, "metric is 'matthews'; this task knows: spearman"),
        ({"guard": "on"}, "guard is 'on'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Rate(**options)


def test_an_answer_is_as_right_as_it_is_near():
    scores = np.log(np.array([[[0.5, 0.5], [0.25, 0.75], [0.5, 0.5], [0.1, 0.9], [1.0, 1.0]]]))
    scores[0, 4] = np.nan
    score = Rate().score(Reply(scores), BATCH)
    np.testing.assert_allclose(score, [[0.5, 0.5, 1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(Rate().sure(Reply(scores), BATCH), score)
