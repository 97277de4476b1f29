"""What five fictional post offices see of handwritten digits, and a small network to read them.

The digits are real: scikit-learn's, 1,797 images of 8 x 8 pixels (UCI, Alpaydin & Kaynak 1998).
What is wrong with the offices' pictures is made here: one camera that stands too far off and
beside the middle, set too dark and too flat, and a lamp at every office. The network has learned
from every second digit, photographed well, and is frozen; the offices have the others. How wrong
the pictures are was set on the network's half alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import MissingExtra, RunDirError
from fedbbpt.random import stream

OFFICES = ("harbour", "hill", "market", "mill", "station")
SHOTS = 3
"""Training pictures of each digit at each office; the others are for the test."""
SIDE, CELLS = 48, 8
"""Pixels of a picture, of which the network sees means over 8 x 8 cells."""
PAPER, INK = 0.95, 0.1
TINTS = (0.02, 0.04, -0.02, 0.0, 0.03)
"""How much redder than blue each office's lamp is."""
HIDDEN = 32


class View(NamedTuple):
    """How a digit is photographed; as it stands, well.

    Attributes:
        zoom: size of the digit. off: its shift right and down, in sides of the picture.
        contrast, level: factor about the middle grey, and what is added to it.
        lamp, angle, tint: slope of the light over a side, its direction, and its colour.
    """

    zoom: float = 1.0
    off: float = 0.0
    contrast: float = 1.0
    level: float = 0.0
    lamp: float = 0.0
    angle: float = 0.0
    tint: float = 0.0


class Digit(NamedTuple):
    """One picture at an office.

    Attributes:
        kind: ``"train"`` or ``"test"``.
        row: of scikit-learn's set.
    """

    kind: str
    office: str
    label: int
    row: int
    pixels: Array


def photograph(ink: Array, view: View) -> Array:
    """(48, 48, 3) uint8 of one digit, (8, 8) with ink in [0, 1]."""
    image = _pillow()
    grown = image.fromarray(ink.astype(np.float32)).resize((SIDE, SIDE), image.Resampling.BICUBIC)
    edge = SIDE * (0.5 - view.off - 0.5 / view.zoom)
    place = (1 / view.zoom, 0.0, edge, 0.0, 1 / view.zoom, edge)
    moved = grown.transform(
        (SIDE, SIDE), image.Transform.AFFINE, place, image.Resampling.BILINEAR, fillcolor=0.0
    )
    grey = PAPER - (PAPER - INK) * np.clip(np.asarray(moved, np.float64), 0.0, 1.0)
    across = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    slope = np.cos(view.angle) * across + np.sin(view.angle) * across[:, None]
    lit = (grey - 0.5) * view.contrast + 0.5 + view.level + view.lamp * slope
    coloured = lit[..., None] * np.array([1 + view.tint, 1.0, 1 - view.tint])
    return np.asarray(np.rint(255 * np.clip(coloured, 0.0, 1.0)), np.uint8)


def view_of(office: str) -> View:
    """The camera is the same everywhere, the lamp is not."""
    number = OFFICES.index(office)
    return View(0.88, 0.05, 0.75, -0.05, 0.2, 2 * np.pi * number / len(OFFICES), TINTS[number])


def pictures(clean: bool = False) -> Iterator[Digit]:
    """Every picture of every office; or the same digits photographed well."""
    inks, labels = _digits()
    for number, office in enumerate(OFFICES):
        view = View() if clean else view_of(office)
        rows = np.arange(1, len(inks), 2)[number :: len(OFFICES)]
        seen = dict.fromkeys(range(10), 0)
        for row in stream(0, "digits", number).permutation(rows).tolist():
            label = int(labels[row])
            seen[label] += 1
            kind = "train" if seen[label] <= SHOTS else "test"
            yield Digit(kind, office, label, row, photograph(inks[row], view))


def write(folder: Path) -> None:
    """All pictures as PNG files: folder/train/<office>/<digit>/<row>.png, and for the test.

    Raises:
        RunDirError: it cannot be written, or holds files of somebody else.
        MissingExtra: scikit-learn or Pillow is not installed.
    """
    image, made = _pillow(), {}
    for one in pictures():
        made[folder / one.kind / one.office / str(one.label) / f"{one.row:04}.png"] = one.pixels
    try:
        for file in folder.rglob("*"):
            if file not in made and not file.is_dir() and file.name[0] != ".":
                raise RunDirError(
                    f"{file} is not this demo's, which needs the folder {folder} for its pictures; "
                    "move it, or choose another --out"
                )
        for file, pixels in made.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels).save(file)
    except OSError as error:
        raise RunDirError(
            f"{folder} cannot be written ({error.strerror}); choose another --out"
        ) from None


# --- the network ---------------------------------------------------------------------------------


def model(images: Array) -> Array:
    """(B, 10) probabilities of the digits on (B, 48, 48, 3) images in [0, 1]."""
    # One by one: in a larger product the last bits depend on the number of rows.
    return np.array([_network().predict_proba(_cells(image)[None])[0] for image in images])


def read_well() -> float:
    """Share of the offices' test digits that the network would read if they were clean."""
    tested = [digit for digit in pictures(clean=True) if digit.kind == "test"]
    found = model(np.array([digit.pixels for digit in tested]) / 255).argmax(axis=1)
    return float(np.mean(found == [digit.label for digit in tested]))


@lru_cache(maxsize=1)
def _network() -> Any:
    """Trained on every second digit; always the same."""
    from threadpoolctl import threadpool_limits

    try:
        from sklearn.neural_network import MLPClassifier
    except ImportError:
        raise MissingExtra("scikit-learn", "vision") from None
    inks, labels = (column[::2] for column in _digits())
    seen = np.array([_cells(photograph(ink, View()) / 255) for ink in inks])
    network = MLPClassifier((HIDDEN,), alpha=0.01, max_iter=300, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # that it could be trained for longer
        return network.fit(seen, labels)


def _cells(image: Array) -> Array:
    """(64,) darkness of one image by cells."""
    side = SIDE // CELLS
    return np.asarray(1 - image.reshape(CELLS, side, CELLS, side * 3).mean(axis=(1, 3))).ravel()


@lru_cache(maxsize=1)
def _digits() -> tuple[Array, Array]:
    """(1797, 8, 8) ink in [0, 1] and (1797,) labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("scikit-learn", "vision") from None
    found = load_digits()
    return np.asarray(found.images / 16), np.asarray(found.target)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("pillow", "vision") from None
    return Image
