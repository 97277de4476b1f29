import os
import subprocess
import sys

import numpy as np
import pytest

from fedbbpt.errors import ConfigError
from fedbbpt.prompts.soft import Soft
from fedbbpt.random import stream
from fedbbpt.testing.toys import ToyVocabulary

VOCABULARY = ToyVocabulary()
LABELS = ("terrible", "really great", "odd")
LABEL, TEXT = "It was {label}.", "{text} All in all it was"


def soft(template=LABEL, **options):
    return Soft(VOCABULARY, template, LABELS, **{"dim": 6, **options})


def points(prompt, count=3, seed=0):
    return stream(seed, "test").standard_normal((count, *prompt.space.shape))


# --- where it starts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "side", "rows"),
    [
        (LABEL, "label", 4),  # it, was, the full stop, and one for the label's own words
        ("{label}", "label", 1),
        ("{label} and {label}s", "label", None),
        (TEXT, "text", 5),
    ],
)
def test_add_mode_has_a_row_for_each_token_of_the_template(template, side, rows):
    if rows is None:
        with pytest.raises(ConfigError, match=r"must hold {label} once"):
            soft(template, side=side)
        return
    prompt = soft(template, side=side)
    rendered = prompt.render(np.zeros((1, 6)))[0]
    assert prompt.length == rows
    assert rendered.mode == "add"
    assert [matrix.shape for matrix in rendered.soft] == [(rows, 8)]
    assert not rendered.soft[0].any()


@pytest.mark.parametrize(
    ("init", "words"),
    [("", ["It", "was", ".", "It", "was"]), ("good bad", ["good", "bad", "good", "bad", "good"])],
)
def test_insert_mode_starts_at_the_embeddings_of_words(init, words):
    prompt = soft(mode="insert", tokens=5, init=init)
    start = prompt.render(np.zeros((1, 6)))[0]
    assert start.mode == "insert"
    expected = VOCABULARY.embed(VOCABULARY.tokenise(" ".join(words)))
    np.testing.assert_array_equal(start.soft[0], expected)


def test_the_rendered_prompt_is_complete():
    rendered = soft(TEXT, side="text").render(np.zeros((1, 6)))[0]
    assert (rendered.template, rendered.labels, rendered.side) == (TEXT, LABELS, "text")
    assert rendered.kind == "soft"
    assert rendered.soft[0].dtype == np.float32


# --- how it moves --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["add", "insert"])
def test_a_point_moves_it_by_the_projection(mode):
    """P = A z + p0, with A from the seed and scaled by alpha std(E) / (sqrt(d) sigma)."""
    options = {"mode": mode, "tokens": 2, "alpha": 3.0, "sigma": 0.5, "seed": 9}
    prompt = soft(**options)
    z = points(prompt)
    length = prompt.length
    scale = 3.0 * VOCABULARY.std / (np.sqrt(6) * 0.5)
    matrix = stream(9, "projection").standard_normal((6, length * 8)) * scale
    start = prompt.render(np.zeros((1, 6)))[0].soft[0]
    for point, rendered in zip(z, prompt.render(z), strict=True):
        expected = (point @ matrix).reshape(length, 8) + start
        np.testing.assert_allclose(rendered.soft[0], expected, rtol=1e-4, atol=1e-5)


def test_a_typical_point_moves_a_token_by_a_words_length():
    prompt = soft(dim=500, sigma=2.0)
    z = 2.0 * points(prompt, 40)
    moved = np.array([rendered.soft[0] for rendered in prompt.render(z)])
    assert moved.std() == pytest.approx(VOCABULARY.std, rel=0.1)


def test_the_seed_alone_makes_the_projection():
    z = points(soft())
    keys = [[p.keys for p in soft(seed=seed).render(z)] for seed in (4, 4, 5)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_alpha_scales_the_move(alpha):
    z = points(soft())
    plain, scaled = (soft(alpha=a).render(z)[0].soft[0] for a in (1.0, alpha))
    np.testing.assert_allclose(scaled, alpha * plain, rtol=1e-5)


# --- one prompt per class ------------------------------------------------------------------------


def test_one_prompt_for_all_or_one_per_class():
    common, each = soft(), soft(per_class=True)
    assert common.space[:3] == ("real", (6,), False)
    assert each.space[:3] == ("real", (3, 6), True)
    z = points(each)
    for point, rendered in zip(z, each.render(z), strict=True):
        assert len(rendered.soft) == 3
        for row, matrix in zip(point, rendered.soft, strict=True):
            alone = common.render(row[None])[0].soft[0]
            np.testing.assert_allclose(matrix, alone, rtol=1e-5, atol=1e-6)


def test_classes_with_the_same_row_have_the_same_prompt():
    each = soft(per_class=True)
    z = np.zeros((2, 3, 6))
    z[1, 2] = 1.0
    still, moved = each.render(z)
    assert len(set(still.keys)) == 1
    assert moved.keys[:2] == still.keys[:2]
    assert moved.keys[2] != still.keys[2]


# --- equal points, equal prompts -----------------------------------------------------------------


def test_points_are_looked_at_by_number():
    prompt = soft()
    z = points(prompt)
    keys = [p.keys for p in prompt.render(z)]
    for same in (z.copy(), np.asfortranarray(z), z[::1].tolist()):
        assert [p.keys for p in prompt.render(np.asarray(same))] == keys


def test_more_points_than_are_remembered():
    prompt = soft()
    sets = [points(prompt, seed=seed) for seed in range(12)]
    first = [[p.keys for p in prompt.render(z)] for z in sets]
    assert [[p.keys for p in prompt.render(z)] for z in sets] == first


RENDERER = """
import numpy as np
from fedbbpt.prompts.soft import Soft
from fedbbpt.testing.toys import ToyVocabulary
prompt = Soft(ToyVocabulary(), "{label}!", ("a", "b"), mode="insert", tokens=200, dim=200)
points = np.random.default_rng(0).standard_normal((10, 200))
print(*(rendered.keys[0].hex() for rendered in prompt.render(points)))
"""


def test_the_number_of_threads_does_not_matter():
    """Or a run that is resumed with another number would pay its queries again."""
    rendered = [
        subprocess.run(
            [sys.executable, "-c", RENDERER],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert rendered[0] == rendered[1] != ""


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "It was."}, "must hold {label} once"),
        ({"template": "{text}"}, "must hold {label} once"),
        ({"template": "{label}", "side": "text"}, "must hold {text} once"),
        ({"side": "both"}, "side is 'both'; known: label, text"),
        ({"mode": "append"}, "mode is 'append'; known: add, insert"),
        ({"dim": 0}, "dim is 0"),
        ({"mode": "insert", "tokens": 0}, "tokens is 0"),
        ({"template": "{text}", "side": "text"}, "no words of its own"),
        ({"template": "{text}", "side": "text", "mode": "insert"}, "is empty and so is"),
        ({"template": TEXT, "side": "text", "per_class": True}, "side = 'label'"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        soft(**options)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_a_sigma_that_is_not_positive_is_refused(sigma):
    with pytest.raises(ConfigError, match="sigma"):
        soft(sigma=sigma)


def test_a_template_that_runs_into_its_gap_is_refused():
    """Its own tokens would depend on the label."""

    class Pieces(ToyVocabulary):
        def layout(self, template, fill):
            ids, slots = super().layout(template, fill)
            return (ids, slots) if len(fill) < 5 else (ids, [-1] * len(slots))

    with pytest.raises(ConfigError, match=r"put spaces around {label}"):
        Soft(Pieces(), "un{label}ly done", ("kind", "friend"), dim=2)
