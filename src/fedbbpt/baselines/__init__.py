"""Rivals that are not ask/tell, and what one is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

from fedbbpt.arrays import Arrays
from fedbbpt.black_box import AtomicBox
from fedbbpt.parts import Phase
from fedbbpt.types import RenderedPrompt, Update


class Exchange(Protocol):
    """A baseline's way to the clients: every message is counted and charged like a round's."""

    @property
    def classes(self) -> int:
        """C."""

    @property
    def hidden(self) -> int:
        """H of the box's embeddings."""

    def holders(self, kind: str) -> list[str]:
        """Names of the clients with examples of a kind: "train", "holdout" or "test"."""

    def ask(self, phase: str, arrays: Arrays, clients: Sequence[str]) -> list[Update]:
        """One message down and one up."""


class Baseline(ABC):
    """A rival that is not ask/tell, in the same table.

    Attributes:
        needs: what the box must give besides scores, of {"embeddings", "text", "gradients"}.
        prompt: the kind of prompt that it starts at, with that kind's own options; the config's
            are those of a search.
        numbers: it also works where labels are numbers and not classes; ``words``: where answers
            are words; ``pictures``: where examples are pictures and not texts.
        everyone: what is fitted differs from client to client, so that where the test examples
            belong to no site, every client is scored on all of them.
        evaluate: the phase that scores the starting prompt and, second, what was fitted.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    prompt: ClassVar[str] = "manual"
    numbers: ClassVar[bool] = True
    words: ClassVar[bool] = False
    pictures: ClassVar[bool] = True
    everyone: ClassVar[bool] = False
    evaluate: ClassVar[str]

    @property
    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The jobs it sends to clients."""

    def prepare(self, start: RenderedPrompt, box: AtomicBox) -> None:  # noqa: B027 - most fit any
        """Raise a ConfigError if it cannot work on this starting prompt; asked before anything is
        paid.
        """

    @abstractmethod
    def fit(self, exchange: Exchange) -> Arrays:
        """What was learned, as the arrays that the evaluation phase needs."""
