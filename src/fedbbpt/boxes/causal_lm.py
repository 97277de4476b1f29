"""A causal language model as a black box: a text's class is the likeliest label behind it.

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
from fedbbpt.boxes._prefixes import Walk, plan
from fedbbpt.boxes._prompted import Prompted
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

    Raises:
        MissingExtra: torch or transformers is not installed.
        ConfigError: the model cannot be found or is not a causal language model.
    """

    def __init__(
        self,
        model: str,
        dtype: str = "auto",
        device: str = "auto",
        rows: int = 32,
        max_tokens: int = 128,
        threads: int = 0,
        normalise: bool = False,
    ) -> None:
        self.network = Network(model, dtype, device, threads)
        self.vocabulary: Words = self.network.vocabulary
        shares = self._shares if normalise else None
        self._set_up("causal_lm", model, self.network, self.vocabulary, rows, max_tokens, shares)
        self.normalise = normalise
        # Three levels of beginnings, each padded to the longest, may take up so many places.
        if self.network.window < 4 * max_tokens:
            self.network.window = 0
        self._choices = lru_cache(maxsize=256)(self._label_ids)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """(C,) float64 summed log-probabilities of the labels' tokens."""
        laid = [self._row(atom) for atom in atoms]
        parts: list[tuple[list[int], list[Array]]] = [(list(range(len(atoms))), [])]
        if self.network.window and atoms:
            contents = [row.content for row in laid]
            by_prompt = [atom.data[0].keys[0] for atom in atoms]
            by_text = [atom.data[1] for atom in atoms]
            parts = plan(contents, [by_prompt, by_text], self.rows)
        found: dict[int, Array] = {}
        with self._lock:
            for rows, levels in parts:
                walk = Walk(self.network, laid, levels, self.rows, set(wanted), found)
                walk.go([rows], 0, None)
        return [found[i] for i in wanted]

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
        return max(map(len, self._choices(labels)))

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
