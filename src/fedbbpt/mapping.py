"""What a classifier's own classes mean for the task, as the clients count it during a run.

At the start, and wherever a snapshot is kept, clients send counts of what the model answers to
their training examples under the current point (:mod:`fedbbpt.maths.label_mapping`). The sum makes
the mapping of that snapshot. While it trains, each client uses the sum *without its own part*:
under a mapping that has seen an example, its loss says nothing of others like it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.books import Books
from fedbbpt.build import Federation
from fedbbpt.checkpoint import keep, kept
from fedbbpt.counting import FINAL, Ask, agree
from fedbbpt.errors import ConfigError
from fedbbpt.needs import Needs
from fedbbpt.parts import Parts, zero


class Mappings:
    """The label mappings of one run.

    Args:
        federation: as built, without any.
        folder: where they are kept, a file for each count.
        made: how many there are already.

    Attributes:
        learns: mappings are improved by gradient steps, where there is time for it.
        named: the labels name classes of the model, so that the start needs no counts.
        notes: why not, a sentence, if they do not.

    Raises:
        RunDirError: one of them is lost.
    """

    def __init__(self, federation: Federation, folder: Path, made: int) -> None:
        self._federation, self._folder = federation, folder
        self.learns = federation.config.prompt.mapping == "learned"
        self._all: list[Array] = []
        self._learned: list[bool] = []
        self._own: dict[str, Array] = {}
        for number in range(1, made + 1):
            arrays = kept(self._file(number))
            self._all.append(arrays.pop("mapping"))
            self._learned.append(bool(arrays.pop("learned")))
            self._own = {name[7:]: array for name, array in arrays.items()}
        self.notes: tuple[str, ...] = ()
        try:
            federation.box.prepare(zero(federation.parts.prompt))
        except ConfigError as error:
            why = str(error).partition("; ")[0]
            self.notes = (f"the start goes by the clients' counts, for {why}",)
        self.named = not self.notes

    @property
    def made(self) -> int:
        """How often clients have counted."""
        return len(self._all)

    @property
    def learned(self) -> bool:
        """Whether gradient steps have improved the last mapping."""
        return self._learned[-1]

    def count(self, ask: Ask, point: Array, learned: bool) -> None:
        """Let all clients count under a point; the outcome is on disk before it is used."""
        found = agree(ask, point, self._federation.clients, learned)
        self._all.append(found.mapping)
        self._learned.append(learned)
        self._own = found.own
        own = {f"client.{k}": v for k, v in found.own.items()}
        arrays = {"mapping": found.mapping, "learned": np.array(learned), **own}
        keep(self._file(self.made), arrays)

    def start(self, ask: Ask, books: Books) -> None:
        """The first mappings, of the starting point: each a snapshot unless it is the start."""
        point = books.snapshots.points[0]
        for learned in [False, True] if self.learns and not self.named else [self.learns]:
            self._entered(ask, books, point, learned)
            if self.named or self.made > 1:
                books.snapshot(point, self.made)
            else:
                books.snapshots.maps[0] = 1

    def again(self, ask: Ask, books: Books, point: Array, needs: Needs) -> bool:
        """The mapping of a snapshot of this round; False where it would take what the last needs.

        Args:
            ask: sends a phase with arrays to clients.
            books: of the run, which may be over.
            point: of the snapshot.
            needs: what a count costs.
        """
        last = bool(books.counts.stopped)
        learned = last and self.learns  # which takes time
        kept = books.snapshots.rounds[-1] == books.server.round
        if not kept and not needs.payable(books.budget, 1 if last else 2):
            return False
        # The rows of one that is kept are known, and cost nothing.
        if not kept or (learned and not self.learned):
            self._entered(ask, books, point, learned)
        return True

    def _entered(self, ask: Ask, books: Books, point: Array, learned: bool) -> None:
        self.count(ask, point, learned)
        books.counts.maps = self.made

    def refit(self, ask: Ask, points: Sequence[Array], used: Sequence[int]) -> None:
        """Agree once more on each snapshot's mapping, now on all examples.

        Args:
            points: of the snapshots.
            used: for each the number of its mapping. The first to use it is the one under which
                it was counted.
        """
        each = list(zip(used, points, strict=True))
        for number, point in dict(reversed(each)).items():
            if number:
                clients, learned = self._federation.clients, self._learned[number - 1]
                found = agree(ask, point, clients, learned, FINAL)
                self._all[number - 1] = found.mapping

    def parts(self, used: Sequence[int]) -> tuple[Parts, Mapping[str, Any]]:
        """The run's parts under the last mapping, and the prompt that each client trains with.

        Args:
            used: for each snapshot the number of its mapping, 0 for the labels.
        """
        plain = self._federation.parts
        each = [plain.prompt, *(plain.prompt.mapped(mapping) for mapping in self._all)]
        looks = tuple(each[number] for number in used)
        own = {name: plain.prompt.mapped(mapping) for name, mapping in self._own.items()}
        return replace(plain, prompt=each[-1], looks=looks), own

    def _file(self, number: int) -> Path:
        return self._folder / f"mapping-{number}.safetensors"
