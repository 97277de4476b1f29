"""A toy image classifier with twelve classes of its own, and pictures for tasks of three.

The tests put this folder on PYTHONPATH and name ``sightbox:answer`` in a config. Rows do not depend
on the batch they are computed in, so runs can be compared to the bit. The environment steers it:

SIGHTBOX_SLEEP: seconds that every picture takes.
SIGHTBOX_LOG: a file that gets a line for every call, before it is answered: how many pictures.
"""

from __future__ import annotations

import os
import time

import numpy as np

from fedbbpt.types import Picture

CLASSES = tuple(f"thing {i}" for i in range(12))
SIZE = (12, 12)
KINDS = ("ape", "bee", "cow")
NAMED = {"ape": "thing 1", "bee": "thing 4 | thing 5", "cow": "thing 8"}
_WEIGHTS = np.random.default_rng(7).standard_normal((len(CLASSES), 12))


def answer(images):
    """(B, 12) probabilities from the colours of each quarter."""
    _log(len(images))
    time.sleep(float(os.environ.get("SIGHTBOX_SLEEP", "0")) * len(images))
    quarters = np.asarray(images, np.float64).reshape(-1, 2, 6, 2, 6, 3).mean(axis=(2, 4))
    seen = 4 * (quarters.reshape(-1, 1, 12) - 0.5)
    # Sums over the last axis alone: a row is the same in any company.
    logits = (seen * _WEIGHTS).sum(axis=-1)
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def pixels(kind, number):
    """(15, 18, 3) uint8: noise in the colours of a kind, no two alike."""
    own = np.random.default_rng(KINDS.index(kind)).uniform(85, 170, (2, 2, 3))
    rng = np.random.default_rng([KINDS.index(kind), number])
    shades = np.kron(own + rng.normal(0, 45, own.shape), np.ones((8, 9, 1)))[:15]
    return np.clip(shades + rng.normal(0, 20, shades.shape), 0, 255).astype(np.uint8)


def pictures(count, first=0, kinds=KINDS):
    """(array, kind) pairs; kinds take turns."""
    return [(pixels(kinds[i % len(kinds)], first + i), kinds[i % len(kinds)]) for i in range(count)]


def batch(count, first=0, kinds=KINDS):
    """The same as what a client holds: pictures and class indices."""
    pairs = pictures(count, first, kinds)
    inputs = tuple(Picture(array, f"{kind} {i}") for i, (array, kind) in enumerate(pairs))
    return inputs, np.array([KINDS.index(kind) for _, kind in pairs], np.int64)


def tables(**changes):
    """Tables of a config for the box; keys of ``changes`` are dotted."""
    tree = {
        "box": {
            "kind": "image_classifier",
            "model": "sightbox:answer",
            "name": "sightbox",
            "classes": list(CLASSES),
            "size": list(SIZE),
            "rows": 1,
        },
        "prompt": {"kind": "visual", "side": "image", "form": "look", "mapping": "counts"},
        "method": {"name": "fedlook", "snapshots": 3},
        "rounds": {"max": 1000, "batch": 4},
        "budget": {"queries": 600},
    }
    for path, value in changes.items():
        *places, key = path.replace("__", ".").split(".")
        place = tree
        for table in places:
            place = place.setdefault(table, {})
        place[key] = value
    return tree


def _log(count):
    path = os.environ.get("SIGHTBOX_LOG")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{count}\n")
