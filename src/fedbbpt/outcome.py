"""What a run comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbbpt.artefact import Tuned
from fedbbpt.errors import ConfigError


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        result: the content of ``result.json``.
        tuned: the prompt that was chosen, ready to predict; ``None`` where there is not one for
            all: after a baseline, or where each client tuned its own.
        path: the run directory.
        by_client: metric before and after for each client with test examples.
        warnings: what went wrong in the search and what to change, a sentence each.
        requests: what went over a wire (:func:`fedbbpt.receipts.summary`), or ``None``.
    """

    result: dict[str, Any]
    tuned: Tuned | None
    path: Path
    by_client: dict[str, tuple[float, float]]
    warnings: tuple[str, ...] = ()
    requests: dict[str, Any] | None = None

    def predict(self, inputs: Sequence[Any]) -> list[str | None]:
        """The most probable class of each input, or its answer in words, by the tuned prompt."""
        if self.tuned is None:
            raise ConfigError(f"{self.result['method']} tunes no prompt for all")
        return self.tuned.predict(inputs)
