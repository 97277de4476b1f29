"""What a run directory tells: scores of clients under every metric, and dollars by round."""

import numpy as np
import pytest

from fedbbpt.ledger import Ledger
from fedbbpt.maths.answers import MeanScore
from fedbbpt.maths.metrics import F1, Accuracy, Matthews, Spearman
from fedbbpt.report.rows import differences
from fedbbpt.report.run_page import run_page
from fedbbpt.report.sentences import count, dollars, duration, short_box, signed, size
from fedbbpt.report.story import Story
from fedbbpt.types import Receipt


def words(rng, shape):
    return rng.choice(np.array(["one", "two"], object), shape)


METRICS = [
    (Accuracy(), lambda rng, shape: rng.integers(0, 3, shape)),
    (F1(), lambda rng, shape: rng.integers(0, 2, shape)),
    (Matthews(), lambda rng, shape: rng.integers(0, 2, shape)),
    (Spearman(), lambda rng, shape: rng.random(shape)),
    (MeanScore("exact"), words),
]


@pytest.mark.parametrize(("metric", "draw"), METRICS, ids=lambda x: getattr(x, "name", ""))
def test_a_client_fares_as_its_metric_says(tmp_path, metric, draw):
    rng = np.random.default_rng(0)
    targets = draw(rng, (30,))
    if isinstance(metric, MeanScore):
        references = np.empty(30, object)
        references[:] = [(word,) for word in targets]
        targets = references
    told = metric.tell(draw(rng, (3, 30)), targets)
    event = {"event": "evaluate", "client": "ash", "examples": 30, "losses": [1.0, 0.9, 0.8]}
    event |= {key: value.tolist() for key, value in told.items()}
    snapshots = [{"event": "snapshot", "chosen": i == 2} for i in range(3)]
    common = {**event, "client": "(test)"}
    story = Story(tmp_path, {}, {"metric": metric.name}, (event, common, *snapshots))
    (fared,) = story.fared
    scores = metric.value(told)
    assert (fared.before, fared.after) == (scores[0], scores[2])
    assert list(fared.ends) == metric.interval(told, 2, 30)


def priced(folder):
    """A story with three snapshots, whose requests cost a cent each."""
    ledger = Ledger()
    ledger.open(folder / "ledger.sqlite")
    for run, number in (("mine", 0), ("mine", 0), ("mine", 3), ("mine", 9), ("other", 0)):
        ledger.run = run
        ledger.book("ash", number, Receipt(0.0, 200, 10, 1, usd=0.01), {})
    ledger.close()
    kept = [(0, 0, 0.5), (3, 40, 0.6), (9, 80, 0.7)]
    events = [
        {"event": "snapshot", "round": r, "queries": q, "chosen": r == 9, "test_score": s}
        for r, q, s in kept
    ]
    result = {
        "metric": "accuracy",
        "test_examples": 10,
        "baseline": {"accuracy": 0.5},
        "tuned": {"accuracy": 0.7},
        "gain_interval": [0.1, 0.3],
        "queries": dict.fromkeys(("budget", "train", "select", "evaluation", "paid"), 80)
        | {"cached": 0, "dropped": 0},
        "bytes": {"up_per_client_round": 8.0, "down_per_client_round": 8.0},
        "seconds": dict.fromkeys(("setup", "search", "box", "total"), 1.0),
        "cost_usd": 0.04,
        "stopped": "budget",
    }
    return Story(folder, {}, result, tuple(events), made={"run": "mine"})


def test_dollars_are_those_of_the_requests_up_to_a_snapshot(tmp_path):
    story = priced(tmp_path)
    assert story.dollars == pytest.approx({0: 0.02, 3: 0.01, 9: 0.01})
    # What round 9 asks comes behind its snapshot.
    assert "at $0.03 (cost of the search)" in run_page(story)
    (tmp_path / "ledger.sqlite").unlink()
    again = Story(tmp_path, {}, story.result, story.events, made=story.made)
    assert again.dollars is None and "cost of the search" not in run_page(again)


def test_only_what_was_tried_differs():
    def story(**run):
        config = {"method": {"name": "fedes"}, "prompt": {"dim": run.pop("dim", 4)}, "run": run}
        return Story(None, config)

    alike = [story(seed=0, ledger="a"), story(seed=1, trackers=["mlflow"])]
    assert differences(alike) == {}
    assert differences([*alike, story(dim=8)]) == {"prompt.dim": [4, 4, 8]}


def test_numbers_as_people_read_them():
    assert [signed(x) for x in (0.1234, -0.1, 0.0, -0.0001)] == [
        "+0.123",
        "−0.100",
        "0.000",
        "0.000",
    ]
    assert [count(3, "client"), count(1, "client"), count(1200, "number")] == [
        "three clients",
        "one client",
        "1,200 numbers",
    ]
    assert [size(x) for x in (0, 999, 999.6, 9672, 2e6, 2.5e9)] == [
        "0 bytes",
        "999 bytes",
        "1.00 kB",
        "9.67 kB",
        "2.00 MB",
        "2.50 GB",
    ]
    assert [duration(x) for x in (0.04, 59.9, 61, 7100, 7300)] == [
        "0.0 s",
        "59.9 s",
        "1 min",
        "118 min",
        "2.03 h",
    ]
    assert [dollars(x) for x in (0, 0.0019, 0.5, 12.345, 0.00001)] == [
        "$0.00",
        "$0.0019",
        "$0.5",
        "$12.35",
        "$1.0e-05",
    ]
    assert short_box("dual_encoder:minilm-53aa51172d14:bfloat16:128") == "minilm (dual_encoder)"
