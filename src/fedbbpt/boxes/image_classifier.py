"""An image classifier as a black box: a TFLite or ONNX file, or any callable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.boxes._classifiers import Classifier, FromCallable, FromFile, Reading, find
from fedbbpt.boxes._mapped import Mapped
from fedbbpt.boxes._onnx import Onnx
from fedbbpt.boxes._preprocessor import IMAGENET, NAME, Size, Triple, Wanted, wanted
from fedbbpt.boxes._sight import Sight
from fedbbpt.boxes._tflite import TfLite
from fedbbpt.errors import BoxError, ConfigError
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.types import Atom, Grid, Picture, RenderedPrompt

FILES: dict[str, type[TfLite] | type[Onnx]] = {".tflite": TfLite, ".onnx": Onnx}
USUAL: Size = (224, 224)
LOWEST = -1e4
"""What a logit of minus infinity stands for: a score that is not finite would mean no answer."""


class ImageClassifier(AtomicBox):
    """A model that gives every picture a probability of each of its own S classes.

    What a class of the task is in the model's own, ``prompt.labels`` or ``prompt.mapping`` say
    (:class:`fedbbpt.boxes._mapped.Mapped`). One prompted picture is one query.

    A ``preprocessor_config.json`` beside a model file says how pictures are resized, cropped and
    normalised, as far as the options do not.

    Args:
        model: a ``.tflite`` or ``.onnx`` file, or a callable or its ``"package.module:name"``: it
            gets (B, H, W, 3) float32 in [0, 1] and returns (B, S), each picture by itself. A row
            with NaN is no answer.
        classes: the S class names, or a file with one in each line. Several names of one class
            stand between commas, as ImageNet's do.
        name: of a callable, part of every cache key; by itself its import path, or "callable".
            Change it whenever its answers change.
        scores: ``"probabilities"`` or ``"logits"``: what the model's output is.
        output: (part of) the name of the tensor that is read; the model's first output if empty.
            A quantised TFLite model rounds its probabilities to 1/256; its logits say more.
        size: (H, W) of the input of a callable, or of a file that leaves it open; 224 x 224 if
            nothing says otherwise.
        resize: ``"squash"`` scales both sides to the input's; ``"crop"`` scales the shorter one
            to ``edge`` and cuts the middle out; ``"auto"`` is the model's own, else squash.
        edge: pixels; of a crop 8/7 of the input's longer side if 0, the usual 256 for 224. A
            squash to a larger edge loses its margins.
        mean, std: by which a file's float input is normalised; ImageNet's if nothing says
            otherwise. An input of whole numbers takes pixels as they are.
        rows: most pictures in one call of a callable, asked whole where one of them is new; take 1
            where answers cost money. A file is asked about one at a time.
        threads: of a file, for one picture; 0 leaves the library's own choice.

    Raises:
        ConfigError: the model is none of these, its input is no picture, or an option is wrong or
            would change nothing.
        MissingExtra: the library that runs it is not installed.
    """

    vision: Sight
    accepts = frozenset({"image"})
    sides = frozenset({"image"})
    gives = frozenset({"scores", "embeddings", "classes"})

    def __init__(
        self,
        model: str | Callable[[Array], Any],
        classes: str | Sequence[str],
        name: str = "",
        scores: str = "probabilities",
        output: str = "",
        size: Size | None = None,
        resize: str = "auto",
        edge: int = 0,
        mean: Triple | None = None,
        std: Triple | None = None,
        rows: int = 32,
        threads: int = 1,
    ) -> None:
        if scores not in ("probabilities", "logits"):
            raise ConfigError(f"box.scores is '{scores}'; known: probabilities, logits")
        _check_range(rows=(rows, 1), edge=(edge, 0), threads=(threads, 0))
        if min(size or USUAL) < 1 or min(std or IMAGENET[1]) <= 0:
            raise ConfigError(f"box.size is {size} and box.std {std}; both must be above 0")
        path = Path(model) if isinstance(model, str) else Path()
        self.classifier: Classifier
        if path.suffix.lower() in FILES:
            _refuse("a model file goes by what it holds", name=name)
            said = wanted(path)
            self.classifier = _open(path, said, output, size, mean, std, threads)
        else:
            told = "a callable gets pixels from 0 to 1 and returns its scores"
            _refuse(told, output=output, mean=mean, std=std)
            said, asked = Wanted(), find(model) if isinstance(model, str) else model
            if not callable(asked):
                raise ConfigError(f"box.model is {asked!r}; it must be callable")
            name = name or (model if isinstance(model, str) else "callable")
            self.classifier = FromCallable(asked, name, size or USUAL)
        self.vision = _sight(self.classifier, said, resize, edge)
        names = _names(classes)
        known = self.classifier.classes
        if known is not None and known != len(names):
            raise ConfigError(
                f"box.classes has {len(names)} names, but {self.classifier.name} has {known} "
                "classes; give one name for each, in the model's order"
            )
        self.name = f"image_classifier:{self.classifier.name}:{scores}:{self.vision.name}"
        self.form, self.scores, self.rows = Mapped(self.name, names), scores, rows
        self.steady = self.classifier.alone or rows == 1

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
        needed = set(wanted)
        # Batches are made of all atoms: a cached row regroups no others.
        asked, size = (wanted, 1) if self.steady else (range(len(atoms)), self.rows)
        rows: dict[int, Array] = {}
        for begin in range(0, len(asked), size):
            batch = asked[begin : begin + size]
            if needed.intersection(batch):
                rows.update(zip(batch, self._ask([atoms[i] for i in batch]), strict=True))
        return [rows[i] for i in wanted]

    def _ask(self, atoms: Sequence[Atom]) -> Array:
        """(B, S) of prompted pictures."""
        images = np.concatenate([self._image(*atom.data) for atom in atoms])
        answered = self.classifier.ask(images)
        try:
            return self._log(np.asarray(answered, np.float64), len(atoms))
        except (TypeError, ValueError) as error:
            raise BoxError(f"{self.name} returned no array of scores: {error}") from error

    def _image(self, prompt: RenderedPrompt | None, picture: Picture) -> Array:
        """(1, H, W, 3) by itself: no other picture decides its last bits."""
        images = self.vision.fit(picture)[None]
        if prompt is None or prompt.visual is None:
            return images
        return prompt.visual.on(images, [picture])

    def _log(self, answered: Array, count: int) -> Array:
        """(B, S) float32 log-probabilities, NaN where there is no answer.

        Raises:
            BoxError: it answered with something else.
        """
        shape = (count, len(self.form.classes))
        if answered.shape != shape:
            raise BoxError(f"{self.name} returned scores of shape {answered.shape}, not {shape}")
        silent = ~(answered < np.inf).all(axis=1, keepdims=True)
        answered = np.where(silent, np.nan, answered)
        if self.scores == "logits":
            return np.asarray(log_softmax(np.maximum(answered, LOWEST)), np.float32)
        # Rounding moves each probability by up to half a step of a quantised output.
        loose = 0.05 + self.classifier.step / 2 * shape[1]
        wrong = (answered < 0).any(axis=1) | (np.abs(answered.sum(axis=1) - 1) > loose)
        if wrong.any():
            row = answered[wrong.argmax()]
            raise BoxError(
                f"{self.name} returned numbers from {row.min():g} to {row.max():g} that add up to "
                f"{row.sum():g}, no probabilities; set box.scores = 'logits'"
            )
        # What a zero stands for: half a step.
        least = self.classifier.step / 2 or 1e-6
        return np.asarray(np.log(np.maximum(answered, least)), np.float32)


def _open(
    path: Path,
    said: Wanted,
    output: str,
    size: Size | None,
    mean: Triple | None,
    std: Triple | None,
    threads: int,
) -> FromFile:
    """The classifier in a file."""
    if not path.is_file():
        raise ConfigError(f"box.model '{path}' does not exist; check the path")
    open_size = size or said.size or USUAL
    reading = Reading(output, open_size, mean or said.mean, std or said.std, threads)
    made = FILES[path.suffix.lower()](path, reading)
    if size is not None and size != made.size:
        raise ConfigError(f"box.size is {size}, but {path} takes images of {made.size}")
    if made.whole:
        _refuse(f"{path} takes pixels as they are", mean=mean, std=std)
    return made


def _sight(classifier: Classifier, said: Wanted, resize: str, edge: int) -> Sight:
    """How pictures are fitted, the options before what the model's own file says."""
    size, way = classifier.size, said.way if resize == "auto" else resize
    if resize == "auto" and said.size not in (None, size):
        raise ConfigError(
            f"the {NAME} of {classifier.name} makes images of {said.size}, but the model takes "
            f"{size}; say how they are made by box.resize = 'squash' or 'crop'"
        )
    if way == said.way and size == said.size:
        edge = edge or said.edge
    if way == "crop":
        edge = edge or max(size) * 8 // 7
    return Sight(size, way, edge, said.resample, classifier.std)


def _check_range(**numbers: tuple[int, int]) -> None:
    for key, (value, least) in numbers.items():
        if value < least:
            raise ConfigError(f"box.{key} is {value}; it must be at least {least}")


def _refuse(reason: str, **options: Any) -> None:
    """Refuse options that would change nothing."""
    for key, value in options.items():
        if value:
            raise ConfigError(f"box.{key} is {value!r}, which changes nothing: {reason}")


def _names(classes: str | Sequence[str]) -> tuple[str, ...]:
    """The class names, read from their file if need be."""
    if not isinstance(classes, str):
        return tuple(classes)
    try:
        lines = Path(classes).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"box.classes '{classes}' cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())
