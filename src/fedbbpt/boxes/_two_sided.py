"""What local dual encoders share: their atoms, a prompted text's tokens, gradients by one side."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.boxes._dual_form import Dual
from fedbbpt.boxes._encoder import Vectors
from fedbbpt.boxes._forms import LABEL_GAP, PICTURE, TEXT_GAP, Content
from fedbbpt.boxes._gradient import gather, numbered
from fedbbpt.boxes._transformers import Tokens, batches
from fedbbpt.errors import ConfigError
from fedbbpt.types import Atom, Grid, RenderedPrompt


class TwoSided(AtomicBox):
    """A dual encoder in this process; texts are laid out, batched and asked here."""

    vocabulary: Tokens
    max_tokens: int

    def _set_up(
        self,
        form: Dual,
        encoder: Vectors,
        ends: tuple[tuple[int, ...], tuple[int, ...]],
        rows: int,
        max_tokens: int,
    ) -> None:
        """Every attribute: ``ends`` are the special tokens before and after every text."""
        self.form, self.name, self.encoder = form, form.name, encoder
        self.vocabulary, self.ends = encoder.vocabulary, ends
        self.scale, self.rows, self.max_tokens = form.scale, rows, max_tokens
        self._lock = threading.Lock()
        self._layout = lru_cache(maxsize=1 << 16)(self._lay_out)
        self._still = lru_cache(maxsize=256)(self._bare_vectors)

    @property
    def hidden(self) -> int:
        """H of the space where examples and labels meet."""
        return self.form.hidden

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """Atoms: each distinct bare or prompted example, each distinct bare or prompted label."""
        return self.form.split(prompts, examples)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """(H,) float32 unit vectors of the wanted atoms."""
        texts = [i for i, atom in enumerate(atoms) if atom.data[0] != PICTURE]
        laid = {i: self._inputs(atoms[i]) for i in texts}
        rows: dict[int, Array] = {}
        # Labels and examples are kept apart: examples are mostly cached, their batches skipped.
        for kind in (LABEL_GAP, TEXT_GAP):
            group = [i for i in texts if atoms[i].data[0] == kind]
            for batch in batches(group, lambda i: len(laid[i][0]), self.rows, wanted):
                with self._lock:
                    vectors = self.encoder.forward([laid[i] for i in batch])
                rows.update(zip(batch, vectors, strict=True))
        return [rows[i] for i in wanted]

    def gradient(
        self, prompt: RenderedPrompt, examples: Sequence[Any], targets: Array
    ) -> tuple[float, Array]:
        """Through the network on the prompt's side; the other side's vectors stand still."""
        around_label = prompt.side == "label"
        if around_label:
            moved = self.form.labels(prompt)
            texts, labels = self._still(tuple(examples)), self._vectors(moved)
        else:
            moved = tuple(self.form.example(prompt, x) for x in examples)
            texts, labels = self._vectors(moved), self._still(prompt.labels)
        log_p = self.form.scores(texts[None], labels[None])[0]
        rows = np.arange(len(texts))
        error = np.exp(log_p)
        error[rows, targets] -= 1.0
        error *= self.scale / len(rows)
        pulls = error.T @ texts if around_label else error @ labels
        return -float(log_p[rows, targets].mean()), self._pull(prompt, moved, pulls)

    def _pull(self, prompt: RenderedPrompt, moved: Sequence[Atom], pulls: Array) -> Array:
        """(S, T, H), from the gradient with respect to the N prompted vectors, (N, H)."""
        laid, other = [self._inputs(atom) for atom in moved], numbered(prompt)
        gradient = np.zeros((len(prompt.soft), *prompt.soft[0].shape))
        every = range(len(moved))
        for batch in batches(every, lambda i: len(laid[i][0]), self.rows, every):
            with self._lock:
                slopes = self.encoder.gradient([laid[i] for i in batch], pulls[batch])
            for i, slope in zip(batch, slopes, strict=True):
                gap, text, _, label = moved[i].data
                which = label if len(prompt.soft) > 1 else 0
                gather(gradient[which], slope, self._inputs(Atom(b"", (gap, text, other, label))))
        return gradient

    def _vectors(self, atoms: Sequence[Atom]) -> Array:
        """(N, H) float64 unit vectors."""
        return np.array(self.evaluate(atoms, range(len(atoms))), np.float64)

    def _bare_vectors(self, bare: tuple[Any, ...]) -> Array:
        return self._vectors([self.form.atom(Content(None, -1, x)) for x in bare])

    # --- atoms -------------------------------------------------------------------------------

    def _inputs(self, atom: Atom) -> tuple[Array, Array | None, Array | None]:
        """Token ids (L,), the positions that a soft prompt moves (M,) and by how much (M, H)."""
        gap, text, prompt, label = atom.data
        if prompt is None:
            return self._layout(TEXT_GAP, TEXT_GAP, text, 0, "before")[0], None, None
        if not prompt.soft:
            tokens = prompt.tokens_of(label)
            ids, _, at = self._layout(prompt.template, gap, text, len(tokens), prompt.place)
            return np.insert(ids, at, np.array(tokens, np.int64)), None, None
        soft = prompt.soft[label if len(prompt.soft) > 1 else 0]
        if prompt.mode == "insert":
            ids, _, at = self._layout(prompt.template, gap, text, len(soft), "before")
            places = np.arange(at, at + len(soft))
            return np.insert(ids, at, np.full(len(soft), -1)), places, soft
        ids, slots, _ = self._layout(prompt.template, gap, text, 0, "before")
        own = int(slots.max()) + 1 if len(slots) else 0
        if gap == LABEL_GAP:
            # The words of the label share one more row, the last.
            slots = np.where(slots == -1, own, slots)
        places = np.flatnonzero(slots >= 0)
        return ids, places, soft[slots[places]]

    def _lay_out(
        self, template: str, gap: str, text: str, room: int, place: str
    ) -> tuple[Array, Array, int]:
        """Token ids and places between the special tokens, and where new tokens go in."""
        template = template.replace(gap, "\0")
        ids, slots = self.vocabulary.layout(template, text)
        front, back = self.ends
        at = len(front) + (self.vocabulary.behind(template, text) if place == "after" else 0)
        over = len(ids) + len(front) + len(back) + room - self.max_tokens
        if over > 0:
            if over > slots.count(-1):
                template = template.replace("\0", gap)
                raise ConfigError(f"prompt.template '{template}' is longer than box.max_tokens")
            fill = [i for i, slot in enumerate(slots) if slot == -1]
            cut = set(fill[max(0, len(fill) - over) :])
            ids = [t for i, t in enumerate(ids) if i not in cut]
            slots = [s for i, s in enumerate(slots) if i not in cut]
            at -= len(cut) if place == "after" else 0
        places = [-2] * len(front) + slots + [-2] * len(back)
        return np.array([*front, *ids, *back], np.int64), np.array(places, np.int64), at
