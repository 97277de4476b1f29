import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from fedbbpt.maths.merge import weighted_mean
from fedbbpt.maths.metrics import F1, Accuracy, Matthews, Spearman
from fedbbpt.types import Update

METRICS = [Accuracy(), F1(1), F1(0), Matthews(1), Matthews(0)]
law = settings(deadline=None, max_examples=100)


@st.composite
def holders(draw):
    """One to three clients' targets and three answers to each example, -1 for none."""
    clients = []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 12))
        few = st.lists(st.integers(0, 1), min_size=size, max_size=size)
        said = st.lists(st.integers(-1, 1), min_size=size, max_size=size)
        clients.append((np.array([draw(said) for _ in range(3)]), np.array(draw(few))))
    return clients


def merged(metric, clients):
    """What the server makes of what the clients tell."""
    sent = []
    for number, (answers, targets) in enumerate(clients):
        told = metric.tell(answers, targets)
        assert tuple(told) == metric.sends
        sent.append(Update(str(number), 0, targets.size, told))
    return {name: weighted_mean(sent, name) for name in metric.sends}


def by_sklearn(metric, answers, targets):
    said = np.where(answers < 0, 1 - targets, answers)
    if metric.name == "f1":
        return f1_score(targets, said, pos_label=metric.positive, zero_division=0.0)
    if metric.name == "accuracy":
        return accuracy_score(targets, said)
    # sklearn warns of a single class, for which it gives 0 as we do.
    return matthews_corrcoef(targets, said) if {*targets, *said} == {0, 1} else 0.0


@law
@given(holders(), st.sampled_from(METRICS))
def test_metrics_over_clients_are_those_of_sklearn_on_all_examples(clients, metric):
    told = merged(metric, clients)
    answers = np.concatenate([answers for answers, _ in clients], axis=1)
    targets = np.concatenate([targets for _, targets in clients])
    expected = [by_sklearn(metric, own, targets) for own in answers]
    np.testing.assert_allclose(metric.value(told), expected, rtol=0, atol=1e-12)


def test_the_joint_table_by_hand():
    targets = np.array([0, 0, 1, 1])
    answers = np.array([[0, 1, 1, 0], [0, 0, -1, 1]])
    joint = Matthews(1).tell(answers, targets)["joint"]
    # target 0: right then right, wrong then right; target 1: right then none, wrong then right
    assert joint[1, 0, 0, 0] == joint[1, 0, 1, 0] == joint[1, 1, 1, 0] == joint[1, 1, 0, 1] == 0.25
    assert joint.sum(axis=(1, 2, 3)).tolist() == [1.0, 1.0]


@law
@given(st.integers(3, 30), st.integers(0, 10**6))
def test_spearman_is_that_of_scipy(size, seed):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 6, size) / 5
    targets[:2] = 0, 1
    answers = np.round(rng.random((2, size)), 1)
    answers[:, :2] = 0, 1
    told = Spearman().tell(answers, targets)
    expected = [spearmanr(own, targets).statistic for own in answers]
    np.testing.assert_allclose(Spearman().value(told), expected, atol=1e-12)


def test_spearman_over_holders_weighs_them_by_examples():
    up, down = np.linspace(0, 1, 6), np.linspace(1, 0, 3)
    clients = [(up[None], up), (down[None], down[::-1])]
    assert Spearman().value(merged(Spearman(), clients))[0] == pytest.approx((6 - 3) / 9)


def test_spearman_of_constants_and_of_nothing():
    targets = np.array([0.0, 0.4, 0.6, 1.0])
    answers = np.array([[0.5, 0.5, 0.5, 0.5], [np.nan] * 4, [0.1, np.nan, 0.8, 0.9]])
    scores = Spearman().tell(answers, targets)["scores"]
    # No answer is the pole that is farther away: (1, 1, 0, 0), and (.1, 1, .8, .9).
    assert scores[0] == 0.0
    assert scores[1] == pytest.approx(spearmanr([1, 1, 0, 0], targets).statistic)
    assert scores[2] == pytest.approx(spearmanr([0.1, 1, 0.8, 0.9], targets).statistic)


# --- intervals -----------------------------------------------------------------------------------


def classified(rng, size):
    """Two prompts, right for .65 and .75 of the positive and for .8 and .85 of the negative."""
    targets = (rng.random(size) < 0.3).astype(int)
    luck = rng.random(size)
    other = np.where(rng.random(size) < 0.5, luck, rng.random(size))
    right = luck < np.where(targets, 0.65, 0.8), other < np.where(targets, 0.75, 0.85)
    return np.where(np.array(right), targets, 1 - targets), targets


def rated(rng, size):
    targets = np.round(rng.random(size) * 5) / 5
    noise = rng.normal(size=(2, size)) * [[0.3], [0.2]]
    return 1 / (1 + np.exp(-targets - noise)), targets


@pytest.mark.parametrize(
    ("metric", "draw", "runs"),
    [(m, classified, 300) for m in (Accuracy(), F1(1), Matthews(1))] + [(Spearman(), rated, 150)],
)
def test_an_interval_covers_the_true_gain_in_95_of_100_runs(metric, draw, runs):
    rng = np.random.default_rng(0)
    if metric.name == "spearman":
        true = np.mean([np.diff(metric.tell(*draw(rng, 2000))["scores"]) for _ in range(3)])
    else:
        true = np.diff(metric.value(metric.tell(*draw(rng, 500_000))))[0]
    covered = 0
    for _ in range(runs):
        low, high = metric.interval(metric.tell(*draw(rng, 100)), 1, 100)
        covered += low <= true <= high
    assert 0.95 - 4 * np.sqrt(0.05 * 0.95 / runs) <= covered / runs < 1


def test_an_interval_over_two_holders_counts_each_by_its_examples():
    rng = np.random.default_rng(0)
    clients = [rated(rng, 300), rated(rng, 60)]
    low, high = Spearman().interval(merged(Spearman(), clients), 1, 360)
    scores, widths = [], []
    for answers, targets in clients:
        own = Spearman().tell(answers, targets)
        bounds = Spearman().interval(own, 1, targets.size)
        scores.append(np.diff(own["scores"])[0])
        widths.append((bounds[1] - bounds[0]) / 2)
    assert (low + high) / 2 == pytest.approx((300 * scores[0] + 60 * scores[1]) / 360)
    half = np.hypot(300 * widths[0], 60 * widths[1]) / 360
    assert (high - low) / 2 == pytest.approx(half)


@pytest.mark.parametrize("metric", [Accuracy(), F1(1), Matthews(1)])
def test_no_change_is_an_interval_around_nothing(metric):
    answers, targets = classified(np.random.default_rng(0), 200)
    low, high = metric.interval(metric.tell(answers[[0, 0]], targets), 1, 200)
    assert -0.1 < low < 0 < high < 0.1
