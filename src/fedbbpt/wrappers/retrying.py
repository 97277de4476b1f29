"""Asks again when a box fails in a way that may pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox, Wrapper
from fedbbpt.errors import BoxError, ConfigError, FedbbptError, TransientError
from fedbbpt.types import Atom


class Retrying(Wrapper):
    """Repeats calls that raise :class:`TransientError` or bring too many or too few rows, and rows
    that are not finite.

    Rows that stay non-finite become NaN: their candidates get no loss and are left out of the
    step. A call that keeps raising, or raises anything else, ends the run with a
    :class:`BoxError`; it can be resumed.

    Args:
        inner: the box.
        attempts: tries in all.
        delay: seconds before the second try; doubled before each further one.
        sleep: waits; a test passes its own.
    """

    def __init__(
        self,
        inner: AtomicBox,
        attempts: int = 3,
        delay: float = 0.1,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        if attempts < 1:
            raise ConfigError(f"retrying.attempts is {attempts}; it must be at least 1")
        self.attempts, self.delay, self.sleep = attempts, delay, sleep

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """Rows of the wanted atoms; NaN where no attempt brought an answer."""
        rows: dict[int, Array] = {}
        failed, last = list(wanted), None
        for attempt in range(self.attempts):
            if attempt:
                self.sleep(self.delay * 2 ** (attempt - 1))
            try:
                new = self.inner.evaluate(atoms, failed)
            except TransientError as error:
                last = error
                continue
            except FedbbptError:
                raise
            except Exception as error:
                kind = type(error).__name__
                raise BoxError(f"{self.name} raised {kind}: {error}") from error
            if len(new) != len(failed):
                last = TransientError(f"{len(new)} rows came for {len(failed)} queries")
                continue
            rows.update(zip(failed, new, strict=True))
            failed = [i for i in failed if not np.isfinite(rows[i]).all()]
            if not failed:
                break
        if any(i not in rows for i in wanted):
            raise BoxError(f"{self.name} failed {self.attempts} times, lastly: {last}") from last
        return [np.full_like(rows[i], np.nan) if i in failed else rows[i] for i in wanted]
