"""The form of dual encoders: examples and labels meet only in a dot product."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._forms import LABEL_GAP, PICTURE, TEXT_GAP, Content, Form, rows_of
from fedbbpt.errors import ConfigError
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.types import Atom, Grid, Picture, RenderedPrompt, Reply, digest, distinct


class Dual(Form):
    """Examples and labels are apart: a row is the (H,) unit vector of one of them, bare or
    prompted, and a score a scaled cosine.

    Args:
        name: the box's.
        scale: cosines are multiplied by this before the softmax over classes.
        hidden: H.
        pictures: examples are pictures. On the image side labels are bare texts, each in the
            template; elsewhere examples and labels are texts.
    """

    kind = "dual"

    def __init__(self, name: str, scale: float, hidden: int, pictures: bool = False) -> None:
        self.name, self.scale, self.hidden, self.pictures = name, scale, hidden, pictures
        self.words = lru_cache(maxsize=1 << 16)(self._words)
        self.labels = lru_cache(maxsize=256)(self._labels)

    def facts(self) -> dict[str, Any]:
        """Scale, H and what examples are."""
        return {"scale": self.scale, "hidden": self.hidden, "pictures": self.pictures}

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """Atoms: each distinct bare or prompted example, each distinct bare or prompted label."""
        if not prompts:
            bare = [self.example(None, x) for x in examples]
            atoms = distinct(bare)
            return Grid(atoms, lambda rows: self._embeddings(rows_of(atoms, rows, bare)))
        label_side = prompts[0].side == "label"
        if label_side:
            labels = [atom for prompt in prompts for atom in self.labels(prompt)]
            seen = [self.example(None, x) for x in examples]
        else:
            labels = [self.words(text) for prompt in prompts for text in _bare_labels(prompt)]
            seen = [self.example(prompt, x) for prompt in prompts for x in examples]
        atoms = distinct([*labels, *seen])
        shape = (len(prompts), len(examples), len(prompts[0].labels))

        def assemble(rows: Sequence[Array]) -> Reply:
            table = np.concatenate(rows).reshape(len(rows), -1).astype(np.float64)
            k, b, c = shape
            hidden = table.shape[1]
            own, given = table[: k * c], table[k * c :]
            if len(atoms) < len(labels) + len(seen):  # some are asked for more than once
                place = {atom.key: i for i, atom in enumerate(atoms)}
                own = table[[place[a.key] for a in labels]]
                given = table[np.array([place[a.key] for a in seen], np.int64)]
            own = own.reshape(k, c, hidden)
            return Reply(self.scores(given.reshape(1 if label_side else k, b, hidden), own))

        return Grid(atoms, assemble)

    def atom(self, content: Content) -> Atom:
        """A bare or prompted example, a bare text, or a prompted label."""
        prompt, label, example = content
        if prompt is None and isinstance(example, str):
            return self.words(example)
        return self.example(prompt, example) if label < 0 else self.labels(prompt)[label]

    def content(self, atom: Atom) -> Content:
        """What stands in which gap."""
        gap, example, prompt, label = atom.data
        return Content(prompt, label, None) if gap == LABEL_GAP else Content(prompt, -1, example)

    def takes(self, content: Content) -> bool:
        """Examples with and without a prompt, bare texts, and labels with a prompt."""
        prompt, label, example = content
        if label < 0:
            bare_text = prompt is None and isinstance(example, str)
            return bare_text or isinstance(example, Picture if self.pictures else str)
        return prompt is not None and label < len(prompt.labels) and example is None

    def beside(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[int]:
        """Labels, bare or prompted texts, and pictures are never in a batch with each other."""
        gaps = {atoms[i].data[0] for i in wanted}
        return [i for i, atom in enumerate(atoms) if atom.data[0] in gaps]

    def example(self, prompt: RenderedPrompt | None, example: Any) -> Atom:
        """An example, bare or within a prompt.

        Raises:
            ConfigError: it is a text where the box takes images, or the other way round.
        """
        kind: Any = Picture if self.pictures else str
        if not isinstance(example, kind):
            taken, given = ("images", "texts") if self.pictures else ("texts", "images")
            named = given if isinstance(example, str | Picture) else type(example).__name__
            raise ConfigError(f"{self.name} takes {taken}, but the examples are {named}")
        if self.pictures:
            return self._picture(example, prompt)
        if prompt is None:
            return self.words(example)
        key = digest(self.name, "text", prompt.keys[0], example)
        return Atom(key, (TEXT_GAP, example, prompt, 0))

    def scores(self, texts: Array, labels: Array) -> Array:
        """(K, B, C) log-softmax of scaled cosines of (1 or K, B, H) and (K, C, H) unit vectors."""
        k, c, hidden = labels.shape
        if len(texts) == 1:
            # One product for all candidates: they are many and their labels few.
            flat = texts[0] @ labels.reshape(k * c, hidden).T
            scores = self.scale * flat.reshape(-1, k, c).swapaxes(0, 1)
        else:
            scores = self.scale * (texts @ labels.swapaxes(1, 2))
        return log_softmax(scores)

    def _words(self, text: str) -> Atom:
        """A bare text."""
        return Atom(digest(self.name, "bare", text), (TEXT_GAP, text, None, 0))

    def _picture(self, picture: Picture, prompt: RenderedPrompt | None) -> Atom:
        """A picture; without a visual prompt it is the bare one, which may be paid already."""
        if prompt is None or prompt.visual is None:
            return Atom(digest(self.name, "image", picture.key), (PICTURE, picture, None, 0))
        key = digest(self.name, "image", prompt.visual.key, picture.key)
        return Atom(key, (PICTURE, picture, prompt, 0))

    def _labels(self, prompt: RenderedPrompt) -> tuple[Atom, ...]:
        return tuple(
            Atom(digest(self.name, "label", key, text), (LABEL_GAP, text, prompt, c))
            for c, (key, text) in enumerate(zip(prompt.keys, prompt.labels, strict=True))
        )

    def _embeddings(self, vectors: Array) -> Reply:
        vectors = vectors.reshape(len(vectors), self.hidden)
        return Reply(np.zeros((0, len(vectors), 0)), vectors)


def _bare_labels(prompt: RenderedPrompt) -> tuple[str, ...]:
    """Labels that no prompt moves: as they are beside texts, in the template beside pictures."""
    if prompt.side != "image" or not prompt.template:
        return prompt.labels
    return tuple(prompt.template.replace(LABEL_GAP, label) for label in prompt.labels)
