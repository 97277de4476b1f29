"""Any Python callable as a box."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.boxes._forms import Pairs, check_asked
from fedbbpt.boxes._written import seal
from fedbbpt.errors import BoxError, ConfigError
from fedbbpt.senses import Vocabulary
from fedbbpt.types import Atom, Grid, RenderedPrompt

Answer = Callable[[Sequence[RenderedPrompt], Sequence[Any]], Any]


class Function(AtomicBox):
    """Wraps ``answer(prompts, examples) -> scores`` or texts; one prompted example is one atom.

    Args:
        answer: gets K prompts and B examples, returns (K, B, C) log-probabilities, each example
            scored by itself (known ones are left out of a call); of prompts without labels K x B
            texts, ``None`` where it has no answer, "" where the answer is empty; or the name of
            such a callable as ``"package.module:name"``.
        name: part of every cache key. Change it whenever the callable's answers change.
        accepts: kinds of prompts that it understands.
        sides: where they may stand.
        gives: what it answers: "scores" to prompts with labels, "text" to those without.
        vocabulary: for soft prompts; else the callable's own attribute ``vocabulary``, if any.

    Raises:
        ConfigError: ``answer`` names nothing callable, or it gives nothing known.
    """

    def __init__(
        self,
        answer: Answer | str,
        name: str = "function",
        accepts: Sequence[str] = ("soft", "tokens", "text"),
        sides: Sequence[str] = ("label", "text"),
        vocabulary: Vocabulary | None = None,
        gives: Sequence[str] = ("scores",),
    ) -> None:
        self.answer: Answer = _find(answer) if isinstance(answer, str) else answer
        if not callable(self.answer):
            raise ConfigError(f"box.answer is {self.answer!r}; it must be callable")
        self.gives = frozenset(gives)
        if not self.gives or not self.gives <= {"scores", "text"}:
            raise ConfigError(f"box.gives is {list(gives)}; it must list 'scores', 'text' or both")
        self.name = f"function:{name}"
        self.form = Pairs(self.name)
        self.accepts, self.sides = frozenset(accepts), frozenset(sides)
        self.vocabulary = vocabulary or getattr(self.answer, "vocabulary", None)

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """One atom for each distinct pair of prompt and example."""
        check_asked(self.name, self.gives, prompts)
        return self.form.split(prompts, examples)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """(C,) scores of the wanted atoms or their sealed texts, one call for each prompt."""
        rows: dict[int, Array] = {}
        groups: dict[int, list[int]] = {}
        for i in wanted:
            groups.setdefault(id(atoms[i].data[0]), []).append(i)
        for group in groups.values():
            prompt, examples = atoms[group[0]].data[0], [atoms[i].data[1] for i in group]
            answer = self.answer([prompt], examples)
            read = self._scores if prompt.labels else self._texts
            rows.update(zip(group, read(prompt, examples, answer), strict=True))
        return [rows[i] for i in wanted]

    def _scores(self, prompt: RenderedPrompt, examples: Sequence[Any], answer: Any) -> list[Array]:
        try:
            scores = np.asarray(answer, np.float64)
        except (TypeError, ValueError) as error:
            raise BoxError(f"{self.name} returned no array of scores: {error}") from error
        if scores.shape != (1, len(examples), len(prompt.labels)):
            raise BoxError(
                f"{self.name} returned scores of shape {scores.shape}; "
                f"expected (1, {len(examples)}, {len(prompt.labels)})"
            )
        return list(scores[0].astype(np.float64))

    def _texts(self, prompt: RenderedPrompt, examples: Sequence[Any], answer: Any) -> list[Array]:
        try:
            (texts,) = answer
            fits = not isinstance(texts, str) and len(texts) == len(examples)
            fits = fits and all(text is None or isinstance(text, str) for text in texts)
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise BoxError(
                f"{self.name} returned a {type(answer).__name__} that is not 1 x {len(examples)} "
                "texts, with None where there is no answer"
            )
        return [
            seal(text, self.name, prompt, example)
            for text, example in zip(texts, examples, strict=True)
        ]


def _find(path: str) -> Answer:
    import importlib

    module, _, attribute = path.partition(":")
    try:
        found: Answer = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"box.answer '{path}' cannot be imported ({error}); write package.module:name"
        ) from error
    return found
