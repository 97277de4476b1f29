"""Each failure is named when it is there, on both sides of its threshold, and never else."""

import json

import numpy as np
import pytest

from fedbbpt.diagnose import (
    Course,
    Held,
    Knobs,
    constant_class,
    findings,
    harmful_merge,
    no_progress,
    over_fitting,
    together,
)
from fedbbpt.random import stream
from fedbbpt.testing.toys import ToyVocabulary

KNOBS = Knobs("PAIRS", "SIGMA", "DIM", "LR", True, ("bad", "good"))
RNG = stream(3, "rounds")
FLAT = 0.7 + 0.01 * RNG.standard_normal(50)
FALLING, RISING = FLAT - 0.01 * np.arange(50), FLAT + 0.01 * np.arange(50)
NOISE, AGREEING = 0.1 * RNG.standard_normal(50), 0.3 + 0.1 * RNG.standard_normal(50)
NOTHING = np.full(50, np.nan)


def held(each, client="a", answers=None, labels=(10, 10)):
    """A client's report from the losses (S, n) of its examples."""
    each = np.asarray(each, np.float64)
    return Held(
        client,
        each.mean(axis=1),
        ((each - each[-1]) ** 2).mean(axis=1),
        np.array(answers if answers is not None else [labels] * len(each)),
        np.array(labels),
        float(each.shape[1]),
    )


def shift(*means, size=20, spread=0.1):
    """(S, size) losses whose distances to the first snapshot have these means and a spread."""
    base = 1 + stream(4, "base").standard_normal(size) / 4
    wave = np.tile([1.0, -1.0], size // 2)
    return np.array([base + (m + spread * wave if m else 0) for m in means])


# --- no progress ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agreements", "losses", "told", "says"),
    [
        (NOISE, FLAT, True, ["noise", "raise PAIRS and SIGMA, lower DIM"]),
        (AGREEING, FLAT, True, ["too short", "raise LR"]),
        (AGREEING, RISING, True, ["too long", "lower LR"]),
        (NOISE, RISING, True, ["too long", "lower LR"]),
        (NOTHING, FLAT, True, ["do not differ", "raise SIGMA"]),
        (NOTHING, FLAT, False, ["send no losses", "raise PAIRS"]),
        (NOISE[:20], FLAT[:20], True, ["over 20 rounds", "noise"]),
        (NOISE, FALLING, True, None),
        (AGREEING, FALLING, True, None),
        (AGREEING, FLAT - 0.0003 * np.arange(50), True, None),
        (NOTHING, FALLING, False, None),
        (NOTHING, NOTHING, False, None),
        (NOISE[:19], FLAT[:19], True, None),
    ],
)
def test_no_progress_is_told_from_the_rounds(agreements, losses, told, says):
    found = no_progress(Course(agreements, losses), None, 1, KNOBS._replace(told=told))
    if says is None:
        assert found is None
    else:
        assert found.kind == "no progress" and found.sentence.startswith("no progress: ")
        assert all(part in found.sentence for part in says), found.sentence
        json.dumps(found.facts, allow_nan=False)


@pytest.mark.parametrize(
    ("gain", "alone", "told"),
    [(0.06, False, False), (0.03, True, False), (0.0, True, True), (0.03, False, True)],
)
def test_a_held_back_gain_of_two_standard_errors_is_progress(gain, alone, told):
    report = held(shift(0, -gain))
    assert report.error(0, 1) == pytest.approx(0.1 / np.sqrt(19) if gain else 0)  # 0.023
    course = Course(NOTHING, NOTHING) if alone else Course(NOISE, FLAT)
    knobs = KNOBS._replace(told=not alone)
    assert (no_progress(course, report, 1, knobs) is not None) == told


def test_a_hairs_breadth_is_no_gain():
    sure = held(shift(0, -0.005, spread=0.0001))
    assert no_progress(Course(NOISE, FLAT), sure, 1, KNOBS) is not None


def test_the_advice_names_the_options_that_there_are():
    from fedbbpt.aggregators.adam import Adam
    from fedbbpt.optimizers.es import Es
    from fedbbpt.parts import Parts
    from fedbbpt.prompts.soft import Soft

    prompt = Soft(ToyVocabulary(), "It was {label} .", ("bad", "good"))
    knobs = Knobs.of(Parts(Es(), prompt, None, Adam(), "shared", "replay", {}), ("bad", "good"))
    assert knobs == Knobs(
        "method.optimizer.pairs",
        "method.optimizer.sigma",
        "prompt.dim",
        "method.aggregator.lr",
        True,
        ("bad", "good"),
    )


# --- harmful merge -------------------------------------------------------------------------------


