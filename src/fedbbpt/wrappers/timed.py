"""Measures the time spent in a box."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox, Wrapper
from fedbbpt.types import Atom, RenderedPrompt


class Timed(Wrapper):
    """The innermost wrapper: adds up the union of the intervals in which the box worked.

    Args:
        inner: the box.
        beside: another box's, whose intervals are added up with this one's.
    """

    def __init__(self, inner: AtomicBox, beside: Timed | None = None) -> None:
        super().__init__(inner)
        # One for all accounts, however often the box is billed.
        self._watch: _Watch = beside._watch if beside else _Watch()

    @property
    def seconds(self) -> float:
        """So far, a moment in which two threads are inside counted once."""
        return self._watch.seconds

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """Rows of the inner box."""
        with self._watch.running():
            return self.inner.evaluate(atoms, wanted)

    def gradient(
        self, prompt: RenderedPrompt, examples: Sequence[Any], targets: Array
    ) -> tuple[float, Array]:
        """The inner box's."""
        with self._watch.running():
            return self.inner.gradient(prompt, examples, targets)


class _Watch:
    """Runs while anyone is inside."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside, self._since, self._lock = 0, 0.0, threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        """While one is inside."""
        with self._lock:
            if not self._inside:
                self._since = time.perf_counter()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self.seconds += time.perf_counter() - self._since
