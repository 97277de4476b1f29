"""The instructions that a run chooses among: how clients have them written, and where they are.

The server asks every client for some at the start (:mod:`fedbbpt.proposing`) and, later in the
search, for more like the best. It makes their embeddings itself, which are a function of the texts
alone and would cost ten times their bytes. Each growth of the pool is on disk before it is used.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays, wire_bytes
from fedbbpt.build import Federation
from fedbbpt.checkpoint import keep, kept
from fedbbpt.counting import Ask
from fedbbpt.encoder import Encoder, encoder, named
from fedbbpt.latents import Latents
from fedbbpt.maths.places import Axes, principal
from fedbbpt.parts import Parts
from fedbbpt.proposing import PROPOSE, WHY, packed, unpacked
from fedbbpt.random import stream
from fedbbpt.types import Update

NEAR = 2
"""Instructions of which variations are asked for at a time: the best two need not be one's kin."""
APART = 10.0
"""Distance of the user's own instruction, which no soft prompt wrote, from all that one did."""

Tell = Callable[..., None]


class Proposals:
    """The pool of one run.

    Args:
        federation: as built, with the user's own instruction alone.
        folder: where it is kept, a file for each growth.
        made: how often it has grown already.

    Attributes:
        texts: (N,) instructions, the user's own first; ``authors``: who had each written, nobody
            the user's own.
        made: how often the pool has grown.

    Raises:
        RunDirError: what was kept is lost.
    """

    def __init__(self, federation: Federation, folder: Path, made: int) -> None:
        self._federation, self._folder, self.made = federation, folder, made
        prompt, writing = federation.parts.prompt, federation.parts.prompt.writing
        assert writing is not None
        self.writing, self._own = writing, prompt
        self.texts, self.authors = list(prompt.texts), [""]
        self._refused, self._varied = Counter[str](), list[str]()
        # Chosen once: a run that is resumed elsewhere must not mix two encoders' places.
        self._encoder = named(writing.encoder)
        config = federation.config
        self._latents = Latents(writing.dim, config.method.optimizer, config.run.seed)
        self.points: Array = np.asarray(prompt.space.points)
        self._axes: Axes | None = None
        if made:
            found = kept(self._file(made))
            words = json.loads(found["words"].tobytes())
            self.texts, self.authors, self._varied, refused, self._encoder = words
            self._refused = Counter(refused)
            self._latents.points, self._latents.rows = found["latents"], found["rows"]
            self.points = found["points"]
            if "axes" in found:
                self._axes = Axes(found["origin"], found["axes"])

    def due(self, share: float, done: bool, left: float) -> bool:
        """Whether it is time to grow.

        Args:
            share: of the budget that is spent.
            done: every instruction was tried as often as can be.
            left: queries that may be spent on it.
        """
        if not self.made:  # which is paid for: :func:`fedbbpt.needs.count_needs`
            return True
        soft = self.writing.writer == "soft"
        price = self.writing.queries * len(self._writers) if soft else 1 + NEAR
        return (left >= price and self.made <= self.writing.again) and (
            done or share >= self.made / (self.writing.again + 1)
        )

    def grow(self, ask: Ask, tell: Tell, state: Any, number: int) -> None:
        """Ask clients for instructions and take in those that are new.

        Args:
            ask: sends a phase with arrays to clients.
            tell: writes an event.
            state: of the search.
            number: of the round, an address of randomness.
        """
        clients = self._writers
        if self.writing.writer == "soft":
            updates = self._by_latents(ask, clients, state)
        else:
            arrays: Arrays = {"number": np.array(self.writing.proposals)}
            if self.made:
                # The same question would have the same answer.
                best = [self.texts[row] for row in self.ranked(state)]
                near = [text for text in best if text not in self._varied][:NEAR]
                self._varied += near
                arrays["near"] = packed(near)
                order = stream(self._federation.config.run.seed, "varied", number)
                clients = [clients[int(order.integers(len(clients)))]] if clients else []
            updates = [(update, None) for update in ask(PROPOSE.name, arrays, clients)]
        self._take(updates, tell)
        self.made += 1
        self._keep()

    @property
    def _writers(self) -> list[str]:
        """Clients with something to show a writer."""
        return [c for c in self._federation.clients if self._federation.split.train[c].size]

    def parts(self) -> Parts:
        """The run's parts over the pool."""
        return replace(self._federation.parts, prompt=self._own.grown(self.texts, self.points))

    @property
    def notes(self) -> tuple[str, ...]:
        """Why there is nothing to choose from, a sentence, if that is so."""
        if not self.made or len(self.texts) > 1:
            return ()
        why = ", ".join(f"{WHY[why]}: {n}" for why, n in sorted(self._refused.items()) if n)
        known = why or "nothing new, or no client could pay for a query"
        return (f"no instruction but yours was tried, for none came that can be used ({known})",)

    @property
    def bytes(self) -> int:
        """What a client gets of the pool when it has grown."""
        return wire_bytes({"texts": packed(self.texts), "points": self.points.astype(np.float32)})

    def ranked(self, state: Any) -> list[int]:
        """Rows that were answered, the lowest expected loss first."""
        return _ranked(self._federation.parts.optimizer.expected(state))

    def table(self, state: Any, chosen: Array) -> list[dict[str, Any]]:
        """What is known of every instruction, the best first, those never tried last.

        Args:
            state: of the search.
            chosen: the point that the run ends with.
        """
        expected = self._federation.parts.optimizer.expected(state)
        rows = _ranked(expected)
        rows += [row for row in range(len(self.texts)) if row not in set(rows)]
        found = []
        for row in rows:
            loss: float | None = None
            error: float | None = None
            answers = 0.0
            if expected is not None and expected[row, 2]:
                loss, error, answers = expected[row].tolist()
                if self._federation.parts.task.words:  # where a loss is 1 - score
                    loss = min(max(loss, 0.0), 1.0)
            found.append(
                {
                    "instruction": self.texts[row],
                    "author": self.authors[row],
                    "loss": loss,
                    "error": error,
                    "answers": int(answers),
                    "chosen": bool((self.points[row] == chosen).all()),
                }
            )
        return found

    # --- what clients send -----------------------------------------------------------------------

    def _take(self, updates: Sequence[tuple[Update, Array | None]], tell: Tell) -> None:
        """New texts, clients taking turns, so that none fills the pool before the others."""
        each: list[list[tuple[str, str, Array | None]]] = []
        for update, latents in updates:
            texts = _texts(update)
            rows = update.arrays.get("rows", np.zeros(0, np.int64))
            points = [None] * len(texts) if latents is None else list(latents[rows])
            each.append([(t, update.client, p) for t, p in zip(texts, points, strict=True)])
            refused = dict(zip(WHY, update.arrays.get("refused", np.zeros(4, int)), strict=True))
            self._refused.update({why: int(number) for why, number in refused.items()})
            tell(
                "proposed",
                client=update.client,
                sent=len(texts),
                refused={why: int(count) for why, count in refused.items() if count},
            )
        known = {_bare(text) for text in self.texts}
        fresh = []
        for turn in range(max(map(len, each), default=0)):
            for own in each:
                if turn < len(own) and _bare(own[turn][0]) not in known:
                    known.add(_bare(own[turn][0]))
                    fresh.append(own[turn])
        if fresh:
            self._place(fresh)
        where = {_bare(text): row for row, text in enumerate(self.texts)}
        for update, latents in updates:
            if latents is not None:
                self._latents.note(
                    latents, update, [where.get(_bare(t), -1) for t in _texts(update)]
                )

    def _place(self, fresh: Sequence[tuple[str, str, Array | None]]) -> None:
        """Their places; one that is where another is already is the same to the search."""
        texts = [text for text, _, _ in fresh]
        if fresh[0][2] is not None:
            places = np.array([latent for _, _, latent in fresh]) + APART
        else:
            if self._axes is None:
                whole = self._encode([*self.texts, *texts])
                self._axes = principal(whole, self.points.shape[1])
                places = self._axes.places(whole)[len(self.texts) :]
            else:
                whole = self._encode(texts)
                self._axes = self._axes.extended(whole)
                places = self._axes.places(whole)
        taken = {point.tobytes() for point in self.points}
        new = []
        for row, place in enumerate(places):
            if place.tobytes() not in taken:
                taken.add(place.tobytes())
                new.append(row)
        self.texts += [fresh[row][0] for row in new]
        self.authors += [fresh[row][1] for row in new]
        self.points = np.concatenate([self.points, places[new]])

    def _by_latents(
        self, ask: Ask, clients: Sequence[str], state: Any
    ) -> list[tuple[Update, Array | None]]:
        """Each client has its share of the soft prompts written on."""
        latents = self._latents.next(state, self.writing.proposals * len(clients), self.made)
        found: list[tuple[Update, Array | None]] = []
        for place, client in enumerate(clients):
            own = latents[place :: len(clients)]
            arrays = {"number": np.array(1), "latents": own}
            found += [(update, own) for update in ask(PROPOSE.name, arrays, [client])]
        return found

    @cached_property
    def _encode(self) -> Encoder:
        return encoder(self._encoder)

    # --- on disk ---------------------------------------------------------------------------------

    def _keep(self) -> None:
        words = [self.texts, self.authors, self._varied, self._refused, self._encoder]
        arrays = {
            "words": np.frombuffer(json.dumps(words).encode(), np.uint8),
            "points": self.points,
            "latents": self._latents.points,
            "rows": self._latents.rows,
        }
        if self._axes is not None:
            arrays |= {"origin": self._axes.origin, "axes": self._axes.axes}
        keep(self._file(self.made), arrays)

    def _file(self, number: int) -> Path:
        return self._folder / f"pool-{number}.safetensors"


def _ranked(expected: Array | None) -> list[int]:
    if expected is None:
        return [0]
    order = np.argsort(expected[:, 0], kind="stable")
    return [int(row) for row in order if expected[row, 2]]


def _texts(update: Update) -> list[str]:
    return unpacked(update.arrays.get("texts", np.zeros(0, np.uint8)))


def _bare(text: str) -> str:
    """A text for comparison: letters and digits in small letters."""
    return " ".join(re.findall(r"\w+", text.lower()))
