"""A causal language model as a black box: a text's class is the likeliest label behind it, and
without labels its answer is what the model itself says there.

The template wraps the text and ends where the label belongs, as in "{text} It was". A class's
score is the log-probability of its label's tokens, one or several, each given the prompted text
and the tokens before it. One atom is one prompted example, and its row holds these sums over the
whole vocabulary; a reply's scores are renormalised over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._causal import Choice, Network, Row, Words
from fedbbpt.boxes._greedy import continued
from fedbbpt.boxes._prefixes import Walk, plan
from fedbbpt.boxes._prompted import Prompted
from fedbbpt.boxes._transformers import batches
from fedbbpt.boxes._written import seal
from fedbbpt.errors import ConfigError
from fedbbpt.types import Atom


class CausalLm(Prompted):
    """A local GPT, Llama or Qwen behind the box protocol; prompts stand on the text side.

    Beginnings that prompted examples share (the prompt, or the text before it) are run once, and
    so is an example for all its labels, wherever the model's key/value cache allows it.

    Args:
        model: a folder or a hub name.
        dtype: ``"auto"`` (bfloat16 where the hardware has it), ``"float32"`` or ``"bfloat16"``.
        device: ``"auto"`` (a GPU where there is one) or any torch device.
        rows: most rows in one forward pass. CPU cores gain nothing beyond a few dozen rows.
        max_tokens: prompt, text and label together; a longer text is cut, the template never.
        threads: torch threads; 0 leaves torch's own choice.
        normalise: divide a label's log-probability by its number of tokens, so that long labels
            are not at a disadvantage. Off, since a label's probability is then its own.
        reply_tokens: most tokens of an answer in words, behind ``max_tokens`` (InstructZero's
            128).

    Raises:
        MissingExtra: torch or transformers is not installed.
        ConfigError: the model cannot be found or is not a causal language model.
    """

    gives = Prompted.gives | {"text"}

    def __init__(
        self,
        model: str,
        dtype: str = "auto",
        device: str = "auto",
        rows: int = 32,
        max_tokens: int = 128,
        threads: int = 0,
        normalise: bool = False,
        reply_tokens: int = 128,
    ) -> None:
        if reply_tokens < 1:
            raise ConfigError(f"box.reply_tokens is {reply_tokens}; it must be at least 1")
        self.network = Network(model, dtype, device, threads)
        self.vocabulary: Words = self.network.vocabulary
        shares = self._shares if normalise else None
        self._set_up("causal_lm", model, self.network, self.vocabulary, rows, max_tokens, shares)
        self.name = self.form.name = f"{self.name}:{reply_tokens}"
        self.normalise, self.reply_tokens = normalise, reply_tokens
        # Three levels of beginnings, each padded to the longest, may take up so many places.
        if self.network.window < 4 * max_tokens:
            self.network.window = 0
        self._choices = lru_cache(maxsize=256)(self._label_ids)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """(C,) float64 summed log-probabilities of the labels' tokens, or sealed answers."""
        asked, found = set(wanted), dict[int, Array]()
        # Who merges the calls of others has both kinds at once; each keeps its own batches.
        for wordy, work in ((False, self._scored), (True, self._written)):
            places = [i for i, atom in enumerate(atoms) if (not atom.data[0].labels) == wordy]
            some = {n for n, i in enumerate(places) if i in asked}
            if some:
                with self._lock:
                    rows = work([atoms[i] for i in places], some)
                found |= {places[n]: row for n, row in rows.items()}
        return [found[i] for i in wanted]

    def _scored(self, atoms: Sequence[Atom], wanted: set[int]) -> dict[int, Array]:
        laid = [self._row(atom) for atom in atoms]
        parts: list[tuple[list[int], list[Array]]] = [(list(range(len(atoms))), [])]
        if self.network.window:
            contents = [row.content for row in laid]
            by_prompt = [atom.data[0].keys[0] for atom in atoms]
            by_text = [atom.data[1] for atom in atoms]
            parts = plan(contents, [by_prompt, by_text], self.rows)
        found: dict[int, Array] = {}
        for rows, levels in parts:
            Walk(self.network, laid, levels, self.rows, wanted, found).go([rows], 0, None)
        return found

    def _written(self, atoms: Sequence[Atom], wanted: set[int]) -> dict[int, Array]:
        laid = [self._row(atom).inputs for atom in atoms]
        found: dict[int, Array] = {}
        for batch in batches(range(len(laid)), lambda n: len(laid[n][0]), self.rows, wanted):
            said = continued(self.network, [laid[n] for n in batch], self.reply_tokens)
            for n, new in zip(batch, said, strict=True):
                text = self.vocabulary.said(int(laid[n][0][-1]), new)
                found[n] = seal(text, self.name, *atoms[n].data)
        return found

    # --- atoms -------------------------------------------------------------------------------

    def _row(self, atom: Atom) -> Row:
        prompt, text = atom.data
        (ids, places, soft), slots = self._inputs(prompt, text)
        if not len(ids):
            ids = np.array([self.vocabulary.start], np.int64)
        content = ids.copy()
        if places is not None:
            # Two tokens are the same input if the same row of the same soft prompt moves both.
            own = int.from_bytes(prompt.keys[0][:6]) << 12
            content[places] = -1 - own - (slots[places] if prompt.mode == "add" else places)
        return Row((ids, places, soft), content, self._choices(prompt.labels))

    def _check(self, template: str) -> None:
        super()._check(template)
        for gap in ("{label}", "{mask}"):
            if gap in template:
                raise ConfigError(
                    f"prompt.template '{template}' must not hold {gap}: a causal model goes on "
                    "behind the template, so end it where the label belongs"
                )

    def _slopes(self, atoms: Sequence[Atom], targets: Array) -> tuple[float, list[Array]]:
        shares = self._shares(atoms[0].data[0].labels)
        return self.network.gradient([self._row(atom) for atom in atoms], targets, shares)

    def _spare(self, labels: tuple[str, ...]) -> int:
        if labels:
            return max(map(len, self._choices(labels)))
        most = self.max_tokens + self.reply_tokens
        if most > self.network.limit:
            raise ConfigError(
                f"box.max_tokens {self.max_tokens} and box.reply_tokens {self.reply_tokens} are "
                f"{most}; the model has room for {self.network.limit}"
            )
        return 0

    def _shares(self, labels: tuple[str, ...]) -> Array:
        """(C,) by which a row is multiplied before the softmax over classes."""
        if not self.normalise:
            return np.ones(len(labels))
        return 1.0 / np.array([len(choice) for choice in self._choices(labels)])

    def _label_ids(self, labels: tuple[str, ...]) -> tuple[Choice, ...]:
        ids: dict[Choice, str] = {}
        for label in labels:
            found = self.vocabulary.label(label)
            if not found:
                raise ConfigError(f"prompt.labels has '{label}', which is no word to the model")
            if found in ids:
                raise ConfigError(
                    f"prompt.labels '{ids[found]}' and '{label}' are the same tokens; "
                    "each class needs a word of its own"
                )
            ids[found] = label
        return tuple(ids)
