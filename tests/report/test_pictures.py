"""The pictures of a visual prompt: what is on them is what the prompt does, and nothing else."""

import re
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from fedbbpt import api
from fedbbpt.boxes._sight import Sight
from fedbbpt.boxes.image_classifier import ImageClassifier
from fedbbpt.config import resolve
from fedbbpt.prompts._look import Look
from fedbbpt.prompts._overlay import Overlay
from fedbbpt.report.pictures import GAP, GROUND, chart_of, draw
from fedbbpt.sharing import Split
from fedbbpt.testing._pictures import Shade
from fedbbpt.types import Batch, Picture

Image = pytest.importorskip("PIL.Image")

SIZE = (40, 56)
LARGER = 3  # the longer side becomes 168, at least 128
RNG = np.random.default_rng(0)
PICTURES = [Picture(RNG.integers(0, 256, (30, 50, 3), np.uint8)) for _ in range(20)]
FORMS = {
    "look": Look(np.array([0.5, 0.2, 0.1, -0.1, 0.5, -0.3, 0.2, 0.4, 1.0])),
    "overlay": Overlay(RNG.normal(0, 0.05, (*SIZE, 3)).astype(np.float32)),
    "own": Shade(0.2),
}


def split(test=PICTURES, train=()):
    def held(pictures):
        parts = {"a": pictures[::2], "b": pictures[1::2]}
        return {k: Batch(tuple(v), np.zeros(len(v), np.int64)) for k, v in parts.items()}

    return Split(("x",), held(train), {}, held(test), ("a", "b"))


def sheet(path):
    return np.asarray(Image.open(path), np.float64) / 255


def cell(pixels, row, column, size=SIZE):
    """One image of a sheet at its own size, each of its pixels having been a square."""
    height, width = (LARGER * side for side in size)
    top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
    whole = pixels[top : top + height, left : left + width]
    small = whole[::LARGER, ::LARGER]
    assert np.array_equal(whole, small.repeat(LARGER, axis=0).repeat(LARGER, axis=1))
    return small


@pytest.mark.parametrize("form", FORMS)
def test_the_strip_is_what_the_model_gets_before_and_after(tmp_path, form):
    visual, sight = FORMS[form], Sight(SIZE)
    assert draw(tmp_path / "new" / "pictures", visual, sight, split()) == ()
    strip = sheet(tmp_path / "new" / "pictures" / "before-after.png")
    assert strip.shape == (3 * GAP + 2 * 120, 9 * GAP + 8 * 168, 3)
    assert np.abs(strip[:GAP] - GROUND).max() < 0.01
    every = [*PICTURES[::2], *PICTURES[1::2]]
    shown = [every[i] for i in (0, 3, 5, 8, 11, 14, 16, 19)]  # evenly out of both clients'
    before = np.array([sight.fit(picture) for picture in shown])
    after = visual.on(before.copy(), shown)
    for column in range(8):
        assert np.abs(cell(strip, 0, column) - before[column]).max() < 0.003
        assert np.abs(cell(strip, 1, column) - after[column]).max() < 0.003
    assert np.abs(after - before).max() > 0.05


def test_a_look_is_shown_on_a_chart(tmp_path):
    draw(tmp_path, FORMS["look"], Sight(SIZE), split())
    pixels, chart = sheet(tmp_path / "prompt.png"), chart_of(SIZE)
    assert pixels.shape == (2 * GAP + 120, 3 * GAP + 2 * 168, 3)
    assert np.abs(cell(pixels, 0, 0) - chart).max() < 0.003
    seen = FORMS["look"].on(chart[None].copy(), [])[0]
    assert np.abs(cell(pixels, 0, 1) - seen).max() < 0.003
    assert "test chart before the prompt (left)" in (tmp_path / "README.txt").read_text()


