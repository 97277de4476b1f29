"""What a classifier's own classes mean for the task, as the clients count it during a run.

At the start, and wherever a snapshot is kept, clients send counts of what the model answers to
their training examples under the current point (:mod:`fedbbpt.maths.label_mapping`). The sum makes
the mapping of that snapshot. While it trains, each client uses the sum *without its own part*:
under a mapping that has seen an example, its loss says nothing of others like it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays, decode, encode
from fedbbpt.build import Federation, zero
from fedbbpt.errors import ConfigError
from fedbbpt.maths import label_mapping
from fedbbpt.maths.merge import weighted_mean
from fedbbpt.round import Parts
from fedbbpt.types import Update

Ask = Callable[[str, Arrays, Sequence[str]], list[Update]]


class Mappings:
    """The label mappings of one run.

    Args:
        federation: as built, without any.
        folder: where they are kept, a file for each count.
        made: how many there are already.

    Attributes:
        named: the labels name classes of the model, so that the start needs no counts.
    """

    def __init__(self, federation: Federation, folder: Path, made: int) -> None:
        self._federation, self._folder = federation, folder
        self._all: list[Array] = []
        self._own: dict[str, Array] = {}
        for number in range(1, made + 1):
            arrays = decode(self._file(number).read_bytes())
            self._all.append(arrays.pop("mapping"))
            self._own = {name[7:]: array for name, array in arrays.items()}
        try:
            federation.box.prepare(zero(federation.parts.prompt))
            self.named = True
        except ConfigError:
            self.named = False

    @property
    def made(self) -> int:
        """How often clients have counted."""
        return len(self._all)

    def count(self, ask: Ask, point: Array) -> None:
        """Let all clients count under a point; the outcome is on disk before it is used."""
        clients = self._federation.clients
        updates = ask("count", {"point": point}, clients)
        counts = {update.client: update.arrays["counts"].astype(np.int64) for update in updates}
        total = np.sum(list(counts.values()), axis=0)
        job = {"point": point, "counts": total.astype(np.uint32)}
        told = [update for update in ask("sharpen", job, clients) if update.weight]
        sharpness = label_mapping.SHARPNESS
        if told:
            losses = weighted_mean(told, "losses")
            sharpness = label_mapping.SHARPNESSES[int(np.argmin(losses))]
        made = sharpness * label_mapping.weights(total)
        own = {
            name: sharpness * label_mapping.weights(label_mapping.others(total, counts[name]))
            for name in counts
        }
        self._all.append(made)
        self._own = own
        file, kept = self._file(self.made), {f"client.{k}": v for k, v in own.items()}
        partial = file.with_suffix(".part")
        partial.write_bytes(encode({"mapping": made, **kept}))
        os.replace(partial, file)

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
