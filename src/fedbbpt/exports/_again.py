"""What exports share: the tuned words in their template, and the test that they ask the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedbbpt import registry
from fedbbpt.arrays import Array
from fedbbpt.artefact import placed
from fedbbpt.black_box import AtomicBox
from fedbbpt.errors import ExportError, Incompatible
from fedbbpt.finished import Finished
from fedbbpt.types import RenderedPrompt

SAMPLES = (
    "It came two weeks late, and the lid was broken.",
    'She said "{label}, {text}":\n\t100 % naïve \\ 短い 🙂',
    "Works",
)
"""Texts that an export is tried on: ordinary, with all that needs escaping, and short."""

TOLERANCE = 1e-5
"""Between log-probabilities, see :func:`apart`; forward passes of other shapes differ by less."""


class Draft(NamedTuple):
    """An export that has passed its self-test.

    Attributes:
        name: of the file, or of the folder of several.
        files: bytes by file name; one file needs none.
        tested: a sentence on what was compared.
    """

    name: str
    files: dict[str, bytes]
    tested: str

    @property
    def single(self) -> bool:
        """Whether it is one file and no folder."""
        return "" in self.files


def templates(run: Finished) -> tuple[str, ...]:
    """The template with the tuned words in place: one for all classes, or one each.

    Raises:
        Incompatible: the prompt is not made of words.
    """
    if run.prompt.kind == "soft":
        raise Incompatible(
            "a soft prompt is made of numbers, not of words; use: fedbbpt predict, or --to peft "
            "for prompt.mode = 'insert' on a causal_lm"
        )
    if run.prompt.kind == "text":
        return (run.prompt.template,)
    prompt = run.prompt
    where = prompt.template, prompt.side, prompt.place
    return tuple(placed(words.strip(), *where) for words in run.words)


def compare(run: Finished, again: Sequence[RenderedPrompt]) -> str:
    """Whether plain prompts, one for all classes or one each, ask what was asked in tuning.

    Args:
        run: what was tuned.
        again: what was read back from an export.

    Returns:
        a sentence on what was compared.

    Raises:
        ExportError: they ask something else.
    """
    if run.prompt.kind == "tokens":
        return _same_scores(run.box(), run.prompt, again)
    (prompt,) = again
    if prompt.keys != run.prompt.keys or prompt.labels != run.prompt.labels:
        raise ExportError(f"read back, the prompt is {prompt.template!r}, not the one tuned")
    if not hasattr(registry.find("boxes", run.config.box.kind), "request"):
        return "read back, it is the tuned prompt, character for character"
    box: Any = run.box()
    for sample in SAMPLES:
        if box.request(prompt, sample) != box.request(run.prompt, sample):
            raise ExportError("with the prompt read back, a request has other bytes than in tuning")
    return f"with the prompt read back, {len(SAMPLES)} requests are those of tuning, byte for byte"


def _same_scores(box: AtomicBox, tuned: RenderedPrompt, again: Sequence[RenderedPrompt]) -> str:
    """Asks the model: only it can say whether it reads a text as the tokens that were tuned."""
    ids = tuned.tokens
    asked = [
        RenderedPrompt(
            tuned.template, tuned.labels, tuned.side, tokens=(tokens,), place=tuned.place
        )
        for tokens in ids
    ]
    if len(again) != len(ids):
        raise ExportError(f"{len(again)} prompts were read back, not {len(ids)}")
    gap = apart(box(list(again), SAMPLES).scores, box(asked, SAMPLES).scores)
    if not gap <= TOLERANCE:
        raise ExportError(
            f"the model reads the words as other tokens than those tuned (its scores differ by "
            f"{gap:.2g}); use: fedbbpt predict, or the ids in prompt/prompt.json"
        )
    return f"asked with these words, the model scores {len(SAMPLES)} texts as with the tuned tokens"


def apart(scores: Array, others: Array) -> float:
    """The largest difference, in parts of the larger of 1 and the score: float32 has no more."""
    return float((np.abs(scores - others) / np.maximum(1.0, np.abs(others))).max())
