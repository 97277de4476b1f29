"""Visual prompts: nine numbers that do what their names say, overlays as strong as they claim."""

import numpy as np
import pytest

from fedbbpt.errors import ConfigError
from fedbbpt.prompts._look import FAR, MIDDLE, NUMBERS, Look
from fedbbpt.prompts._overlay import waves
from fedbbpt.prompts.visual import FORMS, Visual

pytest.importorskip("PIL")

NAMES = (
    *("zoom", "aspect", "right", "down", "contrast", "brightness", "gamma"),
    *("saturation", "sharpness"),
)


class Eye:
    def __init__(self, size=(24, 32)):
        self.size, self.std = size, (0.2, 0.2, 0.2)


def make(form="look", size=(24, 32), **options):
    return Visual(Eye(size), "", ["bad", "good"], form=form, **options)


def looked(images, **moves):
    """(H, W, 3) of one picture under a look that is moved by these units."""
    point = np.zeros(NUMBERS)
    for name, units in moves.items():
        point[NAMES.index(name)] = units
    return Look(point).on(np.asarray(images, np.float32)[None], [])[0]


def picture(seed=0, size=(24, 32)):
    """Whole steps of 1/255, as a file has them."""
    shades = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    return shades.astype(np.float32) / np.float32(255)


def blob(size=(40, 60), radius=6):
    """A white disc in the middle of a black picture."""
    rows, columns = np.indices(size) - (np.array(size)[:, None, None] - 1) / 2
    disc = (rows**2 + columns**2 <= radius**2).astype(np.float32)
    return np.repeat(disc[..., None], 3, axis=2)


def spread(image):
    """Where the light is and how far it reaches: (row, column), (height, width)."""
    light = image.mean(axis=2)
    light = np.where(light > 0.75, light, 0.0)
    rows, columns = np.indices(light.shape)
    total = light.sum()
    middle = [(axis * light).sum() / total for axis in (rows, columns)]
    wide = [
        np.sqrt((light * (axis - m) ** 2).sum() / total)
        for axis, m in zip((rows, columns), middle, strict=True)
    ]
    return np.array(middle), np.array(wide)


# --- a look --------------------------------------------------------------------------------------


def test_a_look_of_zeros_leaves_every_bit():
    image = picture()
    assert looked(image).tobytes() == image.tobytes()
    every = np.arange(256, dtype=np.float32).reshape(16, 16, 1).repeat(3, 2) / np.float32(255)
    assert looked(every).tobytes() == every.tobytes()


def test_zoom_enlarges_the_middle():
    middle, wide = spread(blob())
    for units in (1.0, -1.0):
        moved, now = spread(looked(blob(), zoom=units))
        np.testing.assert_allclose(moved, middle, atol=0.3)
        np.testing.assert_allclose(now / wide, np.exp(0.4 * units), rtol=0.1)
    assert (looked(blob(), zoom=-1.0)[:2] == np.float32(MIDDLE / 255)).all()  # grey around it


def test_aspect_widens_and_flattens():
    _, wide = spread(blob())
    _, now = spread(looked(blob(), aspect=1.0))
    np.testing.assert_allclose(now / wide, np.exp([-0.2, 0.2]), rtol=0.1)


@pytest.mark.parametrize(("name", "axis"), [("right", 1), ("down", 0)])
def test_a_view_that_moves_on_leaves_things_behind(name, axis):
    shown = blob()
    middle, wide = spread(shown)
    for units in (0.5, -1.0):
        moved, now = spread(looked(shown, **{name: units}))
        want = np.zeros(2)
        want[axis] = -0.15 * units * shown.shape[axis]
        np.testing.assert_allclose(moved - middle, want, atol=0.6)
        np.testing.assert_allclose(now, wide, rtol=0.05)


def test_contrast_spreads_colours_from_the_middle():
    level = np.linspace(0.3, 0.7, 24 * 32 * 3).reshape(24, 32, 3)
    more = looked(level, contrast=1.0)
    np.testing.assert_allclose(
        more, MIDDLE / 255 + (level - MIDDLE / 255) * np.exp(0.5), atol=2.5 / 255
    )
    assert looked(level, contrast=-1.0).std() < 0.7 * level.std()


def test_brightness_adds_and_gamma_bends():
    level = np.linspace(0.0, 0.75, 24 * 32 * 3).reshape(24, 32, 3)
    np.testing.assert_allclose(looked(level, brightness=1.0), level + 0.2, atol=1.5 / 255)
    level = np.linspace(0.0, 1.0, 24 * 32 * 3).reshape(24, 32, 3)
    np.testing.assert_allclose(looked(level, gamma=1.0), level ** np.exp(0.5), atol=2.5 / 255)
    assert looked(np.ones((24, 32, 3)), gamma=-1.0).min() == 1.0


def test_saturation_moves_away_from_grey_and_sharpness_from_the_blurred():
    image = 0.25 + 0.5 * picture()
    grey = np.ptp(looked(image, saturation=-1.0), axis=2)
    assert grey.max() <= 1 / 255
    assert np.ptp(looked(image, saturation=0.5), axis=2).mean() > 1.2 * np.ptp(image, axis=2).mean()
    edge = np.zeros((24, 32, 3))
    edge[:, 16:] = 0.5
    edge += 0.25
    sharp, soft = looked(edge, sharpness=1.0), looked(edge, sharpness=-1.0)
    steps = [float(np.abs(np.diff(x[:, :, 0])).max()) for x in (soft, edge, sharp)]
    assert steps[0] < 0.35 < steps[1] < 0.6 < steps[2]
    np.testing.assert_allclose(sharp[:, :8], edge[:, :8], atol=1 / 255)  # far from the edge


