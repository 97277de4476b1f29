"""How pictures are fitted: squashed, cropped, once for each, on any thread."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.boxes import _sight
from fedbbpt.boxes._sight import KEPT, Sight
from fedbbpt.errors import ConfigError
from fedbbpt.types import Picture

Image = pytest.importorskip("PIL.Image")


def noise(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Picture(pixels, f"{height}x{width}")


def bytes_of(image):
    pixels = np.rint(image * 255)
    np.testing.assert_allclose(image, pixels / 255, rtol=1e-7)
    assert image.dtype == np.float32
    return pixels.astype(np.uint8)


def resized(picture, height, width, resample=2):
    return np.asarray(Image.fromarray(picture.pixels).resize((width, height), resample))


@pytest.mark.parametrize("resample", [0, 2, 3])
def test_squashed_is_the_whole_picture(resample):
    picture = noise(30, 50)
    found = bytes_of(Sight((12, 16), resample=resample).fit(picture))
    np.testing.assert_array_equal(found, resized(picture, 12, 16, resample))


def test_squashed_to_more_than_is_needed_loses_its_margins():
    picture = noise(30, 50)
    found = bytes_of(Sight((12, 16), edge=20).fit(picture))
    np.testing.assert_array_equal(found, resized(picture, 20, 20)[4:16, 2:18])


@pytest.mark.parametrize(("height", "width"), [(30, 50), (50, 30), (31, 31), (5, 7), (300, 20)])
@pytest.mark.parametrize("resample", [2, 3])
def test_cropped_is_the_middle_at_the_scale_of_the_shorter_side(height, width, resample):
    picture, short = noise(height, width), min(height, width)
    rows, columns = 18 * height // short, 18 * width // short
    large = resized(picture, rows, columns, resample)
    top, left = (rows - 12) // 2, (columns - 16) // 2
    found = bytes_of(Sight((12, 16), "crop", 18, resample).fit(picture))
    np.testing.assert_array_equal(found, large[top : top + 12, left : left + 16])


@pytest.mark.parametrize("turn", [False, True])
def test_a_strip_is_not_resized_as_a_whole(turn):
    # At the scale of its shorter side it would have 192 MB.
    strip = noise(*((40_000, 4) if turn else (4, 40_000)))
    found = bytes_of(Sight((40, 40), "crop").fit(strip))
    middle = slice(19_990, 20_010)
    near = Picture(strip.pixels[middle] if turn else strip.pixels[:, middle])
    want = bytes_of(Sight((40, 40), "crop").fit(near))
    assert np.abs(found.astype(int) - want).max() <= 1


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["squash", "crop"]))
def test_any_picture_fits(height, width, way):
    sight = Sight((9, 7), way)
    picture = noise(height, width)
    first, again = sight.fit(picture), sight.fit(picture)
    assert first.shape == (9, 7, 3) and first.min() >= 0 and first.max() <= 1
    # Kept or made anew, the same bits; nobody who changes one changes the other.
    first[:] = -1
    np.testing.assert_array_equal(again, sight.fit(picture))
    np.testing.assert_array_equal(again, Sight((9, 7), way).fit(picture))


@pytest.mark.parametrize("way", ["squash", "crop"])
def test_one_pixel_is_a_picture_of_one_colour(way):
    pixel = Picture(np.array([[[10, 20, 30]]], np.uint8))
    found = bytes_of(Sight((5, 4), way).fit(pixel))
    np.testing.assert_array_equal(found, np.broadcast_to([10, 20, 30], (5, 4, 3)))


def test_what_is_kept_stays_below_its_limit(monkeypatch):
    size = (10, 10)
    monkeypatch.setattr(_sight, "KEPT", 3 * 300)
    sight, calls = Sight(size), []
    fit = sight._fit
    monkeypatch.setattr(sight, "_fit", lambda picture: calls.append(picture.name) or fit(picture))
    pictures = [noise(4, 4 + i) for i in range(5)]
    for picture in (*pictures[:3], *pictures[:3]):
        sight.fit(picture)
    assert len(calls) == 3
    for picture in pictures:
        sight.fit(picture)
    assert sum(kept.nbytes for kept in sight._kept.values()) == 900
    sight.fit(pictures[0])
    assert calls == ["4x4", "4x5", "4x6", "4x7", "4x8", "4x4"]
    assert KEPT // (224 * 224 * 3) > 3500


def test_many_threads_see_the_same(monkeypatch):
    monkeypatch.setattr(_sight, "KEPT", 6 * 300)
    pictures, start = [noise(20, 20 + i) for i in range(12)], threading.Barrier(4)
    alone = [Sight((10, 10)).fit(picture) for picture in pictures]
    sight = Sight((10, 10))

    def fit_all(turn):
        start.wait()
        order = np.random.default_rng(turn).permutation(len(pictures))
        return {i: sight.fit(pictures[i]) for i in [*order, *order]}

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(fit_all, range(4)):
            for i, image in found.items():
                np.testing.assert_array_equal(image, alone[i])
    assert len(sight._kept) == 6


def test_what_is_refused_and_what_names_it():
    for options, said in (
        (("pad",), "box.resize is 'pad'; known: squash, crop"),
        (("crop", 11), "box.edge is 11, less than the model's input of (12, 10)"),
        (("squash", 11), "box.edge is 11, less than the model's input of (12, 10)"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            Sight((12, 10), *options)
    options = ((), ("crop",), ("crop", 13), ("squash", 13), ("squash", 0, 3))
    names = [Sight(size, *some).name for size in ((12, 10), (10, 12)) for some in options]
    assert len(set(names)) == len(names)
