"""Where texts are among each other: principal components of their embeddings, in few numbers.

A Gaussian process needs distances, and of some dozen texts a few components hold nearly all of
what their embeddings say; they travel in a tenth of the bytes.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array

RUNS = (3, 4, 5)
BUCKETS = 4096


class Axes(NamedTuple):
    """How embeddings become places.

    Attributes:
        origin: (H,) the embedding that is at zero.
        axes: (dim, H) orthonormal rows, the last zero where there are fewer directions.
    """

    origin: Array
    axes: Array

    def places(self, embeddings: Array) -> Array:
        """(N, dim) of (N, H) embeddings, rounded to what a float32 holds, so that they come off a
        wire as they went on it.
        """
        moved = (np.asarray(embeddings, np.float64) - self.origin) @ self.axes.T
        return np.asarray(moved.astype(np.float32).astype(np.float64)) + 0.0

    def extended(self, embeddings: Array) -> Axes:
        """Rows that are zero become axes of what later (N, H) embeddings hold besides.

        Where there are such rows, the first embeddings have no part in it: they stay in place.
        """
        moved = np.asarray(embeddings, np.float64) - self.origin
        used = int(self.axes.any(axis=1).sum())
        more = _directions(moved - moved @ self.axes.T @ self.axes, len(self.axes) - used)
        return Axes(self.origin, np.concatenate([self.axes[:used], more]))


def principal(embeddings: Array, dim: int) -> Axes:
    """The directions in which (N, H) embeddings differ most; the first embedding is the origin."""
    exact = np.asarray(embeddings, np.float64)
    return Axes(exact[0], _directions(exact - exact.mean(axis=0), dim))


def _directions(vectors: Array, count: int) -> Array:
    """(count, H): orthonormal rows in which (N, H) vectors are longest, the last zero."""
    _, sizes, rows = np.linalg.svd(vectors, full_matrices=False)
    kept = rows[:count][sizes[:count] > 1e-9 * max(1.0, sizes[0])]
    # Which way an axis points is the solver's choice: its largest entry is made positive.
    kept = kept * np.sign(np.take_along_axis(kept, abs(kept).argmax(axis=1)[:, None], axis=1))
    return np.concatenate([kept, np.zeros((count - len(kept), vectors.shape[1]))])


def ngrams(texts: Sequence[str]) -> Array:
    """(N, BUCKETS) unit vectors of hashed runs of 3 to 5 characters of each word, each counted by
    its root: likeness of letters for where no sentence encoder is installed.
    """
    found = np.zeros((len(texts), BUCKETS))
    for row, text in enumerate(texts):
        words = (f" {word} " for word in re.findall(r"\w+", text.lower()))
        runs = Counter(w[i : i + n] for w in words for n in RUNS for i in range(len(w) - n + 1))
        for run, count in runs.items():
            found[row, zlib.crc32(run.encode()) % BUCKETS] += count
    found = np.sqrt(found)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(lengths > 0, lengths, 1.0))