def test_each_number_changes_something_of_its_own():
    image = 0.2 + 0.6 * picture()
    seen = [looked(image, **{name: 1.0}).tobytes() for name in NAMES]
    assert len({*seen, image.tobytes()}) == NUMBERS + 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [3.0, 30.0, 1e4, 1e300])
def test_a_search_that_strays_still_gets_pictures(scale):
    numbers = np.random.default_rng(1)
    for _ in range(60):
        seen = Look(scale * numbers.standard_normal(NUMBERS)).on(picture()[None], [])
        assert seen.shape == (1, 24, 32, 3) and seen.dtype == np.float32
        assert seen.min() >= 0 and seen.max() <= 1
    point = np.full(NUMBERS, 2 * FAR)
    assert Look(point).on(picture()[None], []).tobytes() == (
        Look(point / 2).on(picture()[None], []).tobytes()
    )


# --- overlays ------------------------------------------------------------------------------------


def rms(prompt, inside):
    points = np.random.default_rng(0).standard_normal((200, *prompt.space.shape))
    deltas = np.array([each.visual.delta[inside] for each in prompt.render(points)])
    return np.sqrt((deltas**2).mean())


@pytest.mark.parametrize("number", [0, 1, 3, 5])
@pytest.mark.parametrize("form", ["patch", "frame"])
def test_an_overlay_is_as_strong_as_it_says(form, number):
    prompt = make(form, waves=number, width=5, eps=0.07)
    assert prompt.space.shape == (3 * (number**2 or int(prompt.inside.sum())),)
    assert rms(prompt, prompt.inside) == pytest.approx(0.07, rel=0.05)
    # Colours are drawn apart.
    first, *_, last = np.eye(prompt.space.shape[0])
    (red, blue) = (each.visual.delta for each in prompt.render(np.array([first, last])))
    assert red[..., 0].any() and not red[..., 1:].any()
    assert blue[..., 2].any() and not blue[..., :2].any()


def test_a_frame_leaves_the_middle_untouched():
    prompt, image = make("frame", width=5, eps=5.0), picture()
    seen = prompt.render(np.ones((1, *prompt.space.shape)))[0].visual.on(image[None], [])[0]
    changed = (seen != image).any(axis=2)
    assert not changed[5:-5, 5:-5].any() and changed.mean() > 0.3
    assert prompt.inside.sum() == 24 * 32 - 14 * 22


def test_a_patch_adds_what_it_spans_and_cuts_what_leaves_the_range():
    prompt, image = make("patch", waves=2, eps=0.1), picture()
    visual = prompt.render(np.full((1, 12), 1.5))[0].visual
    moved = image + visual.delta
    assert moved.max() > 1 and moved.min() < 0
    np.testing.assert_array_equal(visual.on(image[None], [])[0], moved.clip(0, 1))
    # The first wave is the same everywhere.
    (flat,) = prompt.render(np.eye(12)[:1])
    np.testing.assert_allclose(flat.visual.delta[..., 0], 0.05, rtol=1e-6)


def test_waves_stand_at_right_angles():
    spanned = waves((12, 18), 4).astype(np.float64)
    np.testing.assert_allclose(spanned @ spanned.T / (12 * 18), np.eye(16), atol=1e-6)


# --- the prompt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_the_start_and_the_mapping(form):
    if form == "coordinator":
        pytest.importorskip("torch")
    prompt = make(form, width=5)
    (start,) = prompt.render(np.zeros((1, *prompt.space.shape)))
    assert start.visual is None and start.kind == "image" and start.mapping is None
    mapping = np.ones((2, 7), np.float32)
    points = np.random.default_rng(0).standard_normal((2, *prompt.space.shape))
    one, other = prompt.render(points), prompt.mapped(mapping).render(points)
    assert all(each.mapping is mapping for each in other) and prompt.mapping is None
    # Rows are the model's own and no matter of the mapping.
    assert [each.keys for each in one] == [each.keys for each in other]


def test_equal_numbers_are_one_prompt_whatever_the_sign_of_zero():
    prompt = make()
    point = np.array([[0.5, 0, 0, 0, 0, 0, 0, 0, 0]])
    signed = np.where(point == 0, -0.0, point)
    assert prompt.render(point)[0].keys == prompt.render(signed)[0].keys
    assert prompt.render(-0.0 * point)[0].visual is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"form": "wave"}, "prompt.form is 'wave'; known: look, patch, frame, coordinator"),
        ({"side": "label"}, "prompt.side is 'label'; visual prompts stand on side = 'image'"),
        ({"eps": 0.0}, "prompt.eps is 0.0; it must be above 0"),
        ({"eps": float("nan")}, "prompt.eps is nan; it must be above 0"),
        ({"waves": 25}, "prompt.waves is 25; take 0 to 24"),
        ({"waves": -1}, "prompt.waves is -1; take 0 to 24"),
        ({"form": "frame", "width": 12}, "prompt.width is 12; a frame in"),
        ({"form": "frame", "width": 0}, "prompt.width is 0; a frame in"),
    ],
)
def test_options_out_of_range(options, sentence):
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert str(caught.value).startswith(sentence)