def test_a_client_is_named_where_the_prompt_is_surely_worse():
    # With two clients the bar is t(.975, 19 degrees) = 2.09 standard errors of .023.
    fine, harmed = held(shift(0, -0.1, 0.044), "fine"), held(shift(0, -0.1, 0.052), "harmed")
    found = harmful_merge([fine, harmed], 2)
    assert found.kind == "harmful merge" and list(found.facts["clients"]) == ["harmed"]
    assert "harmed (" in found.sentence and "fine" not in found.sentence
    assert harmful_merge([fine], 0) is None and harmful_merge([harmed], 0) is None
    # Alone it needs less: t(.95) = 1.73.
    assert harmful_merge([fine], 2) is not None


def test_an_earlier_snapshot_is_judged_with_a_larger_error():
    near, other = np.tile([0.1, -0.1], 10), np.repeat([0.1, -0.1], 10)
    each = 1 + np.array([0 * near, 0.06 + near, 0.3 + other])
    report, exact = held(each), held(each[:2])
    assert exact.error(0, 1) == pytest.approx(0.1 / np.sqrt(19))
    assert report.error(0, 1) == pytest.approx((1 + np.sqrt(2)) * exact.error(0, 1))
    # So it is blamed where it is the last, and only there.
    assert harmful_merge([exact], 1) is not None and harmful_merge([report], 1) is None


def test_one_example_blames_nobody():
    assert harmful_merge([held([[1.0], [9.0]])], 1) is None


def test_ten_clients_that_nothing_happened_to_are_rarely_blamed():
    rng, blamed = stream(5, "clients"), 0
    for _ in range(400):
        steps = rng.standard_normal((10, 6, 5)).cumsum(axis=1)
        blamed += harmful_merge([held(50 + s, str(i)) for i, s in enumerate(steps)], 5) is not None
    assert blamed < 0.08 * 400


# --- over-fitting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "rise", "told"),
    [(FALLING, 0.052, True), (FALLING, 0.04, False), (FLAT, 0.2, False), (NOTHING, 0.2, False)],
)
def test_over_fitting_is_a_rise_of_two_standard_errors(losses, rise, told):
    report = held(np.concatenate([shift(0.3), shift(0, rise)]))
    found = over_fitting(losses, report, KNOBS)
    assert (found is not None) == told
    if told:
        assert found.facts["lowest"] == 1 and found.facts["rise"] == pytest.approx(rise)
        assert "from snapshot 1 of 2" in found.sentence and "lower DIM" in found.sentence


def test_the_last_snapshot_may_be_the_best():
    assert over_fitting(FALLING, held(shift(0, -0.2, -0.4)), KNOBS) is None


# --- constant class ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "tuned", "labels", "says"),
    [
        ((20, 20), (39, 1), (20, 20), "the starting prompt does not"),
        ((0, 40), (0, 40), (20, 20), "so does the starting prompt"),
        ((20, 20), (38, 2), (20, 20), None),
        ((20, 20), (40, 0), (36, 4), None),
        ((20, 20), (40, 0), (35, 5), "the starting prompt does not"),
        ((5, 4), (9, 0), (5, 4), None),
        ((5, 5), (10, 0), (5, 5), "the starting prompt does not"),
    ],
)
def test_one_class_for_all_is_told_where_labels_differ(start, tuned, labels, says):
    report = held(shift(0, -0.1), answers=[start, tuned], labels=labels)
    found = constant_class(report, 1, KNOBS)
    assert (found.sentence if found else None) == says or says in found.sentence
    if found:
        assert found.facts["class"] == ("bad", "good")[int(np.argmax(tuned))]
        json.dumps(found.facts, allow_nan=False)


def test_clients_with_one_class_each_are_judged_together():
    one = held(shift(0, 0.1, size=10), answers=[(10, 0)] * 2, labels=(10, 0))
    other = held(shift(0, 0.2, size=20), answers=[(0, 20)] * 2, labels=(0, 20))
    both = together([one, other])
    assert both.answers.tolist() == [[10, 20]] * 2 and both.labels.tolist() == [10, 20]
    assert constant_class(both, 1, KNOBS) is None
    whole = held(np.concatenate([shift(0, 0.1, size=10), shift(0, 0.2, size=20)], axis=1))
    np.testing.assert_allclose(both.losses, whole.losses)
    assert both.error(0, 1) == pytest.approx(whole.error(0, 1)) and both.examples == 30


def test_all_is_put_together():
    report = held(shift(0, -0.2, 0.2), answers=[(10, 10), (10, 10), (20, 0)])
    kinds = [f.kind for f in findings(Course(AGREEING, FALLING), [report], 2, KNOBS)]
    assert kinds == ["harmful merge", "over-fitting", "constant class"]
    kinds = [f.kind for f in findings(Course(NOISE, FLAT), [], 2, KNOBS)]
    assert kinds == ["no progress"]
