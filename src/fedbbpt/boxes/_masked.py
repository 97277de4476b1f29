"""A transformers masked language model: its words, its mask, and logits at the mask alone."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes import _words
from fedbbpt.boxes._gradient import slopes
from fedbbpt.boxes._transformers import Inputs, Pretrained
from fedbbpt.boxes._words import OTHER
from fedbbpt.errors import ConfigError

MASK = "{mask}"


class Row(NamedTuple):
    """One prompted example: what the network gets, where its mask is, and the words asked for."""

    inputs: Inputs
    mask: int
    choices: tuple[int, ...]


class Words(_words.Words):
    """The vocabulary of a masked language model, which knows its mask."""

    def __init__(self, tokenizer: Any, matrix: Array) -> None:
        self._mask, self._mask_id = str(tokenizer.mask_token), tokenizer.mask_token_id
        self._special = set(tokenizer.all_special_ids)
        super().__init__(tokenizer, matrix)
        self.front, self.back = ((one,) for one in self.ends)
        self.fixed = frozenset({self._mask_id})

    def frame(self, template: str) -> str:
        """The template with its mask in the tokenizer's spelling."""
        return template.replace(MASK, self._mask)

    def tokenise(self, text: str) -> list[int]:
        """Ids of a text, without special tokens and without masks."""
        return [i for i in super().tokenise(self.frame(text)) if i != self._mask_id]

    def masks(self, template: str) -> int:
        """How many masks a template holds, in either spelling."""
        return self.frame(template).count(self._mask)

    def mask(self, ids: Sequence[int] | Array, slots: Sequence[int] | Array) -> int:
        """Where the template's own mask is; a mask in the text is part of the fill."""
        own = (np.asarray(ids) == self._mask_id) & (np.asarray(slots) == OTHER)
        return int(own.nonzero()[0][0])

    def single(self, word: str) -> int | None:
        """The id of a word that is one token, as it stands after a space or else by itself."""
        bare = word.strip()
        for form in (f" {bare}", bare) if bare else ():
            ids = super().tokenise(form)
            if len(ids) == 1 and ids[0] not in self._special:
                return ids[0]
        return None

    def near(self, word: str, count: int = 3) -> list[str]:
        """Words of one token that are spelt like ``word``, then those of near embeddings."""
        words = {self._tokenizer.convert_ids_to_tokens(int(i)): int(i) for i in self.ordinary()}
        words = {token.removeprefix(self._mark): i for token, i in words.items()}
        found = difflib.get_close_matches(word.strip(), words, count, 0.75)
        pieces = [i for i in self.tokenise(f" {word.strip()}") if i not in self._special]
        if pieces:
            mean = self.embed(pieces).mean(axis=0)
            table = self.embed(list(words.values()))
            cosines = table @ mean / np.maximum(np.linalg.norm(table, axis=1), 1e-12)
            ranked = np.array(list(words))[np.argsort(-cosines)]
            found += [str(w) for w in ranked if w not in found][: count - len(found)]
        return found


class Network(Pretrained):
    """A masked language model whose head sees one position of each row."""

    def __init__(self, model: str, dtype: str, device: str, threads: int) -> None:
        super().__init__(model, "AutoModelForMaskedLM", dtype, device, threads)
        random = [name for name in self.missing if ".weight" in name and "pooler" not in name]
        base = self.network.base_model
        if random or self.tokenizer.mask_token_id is None or base is self.network:
            lack = f"its files lack {random[0]}" if random else "its tokenizer has no mask"
            raise ConfigError(f"box.model '{model}' is not a masked language model: {lack}")
        self.vocabulary = Words(self.tokenizer, self.matrix)
        self.settle()

    def forward(self, rows: Sequence[Row]) -> list[Array]:
        """(C,) float32 log-probabilities, over the vocabulary, of each row's choices at its mask.

        One forward at a time.
        """
        torch = self.torch
        width = max(len(row.choices) for row in rows)
        padded = [[*row.choices, *[0] * (width - len(row.choices))] for row in rows]
        with torch.inference_mode():
            masks = torch.tensor([[row.mask] for row in rows], device=self.device)
            logits = self.logits(self.batch([row.inputs for row in rows]), masks)[:, 0]
            chosen = logits.gather(1, torch.tensor(padded, device=self.device))
            found = (chosen - logits.logsumexp(1, keepdim=True)).cpu().numpy()
        return [np.array(f[: len(row.choices)]) for f, row in zip(found, rows, strict=True)]

    def gradient(self, rows: Sequence[Row], targets: Array) -> tuple[float, list[Array]]:
        """Sum over rows with the same choices of the choices' cross-entropy, and its gradient with
        respect to each row's (L, H) input embeddings.
        """
        torch = self.torch
        masks = torch.tensor([[row.mask] for row in rows], device=self.device)
        wanted = torch.tensor(targets, device=self.device)

        def loss(given: Mapping[str, Any]) -> Any:
            chosen = self.logits(given, masks)[:, 0, list(rows[0].choices)]
            return torch.nn.functional.cross_entropy(chosen, wanted, reduction="sum")

        return slopes(self, [row.inputs for row in rows], loss)
