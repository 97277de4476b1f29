"""Nearest words are those that a soft prompt was moved to."""

import numpy as np
import pytest

from fedbbpt.report.nearest import nearest
from fedbbpt.types import RenderedPrompt


class Letters:
    """Ten orthogonal words ``a`` to ``j``; templates are words between blanks."""

    hidden, std = 10, 1.0

    def __init__(self):
        self.words = list("abcdefghij")

    def tokenise(self, text):
        return [self.words.index(word) for word in text.split() if word in self.words]

    def layout(self, template, fill):
        before, _, after = template.partition("\0")
        first, last = self.tokenise(before), self.tokenise(after)
        inner = self.tokenise(fill)
        slots = [*range(len(first)), *[-1] * len(inner), *range(len(first), len(first + last))]
        return [*first, *inner, *last], slots

    def embed(self, ids):
        return 2.0 * np.eye(10, dtype=np.float32)[list(ids)]

    def decode(self, ids):
        return " ".join(self.words[i] for i in ids)

    def ordinary(self):
        return np.arange(10)


def moved(vocabulary, *ways):
    """Rows that take each place from one word to another."""
    return np.array([vocabulary.embed([to])[0] - vocabulary.embed([was])[0] for was, to in ways])


def test_a_place_that_was_not_moved_is_nearest_to_itself():
    prompt = RenderedPrompt("a b {text}", ("x", "y"), "text", soft=(np.zeros((2, 10), "f4"),))
    ((one,),) = nearest(prompt, Letters(), ("x", "y")).values()
    assert one["class"] is None
    assert [place["was"] for place in one["places"]] == ["a", "b"]
    for place in one["places"]:
        assert place["words"][0] == place["was"]
        assert (place["cosine"], place["moved"]) == (1.0, 0.0)


def test_a_place_that_was_moved_to_a_word_is_nearest_to_it():
    words = Letters()
    rows = [moved(words, (0, 7), (1, 1), (2, 9)), moved(words, (0, 0), (1, 4), (3, 8))]
    prompt = RenderedPrompt("a {label} b", ("c", "d"), "label", soft=tuple(rows))
    found = nearest(prompt, words, ("first", "second"))["prompts"]
    assert [one["class"] for one in found] == ["first", "second"]
    first, second = ([place["words"][0] for place in one["places"]] for one in found)
    assert first == ["h", "b", "j"] and second == ["a", "e", "i"]
    assert [place["was"] for place in found[0]["places"]] == ["a", "b", "c"]
    assert [place["moved"] for place in found[0]["places"]] == pytest.approx(
        [2**0.5, 0, 2**0.5], 1e-3
    )


def test_inserted_tokens_stand_for_themselves():
    words = Letters()
    prompt = RenderedPrompt("a {text}", ("x",), "text", soft=(words.embed([3, 5]),), mode="insert")
    (one,) = nearest(prompt, words, ("x",))["prompts"]
    assert [place["words"][0] for place in one["places"]] == ["d", "f"]
    assert [place["moved"] for place in one["places"]] == [None, None]


def test_where_there_is_no_vocabulary_to_look_in_it_says_so():
    prompt = RenderedPrompt("a {text}", ("x",), "text", soft=(np.zeros((1, 10), "f4"),))
    far = Letters()
    far.far = True
    assert "no vocabulary" in nearest(prompt, None, ("x",))["lack"]
    assert "gateway" in nearest(prompt, far, ("x",))["lack"]
