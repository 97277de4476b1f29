"""FedBPT's protection against prompts that are good on garbage too, for any loss of examples."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.protocols import Task
from fedbbpt.senses import Vocabulary
from fedbbpt.types import Batch, Reply

GUARDS = ("none", "ratio", "ratio-of-means")


@dataclass(frozen=True)
class Guarded(Task):
    """A task whose losses may be divided by those of garbled examples.

    Attributes:
        guard: ``"ratio"``: each example's loss divided by its loss after a share of its tokens
            is replaced by random ones (FedBPT eq. 7); ``"ratio-of-means"``: mean loss over mean
            garbage loss, as the public code computes it.
        guard_rate: share of tokens replaced.
        vocabulary: the box's tokens; only the guard needs them.
    """

    guard: str = field(default="none", kw_only=True)
    guard_rate: float = field(default=0.6, kw_only=True)
    vocabulary: Vocabulary | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.guard not in GUARDS:
            raise ConfigError(f"guard is '{self.guard}'; known: {', '.join(GUARDS)}")
        if not 0 < self.guard_rate <= 1:
            raise ConfigError(f"guard_rate is {self.guard_rate}; it must be in (0, 1]")
        object.__setattr__(self, "extends", self.guard != "none")
        if self.extends and self.vocabulary is None:
            raise ConfigError("the guard needs a box with a vocabulary; set guard = 'none'")

    def extend(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch, and behind it a garbled copy of every example."""
        garbled = tuple(self._garble(text, rng) for text in batch.inputs)
        return Batch(batch.inputs + garbled, np.concatenate([batch.targets, batch.targets]))

    def loss(self, reply: Reply, batch: Batch) -> Array:
        """(K, B) losses, divided by the garbled examples' losses where the guard is on."""
        real = self.plain_loss(Reply(reply.scores[:, : batch.size]), batch)
        if not self.extends:
            return real
        garbled = self.plain_loss(Reply(reply.scores[:, batch.size :]), batch)
        if self.guard == "ratio-of-means":
            garbled = garbled.mean(axis=1, keepdims=True)
        # A garbage loss of 0 would make the ratio infinite, and the candidate be dropped as if
        # the box had failed.
        return real / np.maximum(garbled, 1e-6)

    def _garble(self, text: str, rng: np.random.Generator) -> str:
        """The text with a share of its own tokens, never the prompt's, replaced by others."""
        vocabulary = self.vocabulary
        assert vocabulary is not None  # checked in __post_init__
        ids = np.array(vocabulary.tokenise(text))
        hit = rng.random(len(ids)) < self.guard_rate
        ids[hit] = rng.choice(vocabulary.ordinary(), size=int(hit.sum()))
        return vocabulary.decode(ids.tolist())


def pick(name: str, known: tuple[str, ...]) -> str:
    """The metric of that name, the first known one for ``"auto"``.

    Raises:
        ConfigError: the task has no such metric.
    """
    if name == "auto":
        return known[0]
    if name not in known:
        raise ConfigError(f"metric is '{name}'; this task knows: {', '.join(known)}")
    return name
