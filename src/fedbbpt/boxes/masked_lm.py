"""A masked language model as a black box: a text's class is the likeliest label word at the mask.

The template wraps the text and holds one mask; each class has one word of the vocabulary. One atom
is one prompted example, and its row the log-probabilities of the label words at the mask, over the
whole vocabulary; a reply's scores are renormalised over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from fedbbpt.arrays import Array
from fedbbpt.boxes._masked import MASK, Network, Row, Words
from fedbbpt.boxes._prompted import Prompted
from fedbbpt.boxes._transformers import batches
from fedbbpt.errors import ConfigError
from fedbbpt.types import Atom


class MaskedLm(Prompted):
    """A local masked language model behind the box protocol; prompts stand on the text side.

    Args:
        model: a folder or a hub name.
        dtype: ``"auto"`` (bfloat16 where the hardware has it), ``"float32"`` or ``"bfloat16"``.
        device: ``"auto"`` (a GPU where there is one) or any torch device.
        rows: most rows in one forward pass. CPU cores gain nothing beyond a few dozen rows.
        max_tokens: a longer text is cut, the template never.
        threads: torch threads; 0 leaves torch's own choice.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ConfigError: the model cannot be found or is not a masked language model.
    """

    def __init__(
        self,
        model: str,
        dtype: str = "auto",
        device: str = "auto",
        rows: int = 32,
        max_tokens: int = 128,
        threads: int = 0,
    ) -> None:
        self.network = Network(model, dtype, device, threads)
        self.vocabulary: Words = self.network.vocabulary
        self._set_up("masked_lm", model, self.network, self.vocabulary, rows, max_tokens)
        self._choices = lru_cache(maxsize=256)(self._label_ids)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """(C,) float32 log-probabilities of the label words at the mask."""
        laid = [self._row(atom) for atom in atoms]
        rows: dict[int, Array] = {}
        for batch in batches(
            range(len(atoms)), lambda i: len(laid[i].inputs[0]), self.rows, wanted
        ):
            with self._lock:
                scores = self.network.forward([laid[i] for i in batch])
            rows.update(zip(batch, scores, strict=True))
        return [rows[i] for i in wanted]

    # --- atoms -------------------------------------------------------------------------------

    def _row(self, atom: Atom) -> Row:
        prompt, text = atom.data
        inputs, slots = self._inputs(prompt, text)
        return Row(inputs, self.vocabulary.mask(inputs[0], slots), self._choices(prompt.labels))

    def _slopes(self, atoms: Sequence[Atom], targets: Array) -> tuple[float, list[Array]]:
        return self.network.gradient([self._row(atom) for atom in atoms], targets)

    def _spare(self, labels: tuple[str, ...]) -> int:
        self._choices(labels)
        return 0

    def _check(self, template: str) -> None:
        """Refuse a template that has not one gap and one mask."""
        super()._check(template)
        masks = self.vocabulary.masks(template)
        if not masks:
            raise ConfigError(
                f"prompt.template '{template}' has no mask; put {MASK} where the label word belongs"
            )
        if masks > 1:
            raise ConfigError(
                f"prompt.template '{template}' has {masks} masks; it must hold {MASK} once"
            )

    def _label_ids(self, labels: tuple[str, ...]) -> tuple[int, ...]:
        ids: dict[int, str] = {}
        for label in labels:
            found = self.vocabulary.single(label)
            if found is None:
                raise ConfigError(self._several(label))
            if found in ids:
                raise ConfigError(
                    f"prompt.labels '{ids[found]}' and '{label}' are the same token; "
                    "each class needs a word of its own"
                )
            ids[found] = label
        return tuple(ids)

    def _several(self, label: str) -> str:
        pieces = len(self.vocabulary.tokenise(f" {label.strip()}"))
        fault = f"is {pieces} tokens" if pieces > 1 else "is not a word"
        near = ", ".join(f"'{word}'" for word in self.vocabulary.near(label))
        return (
            f"prompt.labels '{label}' {fault} in the model's vocabulary, and a mask stands for "
            f"one token; single tokens near it: {near or 'none'}"
        )
