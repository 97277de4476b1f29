"""What result.json says of a run equals what scikit-learn and scipy say of its predictions."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from fedbbpt import api
from fedbbpt.artefact import Tuned
from fedbbpt.config import resolve
from fedbbpt.data.load import Table
from fedbbpt.errors import UsageError
from fedbbpt.sharing import share_out
from fedbbpt.testing.toys import ToyEncoder, toy_batch

NAMES = ("bad", "good", "odd")


def table(batch, labels):
    sites = tuple("ab"[i % 3 == 0] for i in range(batch.size))
    return Table(batch.inputs, tuple(labels), sites)


def classified(size, seed, classes=2):
    batch = toy_batch(size, classes, seed)
    few = batch.take([i for i in range(size) if i % 4 or batch.targets[i] == 0])
    return table(few, [NAMES[t] for t in few.targets])


def rated(size, seed):
    batch = toy_batch(size, 2, seed)
    numbers = batch.targets * 4.0 + np.random.default_rng(seed).random(size)
    return table(batch, [str(round(number, 2)) for number in numbers])


def run(folder, train, test, **sections):
    tree = {
        "data": {"train": ""},
        "prompt": {"template": "It was {label}.", "dim": 8, "per_class": False},
        "budget": {"queries": 600},
        "rounds": {"max": 8},
        **sections,
    }
    config = resolve(tree, folder)
    return api.run(config, folder / "run", box=ToyEncoder(), split=share_out(config, train, test))


def told(folder, phase):
    events = map(json.loads, (folder / "run" / "events.jsonl").read_text().splitlines())
    return [event for event in events if event["event"] == phase]


@pytest.mark.parametrize("positive", ["", "bad"])
@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_a_metric_of_counts(tmp_path, metric, positive):
    train, test = classified(60, 0), classified(90, 1)
    data = {"train": "", "positive": positive}
    outcome = run(tmp_path, train, test, metric=metric, data=data)
    result = outcome.result

    def by_sklearn(labels, said):
        if metric == "matthews":
            return matthews_corrcoef(labels, said)
        return f1_score(labels, said, pos_label=positive or "good")

    said = outcome.predict(test.inputs)
    assert result["metric"] == metric
    assert set(result["baseline"]) == set(result["tuned"]) == {metric, "loss"}
    assert result["tuned"][metric] == pytest.approx(by_sklearn(test.labels, said), abs=1e-12)
    for site, (_, after) in outcome.by_client.items():
        own = [i for i, name in enumerate(test.sites) if name == site]
        expected = by_sklearn([test.labels[i] for i in own], [said[i] for i in own])
        assert after == pytest.approx(expected, abs=1e-12)
    low, high = result["gain_interval"]
    assert low < result["tuned"][metric] - result["baseline"][metric] < high
    curve = told(tmp_path, "snapshot")
    assert curve[0]["test_score"] == result["baseline"][metric]
    for event in told(tmp_path, "evaluate"):
        assert set(event) - {"event", "time", "client", "examples"} == {"losses", "joint"}


def test_a_correlation_over_two_holders(tmp_path):
    train, test = rated(48, 0), rated(60, 1)
    outcome = run(
        tmp_path,
        train,
        test,
        task="rate",
        data={"train": "", "range": [0, 5]},
        prompt={"template": "It was {label}.", "dim": 8, "labels": {"low": "dull", "high": "fine"}},
    )
    tuned = outcome.tuned
    assert isinstance(tuned, Tuned) and tuned.classes == ("low", "high")
    scores = ToyEncoder()([tuned.prompt], test.inputs).scores[0]
    high = np.exp(scores[:, 1])
    numbers, sites = np.array([float(x) for x in test.labels]), np.array(test.sites)
    own = {s: spearmanr(high[sites == s], numbers[sites == s]).statistic for s in "ab"}
    for site, (_, after) in outcome.by_client.items():
        assert after == pytest.approx(own[site])
    expected = np.mean([own[site] for site in test.sites])
    assert outcome.result["metric"] == "spearman"
    assert outcome.result["tuned"]["spearman"] == pytest.approx(expected)
    target = numbers / 5
    loss = -(target * scores[:, 1] + (1 - target) * scores[:, 0]).mean()
    assert outcome.result["tuned"]["loss"] == pytest.approx(loss)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"metric": "f1"}, "metric is 'f1', which needs two classes, and there are 3"),
        ({"metric": "spearman"}, "metric is 'spearman'; this task knows: accuracy, f1, matthews"),
        ({"data": {"train": "", "positive": "god"}}, "data.positive is 'god'; did you mean 'good'"),
        ({"data": {"train": "", "range": [0, 5]}}, "data.range is for labels that are numbers"),
    ],
)
def test_what_does_not_fit_classes(tmp_path, sections, message):
    train = classified(36, 0, classes=3)
    with pytest.raises(UsageError, match=message):
        run(tmp_path, train, None, **sections)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"metric": "matthews"}, "metric is 'matthews'; this task knows: spearman"),
        ({"method": {"loss": "hinge"}}, "loss is 'hinge'"),
        ({"data": {"train": ""}}, r"data.range, such as \[0, 5\]"),
        ({"data": {"train": "", "range": [5, 0]}}, r"data.range is \[5, 0\]; the first must be"),
        ({"data": {"train": "", "range": [1, 1]}}, r"data.range is \[1, 1\]"),
        ({"data": {"train": "", "range": [0, 3]}}, "asks for a number between 0 and 3"),
        ({"prompt": {"template": "{label}", "labels": {"lo": "no"}}}, "prompt.labels names 'lo'"),
    ],
)
def test_what_does_not_fit_numbers(tmp_path, sections, message):
    data = {"train": "", "range": [0, 5]}
    with pytest.raises(UsageError, match=message):
        run(tmp_path, rated(24, 0), None, **({"task": "rate", "data": data} | sections))
    assert not (tmp_path / "run").exists()
