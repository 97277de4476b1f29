"""An image classifier as a black box: a TFLite or ONNX file, or any callable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._classifiers import Classifier, open_model
from fedbbpt.boxes._mapped import Mapped
from fedbbpt.boxes._sight import Sight
from fedbbpt.errors import BoxError, ConfigError
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.protocols import AtomicBox
from fedbbpt.types import Atom, Grid, Picture, RenderedPrompt

Triple = tuple[float, float, float]


class ImageClassifier(AtomicBox):
    """A model that gives every picture a probability of each of its own S classes.

    What a class of the task is in the model's own, ``prompt.labels`` or ``prompt.mapping`` say
    (:class:`fedbbpt.boxes._mapped.Mapped`). One prompted picture is one query.

    Args:
        model: a ``.tflite`` or ``.onnx`` file, or a callable or its ``"package.module:name"``: it
            gets (B, H, W, 3) float32 in [0, 1] and returns (B, S), each picture by itself.
        classes: the S class names, or a file with one in each line. Several names of one class
            stand between commas, as ImageNet's do.
        name: of a callable, part of every cache key. Change it whenever its answers change.
        scores: ``"probabilities"`` or ``"logits"``: what the model's output is.
        output: (part of) the name of the tensor that is read; the model's first output if empty.
            A quantised TFLite model rounds its probabilities to 1/256; its logits say more.
        size: (H, W) of a callable's input; a file knows its own.
        resize: ``"squash"`` scales both sides to the input's; ``"crop"`` scales the shorter one
            to ``edge`` and cuts the middle out.
        edge: pixels; 8/7 of the input's shorter side if 0, the usual 256 for 224.
        mean, std: by which a model's float input is normalised; from a
            ``preprocessor_config.json`` beside the file where there is one, else ImageNet's. A
            quantised input takes pixels as they are.
        threads: for one picture; 0 leaves the library's own choice.

    Raises:
        ConfigError: the file is none of these, or its input is no picture.
        MissingExtra: the library that runs it is not installed.
    """

    vision: Sight
    accepts = frozenset({"image"})
    sides = frozenset({"image"})
    gives = frozenset({"scores", "embeddings", "classes"})
    steady = True

    def __init__(
        self,
        model: str | Callable[[Array], Any],
        classes: str | Sequence[str],
        name: str = "callable",
        scores: str = "probabilities",
        output: str = "",
        size: tuple[int, int] = (224, 224),
        resize: str = "squash",
        edge: int = 0,
        mean: Triple | None = None,
        std: Triple | None = None,
        threads: int = 1,
    ) -> None:
        if scores not in ("probabilities", "logits"):
            raise ConfigError(f"box.scores is '{scores}'; known: probabilities, logits")
        self.classifier: Classifier = open_model(model, name, output, size, mean, std, threads)
        height, width = self.classifier.size
        edge = (edge or min(height, width) * 8 // 7) if resize == "crop" else 0
        self.vision = Sight((height, width), resize, edge, std=self.classifier.std)
        names = _names(classes)
        known = self.classifier.classes
        if known is not None and known != len(names):
            raise ConfigError(
                f"box.classes has {len(names)} names, but {self.classifier.name} has {known} "
                "classes; give one name for each, in the model's order"
            )
        self.name = f"image_classifier:{self.classifier.name}:{scores}:{self.vision.name}"
        self.form, self.scores = Mapped(self.name, names), scores
        self._lock = threading.Lock()

    @property
    def hidden(self) -> int:
        """S: as embeddings it gives the log-probabilities of its own classes."""
        return len(self.form.classes)

    def prepare(self, prompt: RenderedPrompt) -> None:
        """Refuses labels that name none of the model's classes."""
        self.form.check(prompt)

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """Atoms: each distinct prompted picture."""
        return self.form.split(prompts, examples)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """(S,) float32 log-probabilities of the wanted atoms."""
        rows: dict[int, Array] = {}
        groups: dict[int, list[int]] = {}
        for i in wanted:
            groups.setdefault(id(atoms[i].data[0]), []).append(i)
        for group in groups.values():
            pictures: list[Picture] = [atoms[i].data[1] for i in group]
            images = np.array([self.vision.fit(picture) for picture in pictures])
            prompt = atoms[group[0]].data[0]
            if prompt is not None:
                images = prompt.visual.on(images, pictures)
            with self._lock:
                answered = np.asarray(self.classifier.ask(images), np.float64)
            rows.update(zip(group, self._log(answered, len(group)), strict=True))
        return [rows[i] for i in wanted]

    def _log(self, answered: Array, count: int) -> Array:
        """(B, S) float32 log-probabilities.

        Raises:
            BoxError: it answered with something else.
        """
        shape = (count, len(self.form.classes))
        if answered.shape != shape:
            raise BoxError(f"{self.name} returned scores of shape {answered.shape}, not {shape}")
        if self.scores == "logits":
            return np.asarray(log_softmax(answered), np.float32)
        total = answered.sum(axis=1)
        if answered.min() < 0 or not np.allclose(total, 1.0, atol=0.05 + 0.5 * self._floor):
            raise BoxError(
                f"{self.name} returned numbers from {answered.min():g} to {answered.max():g} that "
                f"add up to {total[0]:g}, no probabilities; set box.scores = 'logits'"
            )
        return np.asarray(np.log(np.maximum(answered, self._floor)), np.float32)

    @property
    def _floor(self) -> float:
        """Probability that a zero stands for: half a step of a quantised output."""
        return self.classifier.step / 2 or 1e-6


def _names(classes: str | Sequence[str]) -> tuple[str, ...]:
    """The class names, read from their file if need be."""
    if not isinstance(classes, str):
        return tuple(classes)
    try:
        lines = Path(classes).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"box.classes '{classes}' cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())
