import math
import re
import string
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedbbpt.errors import ConfigError
from fedbbpt.maths.answers import (
    MEASURES,
    MeanScore,
    contains,
    exact,
    f1,
    normalised,
    number,
    same_set,
)
from fedbbpt.maths.metrics import Accuracy


def tuples(*rows):
    found = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        found[i] = row
    return found


def texts(*rows):
    return np.array(rows, dtype=object)


# --- against plain transcriptions of SQuAD's evaluate-v1.1.py ------------------------------------


def squad_normalised(s):
    s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", s).split())


def squad_f1(answer, reference):
    said, wanted = squad_normalised(answer).split(), squad_normalised(reference).split()
    same = sum((Counter(said) & Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(said), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


# Words of two characters or more, an article only in front of one: there nothing differs.
WORD = st.sampled_from(["cat", "Cat", "dog's", "well-known", "(bird)", "1,000", "U.S.", "éclair"])
PHRASE = st.lists(
    st.tuples(st.sampled_from(["", "the ", "An ", "a\t", "the an "]), WORD), min_size=1, max_size=6
).map(lambda pairs: "  ".join(article + word for article, word in pairs))


@given(PHRASE, PHRASE)
@example("the cat", "a  CAT!")
def test_exact_and_f1_are_squads(answer, reference):
    assert normalised(answer) == squad_normalised(answer)
    assert exact(answer, reference) == (squad_normalised(answer) == squad_normalised(reference))
    assert f1(answer, reference) == pytest.approx(squad_f1(answer, reference), abs=1e-15)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("A", "a", True),  # SQuAD leaves nothing of either, nor of
        ("the", "a", False),
        ("p p l e", "a p p l e", False),
        ("v i s a", "V. I. S. A.", True),
        ("15", "1.5", False),
        ("-5", "5", False),
        ("− 5", "-5", False),
        ("−5", "-5", True),
        (".5", "5", False),
        ("5.", "5", True),
        ("1-5", "15", True),  # as SQuAD has it: a hyphen between digits is none
        ("“yes”", "yes", True),
        ("?", "!", False),
        ("?", " ? ", True),
        ("ｃａｆé", "cafe\u0301", True),
    ],
)
def test_where_exact_is_stricter_or_milder_than_squad(answer, reference, same):
    assert exact(answer, reference) == exact(reference, answer) == same
    assert f1(answer, reference) == 1.0 or not same


# --- the other scores ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("It is a cat.", "cat", 1),
        ("Concatenate", "cat", 0),
        ("the big, red cat", "red  CAT", 1),
        ("the red big cat", "red cat", 0),
        ("A is the first letter", "a", 1),
        ("It was the cause of this", "was cause", 1),
        ("15", "5", 0),
        ("1.5", "5", 0),
        ("so C++ (not C)", "C++ (", 1),
        ("anything", ".*", 0),
        ("answer: (", "(", 1),
        ("答案是苹果", "苹果", 1),
        ("हिन्दी भाषा", "हन्द", 0),
    ],
)
def test_contains_compares_whole_words_in_a_row(answer, reference, score):
    assert contains(answer, reference) == score


@given(st.text(max_size=8), st.text(max_size=8))
def test_contains_never_reads_a_reference_as_a_pattern(answer, reference):
    if reference.strip():
        assert contains(f"{answer} {reference} {answer}", reference) == 1.0


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("bat, dog and cat", "cat, bat, dog", 1),
        ("- cat\n- dog", "dog cat", 1),
        ("1. cat\n2) dog", "dog, cat", 1),
        ("cat cat dog", "dog, cat", 1),
        ("cat, dog, cow", "cat, dog", 0),
        ("cat", "cat, dog", 0),
        ("an accelerator", "accelerator", 0),
        ("And", "and", 1),
        ("!", "?", 0),
    ],
)
def test_sets_have_no_order(answer, reference, score):
    assert same_set(answer, reference) == same_set(reference, answer) == score


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("1,000", "1000", 1),
        ("1e3", "1000.0", 1),
        ("2 + 3 = 5", "5", 1),
        ("5 = 2 + 3", "5", 0),
        ("It is $1,234.50.", "1234.5", 1),
        ("twelve", "12", 0),
        ("−3", "-3", 1),
        ("10-3", "3", 1),
        ("3", "-3", 0),
        ("12kg", "12", 1),
        ("B12", "12", 0),
        (".5", "0.5", 1),
        ("0.30000000000000004", "0.3", 1),
        ("1000001", "1000000", 0),
        ("1e999", "1e998", 0),
        ("no idea", "7", 0),
    ],
)
def test_numbers_are_compared_as_numbers(answer, reference, score):
    assert number(answer, reference) == score


@given(
    st.sampled_from(sorted(MEASURES)),
    st.text(max_size=12),
    st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=3),
)
def test_every_score_lies_in_0_to_1_and_a_reference_scores_1(measure, answer, references):
    own = [f"{text} {i}" for i, text in enumerate(references)]  # "number" wants one in each
    metric, targets = MeanScore(measure), tuples(tuple(own))
    (score,), *each = metric.scores(texts([answer], *([text] for text in own)), targets)
    best = max(MEASURES[measure](answer, text) for text in own)
    assert score == (best if answer.strip() else 0) and 0 <= score <= 1
    assert np.array_equal(each, np.ones((len(own), 1)))


