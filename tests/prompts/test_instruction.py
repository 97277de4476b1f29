"""Instructions of a pool: what is rendered, read, and refused."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedbbpt.errors import ConfigError
from fedbbpt.prompts.instruction import Instruction
from fedbbpt.testing.prompts import check_prompt
from fedbbpt.writing import GAPS

TEMPLATE, OWN = "{instruction}\n\nInput: {text}\nOutput:", "Write the plural."
TEXTS = (OWN, "List the letters.", "Sum up.", 'Say "yes" {and} \\n {0}.')
POINTS = np.array([[0.0, 0.0], [0.25, -1.0], [-0.5, 3.0], [2.0, 0.0]])


def made(template=TEMPLATE, labels=(), instruction=OWN, **options):
    return Instruction(template, labels, instruction, **options)


@pytest.fixture
def pool():
    return made(dim=2).grown(TEXTS, POINTS)


def test_at_first_there_is_the_users_own():
    prompt = made(dim=3, instruction=f"  {OWN}\n")
    assert (prompt.texts, prompt.space.kind, prompt.space.shape) == ((OWN,), "pool", (3,))
    assert prompt.space.points.tolist() == [[0, 0, 0]]
    (rendered,) = prompt.render(np.zeros((1, 3)))
    assert rendered.template == f"{OWN}\n\nInput: {{text}}\nOutput:"
    assert (rendered.labels, rendered.side, rendered.kind) == ((), "text", "text")


@pytest.mark.parametrize("labels", [(), ("no", "yes", "maybe")])
def test_it_keeps_the_laws_of_a_prompt(labels):
    check_prompt(made(labels=labels, dim=2).grown(TEXTS, POINTS))


def test_a_soft_writer_has_a_space_of_its_own():
    assert made(writer="soft", latent=7, dim=3).space.shape == (7,)
    assert made(writer="soft", latent=7, tokens=4).writing.dim == 7


def test_rows_keep_their_numbers_when_the_pool_grows(pool):
    more = pool.grown((*TEXTS, "Translate."), np.concatenate([POINTS, [[9.0, 9.0]]]))
    before, after = pool.render(POINTS), more.render(POINTS)
    assert [p.keys for p in before] == [p.keys for p in after]
    assert more.texts[:4] == pool.texts == TEXTS and len(pool.space.points) == 4
    assert more.read(more.render(np.array([[9.0, 9.0]]))[0]) == ("Translate.",)
    assert (more.writing, more.labels) == (pool.writing, pool.labels)


def test_a_point_is_found_whatever_the_sign_of_its_zeros(pool):
    assert pool.render(np.array([[-0.0, -0.0], [2.0, -0.0]])) == pool.render(POINTS[[0, 3]])


def test_an_instruction_that_is_in_the_pool_twice_is_its_first():
    twice = made(dim=1).grown((OWN, "a", "b"), np.array([[0.0], [1.0], [1.0]]))
    assert twice.read(twice.render(np.array([[1.0]]))[0]) == ("a",)


@pytest.mark.parametrize("point", [[0.25, -1.0000001], [1.0, 1.0], [np.nan, 0.0]])
def test_a_point_that_is_no_instruction_is_refused(pool, point):
    with pytest.raises(ValueError, match="none of the pool's instructions"):
        pool.render(np.array([POINTS[0], point]))


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.sampled_from([TEMPLATE, "{instruction}{text}", "{text}\n{instruction} Do: "]),
)
def test_what_was_rendered_is_read(text, template):
    assume(not any(gap in text for gap in GAPS) and text.strip())
    prompt = made(template).grown((OWN, text), np.array([[0.0] * 16, [1.0] * 16]))
    for row, said in enumerate((OWN, text)):
        (rendered,) = prompt.render(prompt.space.points[[row]])
        assert prompt.read(rendered) == (said,)
        assert rendered.template.count("{text}") == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"template": "Do: {text}"},
            "prompt.template 'Do: {text}' must hold {instruction} once, with prompt.side = 'text'",
        ),
        (
            {"template": "{instruction} {instruction} {text}"},
            "prompt.template '{instruction} {instruction} {text}' must hold {instruction} once, "
            "with prompt.side = 'text'",
        ),
        (
            {"template": "{instruction} {label}", "side": "label"},
            "prompt.template '{instruction} {label}' must hold {instruction} once, with "
            "prompt.side = 'text'",
        ),
        (
            {"instruction": " \n"},
            "prompt.instruction is empty; write the instruction that you would give today",
        ),
        (
            {"instruction": "Say {text}."},
            "prompt.instruction must hold none of {text}, {label}, {mask}, {instruction}",
        ),
        ({"dim": 0}, "prompt.dim is 0; it must be at least 1"),
        ({"writer": "pond"}, "prompt.writer is 'pond'; known: pool, soft"),
        ({"writer": "soft", "latent": 0}, "prompt.latent is 0; it must be at least 1"),
    ],
)
def test_what_is_wrong_is_said(options, sentence):
    with pytest.raises(ConfigError) as caught:
        made(**options)
    assert str(caught.value) == sentence


def test_a_template_without_a_text_is_refused():
    with pytest.raises(ConfigError, match=r"must hold \{text\} once"):
        made("{instruction}")