@pytest.mark.parametrize("size", [(8, 8), (33, 20), (224, 224), (96, 160)])
def test_the_chart_has_every_grey_the_colours_and_a_grid(size):
    chart = chart_of(size)
    assert chart.shape == (*size, 3) and chart.dtype == np.float32
    assert 0 <= chart.min() and chart.max() <= 1
    ramp, bars, grid = chart[0], chart[size[0] // 2], chart[-(size[0] // 3) :]
    assert (np.diff(ramp[:, 0]) > 0).all() and np.array_equal(ramp[:, 0], ramp[:, 2])
    assert len(np.unique(bars, axis=0)) == 8
    assert 0.05 < (grid == 0).mean() < 0.6


def test_an_overlay_is_shown_around_grey(tmp_path):
    draw(tmp_path, FORMS["overlay"], Sight(SIZE), split())
    pixels, delta = cell(sheet(tmp_path / "prompt.png"), 0, 0), FORMS["overlay"].delta
    said = (tmp_path / "README.txt").read_text()
    times = float(re.search(r"around grey, ([\d.]+) times as strong", said)[1])
    inside = (pixels > 0.01) & (pixels < 0.99)
    assert inside.mean() > 0.98  # nearly all of it is within the range, and fills it
    assert np.abs(0.5 + times * delta - pixels)[inside].max() < 0.02


def test_what_each_picture_gets_of_its_own_stands_below_it(tmp_path):
    sight, shown = Sight(SIZE), PICTURES[:5]
    draw(tmp_path, FORMS["own"], sight, split(shown))
    pixels = sheet(tmp_path / "prompt.png")
    assert pixels.shape == (3 * GAP + 2 * 120, 4 * GAP + 3 * 168, 3)
    chosen = [shown[0], shown[2], shown[4]]  # client a's are first
    for column, picture in enumerate(chosen):
        assert np.abs(cell(pixels, 0, column) - sight.fit(picture)).max() < 0.003
        added = cell(pixels, 1, column)
        assert added[..., 0].mean() > 0.7 and added[..., 2].mean() < 0.3  # redder, less blue
        assert np.abs(added[..., 1] - 0.5).max() < 0.01


def test_a_large_model_s_pictures_keep_their_size(tmp_path):
    draw(tmp_path, Look(np.ones(9)), Sight((224, 160)), split(PICTURES[:2]))
    assert sheet(tmp_path / "before-after.png").shape == (3 * GAP + 2 * 224, 3 * GAP + 2 * 160, 3)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_prompt_is_drawn_the_same(tmp_path, form):
    for name in ("one", "two"):
        draw(tmp_path / name, FORMS[form], Sight(SIZE), split())
    for file in ("prompt.png", "before-after.png", "README.txt"):
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert one == two


def test_training_pictures_stand_in_where_there_is_no_test(tmp_path):
    draw(tmp_path, FORMS["look"], Sight(SIZE), split((), PICTURES[:3]))
    said = (tmp_path / "README.txt").read_text()
    assert "shows 3 training pictures" in said and "stay on this machine" in said
    assert sheet(tmp_path / "before-after.png").shape[1] == 4 * GAP + 3 * 168


@pytest.mark.parametrize("lacking", ["change", "sight", "pictures"])
def test_nothing_is_drawn_of_nothing(tmp_path, lacking):
    visual = None if lacking == "change" else FORMS["look"]
    sight = None if lacking == "sight" else Sight(SIZE)
    texts = Split(("x",), {}, {}, {"a": Batch(("hello",), np.zeros(1, np.int64))}, ("a",))
    assert draw(tmp_path / "p", visual, sight, texts if lacking == "pictures" else split()) == ()
    assert not (tmp_path / "p").exists()


def test_a_run_ends_well_though_its_pictures_cannot_be_drawn(tmp_path):
    def shades(images):
        light = images.mean(axis=(1, 2, 3))
        return np.stack([1 - light, light], axis=1)

    box = ImageClassifier(shades, ("dark", "light"), "shades", size=(8, 8))
    half = Batch(tuple(PICTURES[:6]), np.arange(6) % 2)
    held = Split(("dark", "light"), {"a": half}, {}, {"a": half}, ("a",))
    method = {"name": "fedlook", "aggregator": {"name": "adam", "lr": 1.0}}
    tree = {"data": {"train": ""}, "method": method, "prompt": {"mapping": "names"}}
    config = resolve(tree | {"budget": {"queries": 40}}, tmp_path)
    drawn = api.run(config, tmp_path / "drawn", box=box, split=held)
    assert (tmp_path / "drawn" / "pictures" / "prompt.png").is_file()

    def block(event, facts):
        if event == "round":
            (tmp_path / "out" / "pictures").write_text("in the way")

    outcome = api.run(config, tmp_path / "out", box=box, split=held, progress=block)
    assert outcome.warnings[: len(drawn.warnings)] == drawn.warnings
    assert outcome.warnings[-1].startswith("the prompt's pictures are not drawn: ")
    assert (tmp_path / "out" / "result.json").is_file() and outcome.tuned is not None


@dataclass
class Plain:
    """Sight without Pillow."""

    size = SIZE

    def fit(self, picture):
        return np.zeros((*SIZE, 3), np.float32)


def test_what_hinders_it_is_said_and_nothing_fails(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (told,) = draw(tmp_path / "file", FORMS["overlay"], Sight(SIZE), split())
    assert told.startswith("the prompt's pictures are not drawn: ") and "file" in told
    monkeypatch.setitem(sys.modules, "PIL", None)
    (told,) = draw(tmp_path / "p", FORMS["overlay"], Plain(), split())
    assert told.endswith("pillow is not installed; run: pip install 'fedbbpt[vision]'")
    assert not (tmp_path / "p").exists()
