import numpy as np
import pytest

from fedbbpt import registry
from fedbbpt.errors import BoxError, ConfigError
from fedbbpt.tasks.generate import Generate
from fedbbpt.types import Batch, Reply

TARGETS = np.empty(3, object)
TARGETS[:] = [("cat", "kitten"), ("1",), ("the red cat",)]
BATCH = Batch(("a", "b", "c"), TARGETS)


def reply(*rows):
    return Reply(np.zeros((len(rows), len(rows[0]), 0)), texts=rows)


def test_a_loss_is_one_less_the_best_score():
    said = reply(("Kitten.", "1.0", "red cat"), ("dog", "one", "blue cat"))
    expected = {
        "exact": [[0, 1, 0], [1, 1, 1]],
        "number": None,
        "f1": [[0, 1, 0], [1, 1, 0.5]],
        "set": [[0, 1, 1], [1, 1, 1]],
        "contains": [[0, 1, 0], [1, 1, 1]],
    }
    for measure, losses in expected.items():
        task = Generate(measure=measure)
        assert task.metric.name == measure
        if losses is not None:
            assert task.loss(said, BATCH).tolist() == losses
            assert task.plain_loss(said, BATCH).tolist() == losses
            score = task.metric.value(task.metric.tell(task.answers(said), TARGETS))
            np.testing.assert_allclose(score, 1 - np.mean(losses, axis=1))
    numbers = BATCH.take([1])
    assert Generate(measure="number").loss(reply(("1.0",), ("2",)), numbers).tolist() == [[0], [1]]


def test_no_answer_is_no_loss_but_no_score_either():
    task = Generate(measure="auto")
    said = reply((None, "", "red cat"))
    np.testing.assert_array_equal(task.loss(said, BATCH), [[np.nan, 1, 0]])
    told = task.metric.tell(task.answers(said), TARGETS)
    assert task.metric.name == "exact" and told["scores"].tolist() == pytest.approx([1 / 3])


def test_a_score_is_of_each_answer_and_there_is_nothing_surer():
    task, said = Generate(measure="f1"), reply(("Kitten.", None, "blue cat"))
    np.testing.assert_array_equal(task.score(said, BATCH), [[1, 0, 0.5]])
    np.testing.assert_array_equal(task.sure(said, BATCH), task.score(said, BATCH))


def test_batches_of_references_are_cut_and_joined():
    both = BATCH.take([2]).joined(BATCH.take([0, 1]))
    assert both.targets.tolist() == [TARGETS[2], TARGETS[0], TARGETS[1]]
    assert Generate().loss(reply(("red cat", "cat", "1")), both).tolist() == [[0, 0, 0]]
    assert Generate().loss(reply((), ()), BATCH.take([])).shape == (2, 0)


def test_labels_are_no_words():
    with pytest.raises(BoxError, match="scores of labels"):
        Generate().loss(Reply(np.zeros((1, 3, 2))), BATCH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_kind": "hinge"}, "loss is 'hinge'; for answers in words it must be 'error'"),
        ({"measure": "accuracy"}, "metric is 'accuracy'; for answers in words it must be one of"),
        ({"guard": "ratio"}, "guard is 'ratio'; for answers in words it must be 'none'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Generate(**options)


def test_it_is_found_by_its_name():
    made = registry.make("tasks", "generate", {}, "task", measure="f1", loss_kind="error", margin=2)
    assert made == Generate("error", measure="f1") and made.words
