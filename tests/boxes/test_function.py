import numpy as np
import pytest

from fedbbpt.boxes.function import Function
from fedbbpt.errors import BoxError, ConfigError
from fedbbpt.testing.boxes import check_box
from fedbbpt.types import RenderedPrompt

PROMPTS = [RenderedPrompt(t, ("no", "yes")) for t in ("{label}", "so {label}")]


def lengths(prompts, examples):
    return [[[-len(p.template), -len(x)] for x in examples] for p in prompts]


def test_a_callable_answers_the_grid():
    scores = Function(lengths)(PROMPTS, ["a", "bcd"]).scores
    np.testing.assert_array_equal(scores, lengths(PROMPTS, ["a", "bcd"]))
    assert scores.dtype == np.float64


def test_it_is_asked_once_for_each_prompt_and_never_for_repeats():
    calls = []

    def answer(prompts, examples):
        calls.append((len(prompts), list(examples)))
        return lengths(prompts, examples)

    scores = Function(answer)([*PROMPTS, PROMPTS[0]], ["a", "bcd", "a"]).scores
    assert calls == [(1, ["a", "bcd"]), (1, ["a", "bcd"])]
    assert scores.shape == (3, 3, 2)
    np.testing.assert_array_equal(scores[2], scores[0])


def test_any_kind_of_example_has_a_key():
    box = Function(lambda p, x: np.zeros((1, len(x), 2)))
    examples = ["1", 1, b"1", ("1",), np.ones(3), np.ones((3, 1)), np.ones(3, np.float32)]
    atoms = box.split(PROMPTS[:1], examples).atoms
    assert len({atom.key for atom in atoms}) == len(examples)
    assert len(box.split(PROMPTS[:1], [np.ones(3), np.ones(3)]).atoms) == 1


def test_what_it_declares():
    box = Function(lengths, name="mine", accepts=["text"], sides=("text",))
    assert (box.name, box.accepts, box.sides) == ("function:mine", {"text"}, {"text"})
    assert box.gives == {"scores"}
    assert box.vocabulary is None


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 3), (2, 1, 2), ()])
def test_scores_of_another_shape_are_an_error(shape):
    box = Function(lambda p, x: np.zeros(shape), name="odd")
    with pytest.raises(
        BoxError, match=r"function:odd returned scores of shape .*; expected \(1, 2, 2\)"
    ):
        box(PROMPTS, ["a", "b"])


def test_scores_that_are_ragged_are_an_error():
    box = Function(lambda p, x: [[[0.0], [0.0, 1.0]]], name="ragged")
    with pytest.raises(BoxError, match="function:ragged"):
        box(PROMPTS, ["a", "b"])


def test_what_is_not_callable_is_refused():
    with pytest.raises(ConfigError, match="must be callable"):
        Function(7)


# --- words ---------------------------------------------------------------------------------------

WORDY = [RenderedPrompt(t, (), "text") for t in ("Say {text}", "Repeat {text}")]


def test_a_callable_answers_in_words():
    calls = []

    def answer(prompts, examples):
        calls.append((len(prompts), list(examples)))
        return [[None if x == "?" else f"{p.template[0]}{x}" for x in examples] for p in prompts]

    box = Function(answer, gives=("text",))
    reply = box([*WORDY, WORDY[0]], ["a", "?", "a"])
    assert reply.texts == (("Sa", None, "Sa"), ("Ra", None, "Ra"), ("Sa", None, "Sa"))
    assert reply.scores.shape == (3, 3, 0)
    assert calls == [(1, ["a", "?"])] * 2
    assert box.gives == {"text"}
    check_box(Function(lambda p, x: [[f"{q.template}{len(y)}" for y in x] for q in p], "kit",
                       gives=["text"]))  # fmt: skip


def test_what_it_does_not_give_is_refused_before_it_is_asked():
    box = Function(lambda p, x: 1 / 0, gives=("text",))
    with pytest.raises(ConfigError, match="gives text and no scores, and the prompt has labels"):
        box(PROMPTS, ["a"])
    with pytest.raises(ConfigError, match="gives scores and no text, and the prompt has no labels"):
        Function(lambda p, x: 1 / 0)(WORDY, ["a"])
    for gives in ((), ("words",)):
        with pytest.raises(ConfigError, match=r"box\.gives is \["):
            Function(lengths, gives=gives)


@pytest.mark.parametrize(
    "said", ["ab", ["ab"], [["a"]], [["a", 1]], [["a", "b"], ["a", "b"]], None, [None], 3]
)
def test_texts_of_another_shape_are_an_error(said):
    with pytest.raises(BoxError, match=r"function:odd returned a .* that is not 1 x 2 texts"):
        Function(lambda p, x: said, "odd", gives=("text",))(WORDY[:1], ["x", "y"])
