"""The digits of the demo: who has which, what is wrong with them, and who reads them."""

import sys

import numpy as np
import pytest

from fedbbpt.data import digits
from fedbbpt.errors import MissingExtra, RunDirError

Image = pytest.importorskip("PIL.Image", reason="the demo needs pillow")
pytest.importorskip("sklearn", reason="the demo needs scikit-learn")


@pytest.fixture(scope="module")
def held():
    return list(digits.pictures())


def test_every_digit_is_held_once_and_none_of_the_network_s(held):
    assert sorted(digit.row for digit in held) == list(range(1, 1797, 2))
    for office in digits.OFFICES:
        train = [d.label for d in held if (d.kind, d.office) == ("train", office)]
        assert sorted(train) == sorted(list(range(10)) * digits.SHOTS)
    labels = digits._digits()[1]
    assert all(labels[digit.row] == digit.label for digit in held)


def test_a_good_photograph_is_the_digit_on_paper():
    inks, _ = digits._digits()
    for ink in inks[:50]:
        pixels = digits.photograph(ink, digits.View())
        assert pixels.shape == (48, 48, 3) and pixels.dtype == np.uint8
        cells = 1 - pixels.reshape(8, 6, 8, 18).mean(axis=(1, 3)) / 255
        assert np.corrcoef(cells.ravel(), ink.ravel())[0, 1] > 0.95


def test_what_is_wrong_with_the_offices_pictures(held):
    # An empty field shows the light alone, a full one where the camera stands.
    empty, full = np.zeros((8, 8)), np.ones((8, 8))
    lights = set()
    for office in digits.OFFICES:
        view = digits.view_of(office)
        light = digits.photograph(empty, view).astype(float)
        dark = digits.photograph(full, view).astype(float)
        well = [digits.photograph(ink, digits.View()).astype(float) for ink in (empty, full)]
        assert light.mean() < well[0].mean() - 20  # darker paper
        inside = light - dark > 10
        assert 0 < inside.mean() < 0.9 and not inside[:, 0].any()  # smaller
        rows, columns, _ = np.nonzero(inside)
        assert rows.mean() > 24.5 and columns.mean() > 24.5  # beside the middle
        assert (light - dark).max() < 0.8 * (well[0] - well[1]).max()  # flatter
        slope = light.mean(axis=2)
        lights.add(
            (slope[:, -1].mean() > slope[:, 0].mean() + 9, slope[-1].mean() > slope[0].mean() + 9)
        )
        assert np.ptp(slope) > 30
    assert len(lights) > 2


def test_the_network_reads_good_pictures_and_not_the_offices(held):
    # Nothing here was used to set what is wrong with the pictures; what is asked for is coarse.
    assert digits.read_well() > 0.93
    some = [digit for digit in held if digit.kind == "test"][::3]
    found = digits.model(np.array([digit.pixels for digit in some]) / 255)
    assert np.mean(found.argmax(axis=1) == [digit.label for digit in some]) < 0.6


def test_the_network_answers_with_probabilities_and_each_by_itself(held):
    images = np.array([digit.pixels for digit in held[:20]]) / np.float32(255)
    together = digits.model(images)
    assert together.shape == (20, 10) and np.allclose(together.sum(axis=1), 1)
    assert np.array_equal(together, np.concatenate([digits.model(one[None]) for one in images]))


def test_it_is_trained_the_same_every_time():
    first = digits._network()
    digits._network.cache_clear()
    second = digits._network()
    assert first is not second
    for one, two in zip(first.coefs_, second.coefs_, strict=True):
        assert np.array_equal(one, two)


def test_the_pictures_are_written_as_files(held, tmp_path):
    folder = tmp_path / "a" / "data"
    digits.write(folder)
    files = sorted(folder.rglob("*.png"))
    assert len(files) == len(held)
    for digit in held[::40]:
        path = folder / digit.kind / digit.office / str(digit.label) / f"{digit.row:04}.png"
        assert np.array_equal(np.asarray(Image.open(path)), digit.pixels)
    before = [file.read_bytes() for file in files]
    (folder / ".DS_Store").write_text("")
    digits.write(folder)
    assert [file.read_bytes() for file in sorted(folder.rglob("*.png"))] == before


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunDirError, match=r"letter\.txt is not this demo's.*another --out"):
        digits.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="cannot be written"):
        digits.write(tmp_path / "file" / "data")


@pytest.mark.parametrize(
    ("module", "package"),
    [("PIL", "pillow"), ("sklearn.datasets", "scikit-learn")],
)
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, module, package):
    digits._digits.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{package} is not .* 'fedbbpt\[vision\]'"):
        digits.write(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_network_that_cannot_be_trained_says_so(monkeypatch):
    digits._network.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.neural_network", None)
    with pytest.raises(MissingExtra, match="scikit-learn"):
        digits.model(np.zeros((1, 48, 48, 3)))
