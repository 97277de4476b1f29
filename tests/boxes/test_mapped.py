"""What labels mean in a classifier's own classes, and what a mapping makes of its rows."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.boxes._mapped import LEAST, Mapped
from fedbbpt.errors import ConfigError
from fedbbpt.maths import label_mapping
from fedbbpt.testing._pictures import PICTURES, Shade
from fedbbpt.types import RenderedPrompt

CLASSES = ("background", "tench, Tinca tinca", "Crane", "cowboy hat, ten-gallon hat", "crane")
TWINS = (*CLASSES, "maillot", "maillot, tank suit", "sombrero")
FORM = Mapped("net", TWINS)
ROWS = np.log(np.random.default_rng(0).dirichlet(np.ones(len(TWINS)), len(PICTURES)))


def prompt(*labels, **changes):
    return RenderedPrompt("", labels, "image", **changes)


def answer(prompts, form=FORM, pictures=PICTURES):
    grid = form.split(prompts, pictures)
    place = {picture.key: i for i, picture in enumerate(PICTURES)}
    return grid, grid.assemble([ROWS[place[atom.data[1].key]] for atom in grid.atoms])


@pytest.mark.parametrize(
    ("label", "places"),
    [
        ("tench", [1]),
        ("TINCA tinca", [1]),
        ("tench, tinca tinca", [1]),
        ("cowboy hat | sombrero", [3, 7]),
        ("ten-gallon hat|cowboy hat", [3]),
        ("#2", [2]),
        ("#2 | #4|tench", [1, 2, 4]),
        # The whole name goes before a part of another one.
        ("maillot", [5]),
        ("tank suit", [6]),
    ],
)
def test_what_a_label_names(label, places):
    (weights,) = FORM.named((label,))
    np.testing.assert_array_equal(np.flatnonzero(weights), places)
    assert set(weights) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("crane",), "'crane' names 2 classes of net; write '#2' (Crane) or '#4' (crane)"),
        (("tensh",), "'tensh' (did you mean 'tench'?) is none of the 8 classes of net; say in pro"),
        (("tench | lake", "crow"), "'lake', 'crow' are none of the 8 classes of net; say in"),
        (("tench|",), "'' is none of the 8 classes"),
        (("#8",), "'#8' is none of the 8 classes"),
        (("#-1",), "'#-1' is none of the 8 classes"),
        (tuple("uvwxyzq"), "'u', 'v', 'w', 'x', 'y' and 2 more are none of the 8 classes of net"),
    ],
)
def test_what_names_no_class(labels, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        FORM.check(prompt(*labels))
    assert "\n" not in str(caught.value)


def test_probabilities_of_all_that_a_label_names_are_summed():
    labels = ("cowboy hat | sombrero", "tench", "#2|#4")
    _, reply = answer([prompt(*labels)])
    p = np.exp(ROWS)
    mass = np.stack([p[:, 3] + p[:, 7], p[:, 1], p[:, 2] + p[:, 4]], axis=1)
    want = mass / mass.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(reply.scores[0]), want, rtol=1e-6)
    np.testing.assert_array_equal(reply.embeddings, ROWS)


def test_a_class_that_the_model_rules_out_keeps_a_score():
    row = np.array([-10000.0] * 7 + [0.0])
    grid = FORM.split([prompt("tench", "sombrero")], PICTURES[:1])
    np.testing.assert_allclose(grid.assemble([row]).scores[0, 0], [np.log(LEAST), 0.0], atol=1e-9)


def test_a_mapping_goes_before_the_labels():
    mapping = np.random.default_rng(1).standard_normal((2, len(TWINS))).astype(np.float32)
    learned = prompt("no class", "nor this", mapping=mapping)
    FORM.check(learned)
    _, reply = answer([learned, prompt("tench", "sombrero")])
    p = np.exp(ROWS) ** label_mapping.TEMPER
    logits = (p / p.sum(axis=1, keepdims=True)) @ mapping.T.astype(np.float64)
    want = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(reply.scores[0]), want, rtol=1e-9)
    np.testing.assert_array_equal(
        reply.scores[1], answer([prompt("tench", "sombrero")])[1].scores[0]
    )


@pytest.mark.parametrize("shape", [(3, 8), (2, 7), (8, 2), (2,)])
def test_a_mapping_of_another_shape(shape):
    wrong = prompt("a", "b", mapping=np.zeros(shape, np.float32))
    said = re.escape(f"label mapping has the shape {shape}; net needs (2, 8)")
    with pytest.raises(ConfigError, match=said):
        FORM.check(wrong)
    with pytest.raises(ConfigError, match=said):
        answer([wrong])


def test_neither_labels_nor_a_mapping_are_part_of_an_atom():
    mapping = np.zeros((2, len(TWINS)), np.float32)
    looks = [prompt("tench", "#0"), prompt("#0", "#1", "#2"), prompt("a", "b", mapping=mapping)]
    keys = {tuple(a.key for a in FORM.split([look], PICTURES).atoms) for look in looks}
    assert keys == {tuple(a.key for a in FORM.split([], PICTURES).atoms)}
    shaded = [a.key for a in FORM.split([prompt("tench", visual=Shade(0.1))], PICTURES).atoms]
    assert not set(shaded) & set(*keys)


@given(
    st.lists(st.sampled_from((None, 0.1, 0.2)), min_size=1, max_size=4),
    st.lists(st.integers(0, len(PICTURES) - 1), max_size=6),
)
def test_a_grid_is_its_distinct_prompted_pictures(strengths, which):
    visuals = [None if s is None else Shade(s) for s in strengths]
    prompts = [prompt("tench", "#0", visual=visual) for visual in visuals]
    pictures = [PICTURES[i] for i in which]
    grid, reply = answer(prompts, pictures=pictures)
    assert len(grid.atoms) == len(set(strengths)) * len(set(which))
    assert reply.scores.shape == (len(prompts), len(which), 2)
    assert (reply.embeddings is None) == (len(prompts) > 1)
    for scores in reply.scores:
        for row, i in zip(scores, which, strict=True):
            np.testing.assert_array_equal(row, answer([prompts[0]])[1].scores[0, i])
