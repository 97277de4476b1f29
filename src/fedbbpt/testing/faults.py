"""What goes wrong between a client and a model, on purpose and the same every time.

:class:`Faulty` spoils the answers of any box in this process, :class:`FaultServer` is a server on
this machine whose replies fail in the ways of real ones::

    with FaultServer(lambda text: {" great": -0.2, " awful": -1.7}, evenly(0.3)) as server:
        box = OpenaiHttp(server.url, "toy")
        ...
    print(server.requests, server.peak, [seen.fault for seen in server.log])

What fails is decided by the seed, the content of a request and how often it came before, never by
who was first: threads change nothing, and what is asked again may be answered. Only label noise is
for ever: no client can see it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox, Wrapper
from fedbbpt.errors import TransientError
from fedbbpt.testing._fault_kinds import KINDS, TRANSIENT, Dice, check_shares, evenly, swap
from fedbbpt.testing._fault_server import FaultServer, Seen
from fedbbpt.types import Atom, Grid, RenderedPrompt, Reply, digest

# As sorted() has it, which tests/test_house.py asks for.
__all__ = ["FaultServer", "Faulty", "KINDS", "Seen", "TRANSIENT", "evenly"]  # noqa: RUF022


class Faulty(Wrapper):
    """A box that fails now and then, and one whose answers are sometimes wrong.

    Noise is in the scores and not in an atom's row: a dual encoder's row is a vector, in which no
    class can be swapped. So a ledger holds the rows of the box without noise.

    Args:
        inner: the box.
        errors: share of calls that raise a :class:`TransientError`.
        nans: share of rows that are NaN.
        counts: share of calls that return a row too few.
        slow: share of calls that take ``seconds`` longer.
        label_noise: share of pairs of prompt and example for which the likeliest class changes its
            score with another one, whenever they are asked.
        seed: other seeds, other failures.
        seconds: see ``slow``.
        sleep: waits; a test passes its own.

    Raises:
        ConfigError: a share is not in [0, 1].
    """

    def __init__(
        self,
        inner: AtomicBox,
        errors: float = 0.0,
        nans: float = 0.0,
        counts: float = 0.0,
        slow: float = 0.0,
        label_noise: float = 0.0,
        seed: int = 0,
        seconds: float = 0.05,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self.shares = {"errors": errors, "nans": nans, "counts": counts, "slow": slow}
        check_shares({**self.shares, "label_noise": label_noise})
        self.label_noise, self.seconds, self.sleep = label_noise, seconds, sleep
        self.dice = Dice(seed)

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """The inner box's atoms, assembled with noise."""
        grid = self.inner.split(prompts, examples)
        if not self.label_noise:
            return grid

        def assemble(rows: Sequence[Array]) -> Reply:
            reply = grid.assemble(rows)
            return replace(reply, scores=self._mislabelled(reply.scores, prompts, examples))

        return Grid(grid.atoms, assemble)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """The inner box's rows, or less than that."""
        keys = [atoms[i].key for i in wanted]
        call = digest(*keys)
        if self._fails("slow", call):
            self.sleep(self.seconds)
        if keys and self._fails("errors", call):
            raise TransientError(f"{self.name} failed as it was told to")
        rows = self.inner.evaluate(atoms, wanted)
        rows = [
            row + np.nan if self._fails("nans", key) else row
            for key, row in zip(keys, rows, strict=True)
        ]
        return rows[:-1] if keys and self._fails("counts", call) else rows

    def _fails(self, kind: str, key: bytes) -> bool:
        share = self.shares[kind]
        return share > 0 and self.dice.throw(kind, key) < share

    def _mislabelled(
        self, scores: Array, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]
    ) -> Array:
        scores = scores.copy()
        about = [digest(x.tobytes() if isinstance(x, np.ndarray) else repr(x)) for x in examples]
        for k, prompt in enumerate(prompts):
            asked = digest(*prompt.keys, *prompt.labels)
            for b, example in enumerate(about):
                key = asked + example
                if self.dice.fixed("label", key) < self.label_noise:
                    swap(scores[k, b], self.dice.fixed("other", key))
        return scores
