"""A run that has ended, opened to be used: its config, its prompt and its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbbpt import artefact, registry
from fedbbpt.alone import folders
from fedbbpt.black_box import AtomicBox
from fedbbpt.config import Config, read
from fedbbpt.errors import RunDirError
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.protocols import Task
from fedbbpt.rundir import CONFIG, RESULT, RunDir
from fedbbpt.storage import Till
from fedbbpt.types import RenderedPrompt


class Prediction(NamedTuple):
    """What the tuned prompt makes of a text or an image.

    Attributes:
        answer: the likeliest class; where labels are numbers, one between those of
            ``data.range``; what the model said, where answers are words; ``None`` where it gave
            no answer.
        probability: of that class among all classes; ``None`` also where labels are numbers and
            where answers are words.
    """

    answer: str | float | None
    probability: float | None


@dataclass(frozen=True)
class Finished:
    """A finished run and the prompt that it chose.

    Attributes:
        path: the run directory.
        config: what was asked for.
        prompt: what the box receives.
        classes: class names in class order; none where answers are words.
        words: what the search put into the prompt, one text for all classes or one each; empty
            where that is not text.
        model: name of the box that the prompt was tuned on.
        pictures: whether what it was tuned on were images.
    """

    path: Path
    config: Config
    prompt: RenderedPrompt
    classes: tuple[str, ...]
    words: tuple[str, ...]
    model: str
    pictures: bool = False

    def box(self, **options: Any) -> AtomicBox:
        """The model that the config names, with these options changed.

        Raises:
            UsageError: it cannot be made, or it cannot take the prompt.
        """
        table = self.config.box
        made: AtomicBox = registry.make("boxes", table.kind, {**table.options, **options}, "box")
        made.prepare(self.prompt)
        return made

    def predictor(self, till: Till) -> Predictor:
        """The prompt and its model, ready to answer, requests paid by this till."""
        # What fails on the way is asked again as often as it was in the run.
        inner, attempts = self.box().billed(till), self.config.box.attempts
        box = registry.make("wrappers", "retrying", {}, "box", inner=inner, attempts=attempts)
        task = registry.make("tasks", self.config.task, {}, "task", classes=len(self.classes))
        return Predictor(artefact.Tuned(box, self.prompt, self.classes), task, self.config)


@dataclass(frozen=True)
class Predictor:
    """Answers texts or pictures as the task of a run wants them answered."""

    tuned: artefact.Tuned
    task: Task
    config: Config

    def __call__(self, inputs: Sequence[Any]) -> list[Prediction]:
        """One prediction for each of B inputs, in one call to the model.

        Raises:
            BoxError: the model failed for good.
        """
        reply = self.tuned.ask(inputs)
        scores, answers = reply.scores[0], self.task.answers(reply)[0]
        if self.task.words:
            return [Prediction(text, None) for text in answers]
        if self.task.numbers:
            low, high = self.config.data.range or (0.0, 1.0)
            scaled = [low + (high - low) * float(a) for a in answers]
            return [Prediction(None if np.isnan(a) else a, None) for a in scaled]
        with np.errstate(invalid="ignore"):  # rows without an answer
            shares = np.exp(log_softmax(scores))
        return [
            Prediction(None, None)
            if a < 0
            else Prediction(self.tuned.classes[a], float(shares[i, a]))
            for i, a in enumerate(answers.tolist())
        ]


def open_run(path: Path) -> Finished:
    """The finished run in a directory.

    Raises:
        RunDirError: there is no run, it has not ended, or it tuned no prompt for all clients.
    """
    if not (path / CONFIG).is_file():
        raise RunDirError(f"{path} holds no run; name the directory that a run has written")
    config = read(path / CONFIG)
    if not (path / RESULT).is_file():
        raise RunDirError(f"{path} holds an unfinished run; use: fedbbpt resume {path}")
    place = RunDir(path, "").prompt
    if not (place / artefact.META).is_file():
        raise RunDirError(_without_prompt(path, config))
    prompt, facts = artefact.load(place)
    try:
        classes, model = tuple(facts["classes"]), str(facts["box"])
    except KeyError as error:
        raise RunDirError(f"{place / artefact.META} lacks {error}; run it again") from None
    words, pictures = tuple(facts.get("text", ())), bool(facts.get("pictures"))
    return Finished(path, config, prompt, classes, words, model, pictures)


def _without_prompt(path: Path, config: Config) -> str:
    each = folders(path)
    if each:
        return (
            f"{path} holds a prompt for each client and none for all; name one, such as {each[0]}"
        )
    if config.method.kind == "baseline":
        return (
            f"{path} was run with '{config.method.name}', a baseline, which tunes no prompt; "
            "name a run of a method that does, such as 'fedes'"
        )
    return f"{path} lacks {RunDir(path, '').prompt / artefact.META}; use: fedbbpt resume {path}"
