"""A classifier's own classes become those of the task: how its grids are split and assembled."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._forms import Content, Form
from fedbbpt.errors import ConfigError
from fedbbpt.maths import label_mapping
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.types import Atom, Grid, Picture, RenderedPrompt, Reply, digest, distinct

LEAST = 1e-12
"""Probability below which a class of the task is not taken to be: logarithms stay finite."""
SAID = 5
"""How many labels that name no class are told."""


class Mapped(Form):
    """One picture within a prompt is one atom, whose row holds (S,) log-probabilities of the
    classes that the model was trained on. Label texts say which of these count for a class of the
    task, ``"cowboy hat | sombrero"``, or the prompt's mapping says it. Neither changes a row, so
    another mapping of known rows costs nothing.

    Args:
        name: the box's.
        classes: the model's S class names; several names of one class stand between commas.
    """

    kind = "mapped"

    def __init__(self, name: str, classes: Sequence[str]) -> None:
        self.name, self.classes = name, tuple(classes)
        self._places: dict[str, list[int]] = {}
        for number, whole in enumerate(self.classes):
            for part in dict.fromkeys([whole, *whole.split(",")]):
                self._places.setdefault(part.strip().casefold(), []).append(number)
        self.named = lru_cache(maxsize=64)(self._named)

    def facts(self) -> dict[str, Any]:
        """The class names."""
        return {"classes": self.classes}

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """One atom for each distinct prompted picture; without prompts, bare pictures."""
        within: Sequence[RenderedPrompt | None] = prompts or [None]
        asked = [self.atom(Content(p, -1, x)) for p in within for x in examples]
        atoms = distinct(asked)
        place = {atom.key: i for i, atom in enumerate(atoms)}
        index = np.array([place[atom.key] for atom in asked], np.int64)

        def assemble(rows: Sequence[Array]) -> Reply:
            known = np.array(rows, np.float64).reshape(len(rows), len(self.classes))
            scores = self._scores(prompts, known, index.reshape(len(within), -1))
            # Of the only prompt, or of none, also what the model itself says.
            return Reply(scores, known[index] if len(within) == 1 else None)

        return Grid(atoms, assemble)

    def _scores(self, prompts: Sequence[RenderedPrompt], known: Array, index: Array) -> Array:
        """(K, B, C) log-probabilities of the task's classes from (N, S) of the model's."""
        made: dict[object, Array] = {}
        classes = len(prompts[0].labels) if prompts else 0
        scores = np.zeros((len(prompts), index.shape[1], classes))
        if not scores.size:
            return scores
        for k, prompt in enumerate(prompts):
            # All candidates have one mapping: it is applied once.
            which = prompt.labels if prompt.mapping is None else id(prompt.mapping)
            if which not in made:
                made[which] = self._mapped(prompt, known)
            scores[k] = made[which][index[k]]
        return scores

    def _mapped(self, prompt: RenderedPrompt, known: Array) -> Array:
        """(N, C)."""
        self.check(prompt)
        if prompt.mapping is not None:
            return label_mapping.scores(known, prompt.mapping)
        mass = np.exp(known) @ self.named(prompt.labels).T
        return log_softmax(np.log(np.maximum(mass, LEAST)))

    def check(self, prompt: RenderedPrompt) -> None:
        """Refuse a prompt whose labels name none of the model's classes.

        Raises:
            ConfigError: they do not, or the prompt's mapping is for another model.
        """
        if prompt.mapping is None:
            self.named(prompt.labels)
            return
        shape = (len(prompt.labels), len(self.classes))
        if prompt.mapping.shape != shape:
            raise ConfigError(
                f"the prompt's label mapping has the shape {prompt.mapping.shape}; {self.name} "
                f"needs {shape}"
            )

    def _named(self, labels: tuple[str, ...]) -> Array:
        weights = np.zeros((len(labels), len(self.classes)), np.float32)
        missing: list[str] = []
        for c, label in enumerate(labels):
            for name in label.split("|"):
                found = self._place(name.strip())
                if found is None:
                    missing.append(name.strip())
                else:
                    weights[c, found] = 1.0
        if missing:
            raise ConfigError(self._lacks(missing))
        return weights

    def _place(self, name: str) -> int | None:
        if name[:1] == "#" and name[1:].isdecimal() and int(name[1:]) < len(self.classes):
            return int(name[1:])
        found = self._places.get(name.casefold(), [])
        whole = [i for i in found if self.classes[i].casefold() == name.casefold()] or found
        if len(whole) > 1:
            listed = " or ".join(f"'#{i}' ({self.classes[i]})" for i in whole)
            raise ConfigError(f"'{name}' names {len(whole)} classes of {self.name}; write {listed}")
        return whole[0] if whole else None

    def _lacks(self, missing: Sequence[str]) -> str:
        said = []
        for name in missing[:SAID]:
            near = difflib.get_close_matches(name.casefold(), self._places, n=3, cutoff=0.7)
            hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
            said.append(f"'{name}'{hint}")
        rest = f" and {len(missing) - SAID} more" if len(missing) > SAID else ""
        return (
            f"{', '.join(said)}{rest} {'is' if len(missing) == 1 else 'are'} none of the "
            f"{len(self.classes)} classes of {self.name}; say in prompt.labels which of them count "
            "for each class of the task, or set prompt.mapping = 'counts'"
        )

    def atom(self, content: Content) -> Atom:
        """A picture, prompted or bare."""
        prompt, picture = content.prompt, content.example
        if not isinstance(picture, Picture):
            raise ConfigError(
                f"{self.name} takes images, and an example is of type {type(picture).__name__}"
            )
        visual = None if prompt is None else prompt.visual
        if visual is None:
            return Atom(digest(self.name, "image", picture.key), (None, picture))
        return Atom(digest(self.name, "image", visual.key, picture.key), (prompt, picture))

    def content(self, atom: Atom) -> Content:
        """Prompt and picture."""
        return Content(atom.data[0], -1, atom.data[1])

    def takes(self, content: Content) -> bool:
        """Any picture."""
        return content.label < 0 and isinstance(content.example, Picture)

    def beside(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[int]:
        """None but the wanted: each picture is scored by itself."""
        return list(wanted)
