"""A sentence encoder as a black box: a text's class is the one whose label text is nearest.

Scores are log-softmax(scale * cosine). Because examples and labels meet only in the last dot
product, a bare example and a prompted label are separate atoms: with the prompt on the label side
an example is paid once for ever, and a candidate costs one atom per class however many examples
a client holds.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._encoder import Encoder
from fedbbpt.boxes._forms import LABEL_GAP, TEXT_GAP, Dual
from fedbbpt.boxes._gradient import gather, numbered
from fedbbpt.boxes._transformers import Tokens, batches, check_sizes
from fedbbpt.errors import ConfigError
from fedbbpt.protocols import AtomicBox
from fedbbpt.types import Atom, Grid, RenderedPrompt


class DualEncoder(AtomicBox):
    """A local sentence encoder behind the box protocol.

    Args:
        model: ``"minilm"`` (the packaged all-MiniLM-L6-v2), a folder, or a hub name.
        dtype: ``"auto"`` (bfloat16 where the hardware has it), ``"float32"`` or ``"bfloat16"``.
        device: ``"auto"`` (a GPU where there is one) or any torch device.
        scale: cosines are multiplied by this before the softmax. These encoders are trained
            with 20; at 10 the loss is less ready to be lowered by learning a few dozen
            examples by heart (docs/decisions.md).
        rows: most rows in one forward pass. CPU cores gain nothing beyond a few dozen rows.
        max_tokens: a longer text is cut, the template never.
        threads: torch threads; 0 leaves torch's own choice.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ConfigError: the model cannot be found or is not the published one.
    """

    accepts = frozenset({"soft", "tokens", "text"})
    sides = frozenset({"label", "text"})
    gives = frozenset({"scores", "embeddings", "gradients"})
    max_tokens: int

    def __init__(
        self,
        model: str = "minilm",
        dtype: str = "auto",
        device: str = "auto",
        scale: float = 10.0,
        rows: int = 32,
        max_tokens: int = 128,
        threads: int = 0,
    ) -> None:
        if not scale > 0:
            raise ConfigError(f"box.scale is {scale}; it must be above 0")
        self.encoder = Encoder(model, dtype, device, threads)
        check_sizes(model, rows, max_tokens, self.encoder.limit)
        self.name = f"dual_encoder:{self.encoder.name}:{max_tokens}"
        self.vocabulary: Tokens = self.encoder.vocabulary
        self.form = Dual(self.name, scale, self.vocabulary.hidden)
        self.scale, self.rows, self.max_tokens = scale, rows, max_tokens
        self._lock = threading.Lock()
        self._layout = lru_cache(maxsize=1 << 16)(self._lay_out)
        self._still = lru_cache(maxsize=256)(self._bare_vectors)

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """Atoms: each distinct bare or prompted example, each distinct bare or prompted label."""
        return self.form.split(prompts, examples)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """(H,) float32 unit vectors of the wanted atoms."""
        laid = [self._inputs(atom) for atom in atoms]
        rows: dict[int, Array] = {}
        # Labels and examples are kept apart: examples are mostly cached, their batches skipped.
        for kind in (LABEL_GAP, TEXT_GAP):
            group = [i for i, atom in enumerate(atoms) if atom.data[0] == kind]
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
            moved = tuple(self.form.text(prompt, text) for text in examples)
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

    def _bare_vectors(self, texts: tuple[str, ...]) -> Array:
        return self._vectors([self.form.bare(text) for text in texts])

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
        at = 1 + (self.vocabulary.behind(template, text) if place == "after" else 0)
        over = len(ids) + 2 + room - self.max_tokens
        if over > 0:
            if over > slots.count(-1):
                template = template.replace("\0", gap)
                raise ConfigError(f"prompt.template '{template}' is longer than box.max_tokens")
            fill = [i for i, slot in enumerate(slots) if slot == -1]
            cut = set(fill[max(0, len(fill) - over) :])
            ids = [t for i, t in enumerate(ids) if i not in cut]
            slots = [s for i, s in enumerate(slots) if i not in cut]
            at -= len(cut) if place == "after" else 0
        first, last = self.vocabulary.ends
        return np.array([first, *ids, last]), np.array([-2, *slots, -2]), at
