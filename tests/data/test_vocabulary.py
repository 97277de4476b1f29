"""n-grams, PMI and quorum beside counts made by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.data import vocabulary
from fedbbpt.data.vocabulary import (
    candidates,
    hashed,
    ngrams,
    pairs,
    pmi,
    quorum,
    ranked,
    runs,
    told,
    words_in,
)

CORPUS = ["New York is big, New York!", "new york 7 new ideas", "so it is"]
# 13 words, in the runs: new york is big | new york | new york | new ideas | so it is
WORDS = {"new": 4, "york": 3, "is": 2, "big": 1, "ideas": 1, "so": 1, "it": 1}
PAIRS = {"new york": 3, "york is": 1, "is big": 1, "new ideas": 1, "so it": 1, "it is": 1}
LONGER = {"new york is": 1, "york is big": 1, "new york is big": 1, "so it is": 1}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("The film's plot", [["the", "film's", "plot"]]),
        ("Well-made, if odd.", [["well-made"], ["if", "odd"]]),
        ("ward 7 bed b2", [["ward"], ["bed", "b"]]),
        ("Größe\n\tzählt", [["größe", "zählt"]]),
        (" 12 ... ", []),
        ("", []),
    ],
)
def test_words_come_in_runs_that_marks_and_numbers_break(text, want):
    assert list(runs(text)) == want


def test_counted_by_hand():
    counts = ngrams(CORPUS)
    assert counts == WORDS | PAIRS | LONGER
    assert words_in(counts) == 13
    assert ngrams(CORPUS, longest=2) == WORDS | PAIRS


def test_no_ngram_is_longer_than_five_words():
    counts = ngrams(["one two three four five six"])
    assert max(len(gram.split()) for gram in counts) == 5
    assert sum(len(gram.split()) == 5 for gram in counts) == 2


def test_ranked_by_hand():
    """new york has a PMI of log(13 * 3 / (4 * 3)) = 1.18; all else is seen once."""
    counts = ngrams(CORPUS)
    assert pmi(3, 4, 3, 13) == pytest.approx(math.log(3.25))
    assert pairs(counts, 13) == {("new", "york")}
    assert ranked(counts, 13) == ["new", "new york", "york", "is"]
    assert candidates(CORPUS) == ["new", "new york", "york", "is"]


def test_words_that_meet_by_chance_are_no_candidate():
    """the film: log(20 * 2 / (10 * 4)) = 0, so nothing with it in it is one either."""
    counts = {"the": 10, "film": 4, "noir": 3, "the film": 2, "film noir": 3, "the film noir": 2}
    assert ranked(counts, 20) == ["the", "film", "film noir", "noir"]


def test_a_single_letter_is_no_candidate():
    assert ranked({"a": 9, "ox": 2}, 11) == ["ox"]


texts = st.lists(st.lists(st.sampled_from("ab ba cd dc".split()), max_size=9).map(" ".join))


@given(texts)
def test_counting_through_joined_pairs_alone_finds_the_same(some):
    counts = ngrams(some)
    assert candidates(some) == ranked(counts, words_in(counts))


# --- hashes --------------------------------------------------------------------------------------


def test_whoever_tells_an_ngram_tells_its_parts(monkeypatch):
    counts = ngrams(["so it is", "so it goes", "it is"])
    assert told(counts)[:6] == ["it", "is", "so", "it is", "so it", "goes"]
    for most in range(1, len(counts)):
        monkeypatch.setattr(vocabulary, "MOST", most)
        kept = told(counts)
        assert len(kept) == most
        for gram in kept:
            assert set(ngrams([gram])) <= set(kept)


def test_another_seed_or_salt_gives_other_hashes():
    grams = ["new", "york", "new york"]
    tables = [hashed(grams, seed, salt) for seed, salt in ((0, "a"), (1, "a"), (0, "b"))]
    assert hashed(grams, 0, "a") == tables[0]
    assert all(sorted(table.values()) == sorted(grams) for table in tables)
    assert len({key for table in tables for key in table}) == 9
    assert {len(key) for table in tables for key in table} == {16}


def test_a_quorum_counts_clients():
    a, b, c = b"a", b"b", b"c"
    sent = [[c, a, a], [b, a], [b, a]]
    assert quorum(sent, 1) == [a, b, c]
    assert quorum(sent, 2) == [a, b]
    assert quorum(sent, 3) == [a]
    assert quorum(sent, 4) == []