def test_no_answer_scores_nothing():
    for measure in MEASURES:
        scores = MeanScore(measure).scores(texts([None, "", " \n"]), tuples(*[("1",)] * 3))
        assert np.array_equal(scores, [[0, 0, 0]])


# --- the user's own ------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_metric.py").write_text(
        "def longest(answer, references):\n"
        "    assert type(references) is tuple\n"
        "    return len(answer) / max(map(len, references))\n"
        "def fails(answer, references):\n"
        "    raise KeyError(f'{answer} {references}')\n"
        "def words(answer, references):\n"
        "    return answer\n"
        "def nan(answer, references):\n"
        "    return float('nan')\n"
        "thing = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_metric:"
    sys.modules.pop("own_metric", None)


def test_a_metric_of_the_users_own_is_called_with_answer_and_references(own):
    metric = MeanScore(own + "longest")
    assert metric.name == "own_metric:longest"
    found = metric.scores(texts(["ab", None, " "]), tuples(("abcd", "x"), ("y",), ("z",)))
    assert found.tolist() == [[0.5, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("fails", r"raised KeyError in .*own_metric.py, line 5, on example 2; it must score"),
        ("longest", "gave 7 for example 2; it must be from 0 to 1"),
        ("words", "gave a value of type str for example 2"),
        ("nan", "gave a value of type float for example 2"),
    ],
)
def test_a_failing_metric_names_the_example_and_never_quotes_it(own, function, said):
    with pytest.raises(ConfigError, match=said) as caught:
        MeanScore(own + function).scores(texts([None, "hunter2"]), tuples(("x",), ("s",)))
    error = caught.value
    assert "hunter" not in str(error)
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ("bleu", "metric is 'bleu'; for answers in words it must be one of exact, contains, set"),
        ("own_metric:thing", "has the type int; it must be a function"),
        ("own_metric:absent", "cannot be imported .AttributeError"),
        ("no_such_package:f", "cannot be imported .ModuleNotFoundError"),
        (":", "cannot be imported"),
    ],
)
def test_unknown_metrics_are_refused(own, measure, said):
    with pytest.raises(ConfigError, match=said):
        MeanScore(measure)


def test_references_that_are_no_numbers_are_refused():
    with pytest.raises(ConfigError, match="a reference of example 2 holds none"):
        MeanScore("number").scores(texts(["1", "2"]), tuples(("1",), ("2", "two")))


# --- means and intervals -------------------------------------------------------------------------


def told(scores):
    """What a client tells whose answers have these (S, B) scores under f1."""
    marks = {0.0: "x", 0.5: "a1 x y", 1.0: "a1"}
    answers = np.array([[marks[s] for s in row] for row in scores], dtype=object)
    return MeanScore("f1").tell(answers, tuples(*[("a1",)] * len(scores[0])))


def test_clients_means_add_up():
    rng = np.random.default_rng(0)
    scores = rng.choice([0.0, 0.5, 1.0], (3, 50))
    whole, parts = told(scores), (told(scores[:, :20]), told(scores[:, 20:]))
    np.testing.assert_allclose(MeanScore().value(whole), scores.mean(axis=1))
    for name in MeanScore.sends:
        np.testing.assert_allclose(whole[name], 0.4 * parts[0][name] + 0.6 * parts[1][name])


def test_the_interval_of_right_and_wrong_is_the_one_of_accuracy():
    rng = np.random.default_rng(1)
    right = rng.integers(2, size=(2, 40)).astype(float)
    expected = Accuracy().interval(Accuracy().tell(right, np.ones(40)), 1, 40)
    np.testing.assert_allclose(MeanScore().interval(told(right), 1, 40), expected, rtol=1e-12)
    low, high = MeanScore().interval(told(right[[0, 0]]), 1, 40)
    assert -0.1 < low < 0 < high < 0.1
    assert MeanScore().interval(told(right), 1, 0) == [0.0, 0.0]


@pytest.mark.parametrize("size", [15, 100])
def test_an_interval_covers_the_true_gain_in_95_of_100_runs(size):
    rng, covered, runs = np.random.default_rng(2), 0, 300
    values, before, after = [0.0, 0.5, 1.0], [0.4, 0.3, 0.3], [0.25, 0.3, 0.45]
    gain = np.dot(values, np.subtract(after, before))
    for _ in range(runs):
        luck = rng.random((2, size))
        luck[1] = np.where(rng.random(size) < 0.5, luck[0], luck[1])  # paired
        steps = [np.cumsum(p)[:-1] for p in (before, after)]
        scores = [
            np.take(values, np.searchsorted(s, own)) for s, own in zip(steps, luck, strict=True)
        ]
        low, high = MeanScore().interval(told(scores), 1, size)
        covered += low <= gain <= high
    assert covered / runs >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / runs)


def test_the_interval_of_a_gain_holds_no_impossible_one():
    told = {"scores": np.array([0.0, 1.0]), "squares": np.array([0.0, 1.0])}
    low, high = MeanScore("exact").interval(told, 1, 60)
    assert 0.8 < low < high == 1.0
    lost = {"scores": np.array([1.0, 0.0]), "squares": np.array([0.0, 1.0])}
    assert MeanScore("exact").interval(lost, 1, 60)[0] == -1.0
