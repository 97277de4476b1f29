"""Image classifiers behind one call: model files and callables."""

from __future__ import annotations

import importlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._preprocessor import Size, Triple
from fedbbpt.boxes._transformers import sha256
from fedbbpt.errors import ConfigError

HALVES: Triple = (0.5, 0.5, 0.5)
INPUTS = ("float32", "float16", "uint8", "int8")


class Classifier(ABC):
    """What stands behind an image classifier.

    Attributes:
        name: what decides its answers: exact weights, the tensor read, the normalisation.
        size: (H, W) of the input.
        classes: S, or ``None`` where only an answer tells.
        std: by which pixels are divided, in [0, 1].
        step: of a quantised output, else 0.
        alone: it asks about one image at a time, so that no answer depends on another.
    """

    name: str
    size: Size
    classes: int | None = None
    std: Triple = HALVES
    step: float = 0.0
    alone: bool = True

    @abstractmethod
    def ask(self, images: Array) -> Any:
        """(B, S) outputs of (B, H, W, 3) float32 images in [0, 1]."""


class FromCallable(Classifier):
    """Any callable; one call at a time."""

    alone = False

    def __init__(self, answer: Callable[[Array], Any], name: str, size: Size) -> None:
        self.answer, self.name, self.size = answer, name, size
        self._lock = threading.Lock()

    def ask(self, images: Array) -> Any:
        """All images in one call."""
        with self._lock:
            return self.answer(images)


class Reading(NamedTuple):
    """How a model file is asked.

    Attributes:
        output: (part of) the name of the tensor to read, the first output if empty.
        size: (H, W) where the file leaves it open.
        mean, std: by which pixels in [0, 1] are normalised, unless whole ones are taken.
        threads: for one image; 0 leaves the library's own choice.
    """

    output: str
    size: Size
    mean: Triple
    std: Triple
    threads: int


class FromFile(Classifier):
    """A model file, asked about one image at a time.

    Attributes:
        whole: its input takes pixels as they are.
    """

    whole: bool

    def _set_up(self, path: Path, reading: Reading, kind: str) -> None:
        """``kind`` is the name of the input's dtype."""
        if kind not in INPUTS:
            raise ConfigError(f"{path} takes {kind}; an image is one of: {', '.join(INPUTS)}")
        self.whole, self._kind = kind.endswith("int8"), np.dtype(kind)
        self.std = HALVES if self.whole else reading.std
        self._mean, self._std = (np.array(t, np.float32) for t in (reading.mean, reading.std))
        self.name = f"{path.stem}-{sha256(path)[:12]}" + f":{reading.output}" * bool(reading.output)
        if not self.whole:
            self.name += f":{[*reading.mean, *reading.std]}"

    def _given(self, images: Array) -> Array:
        """What the model takes of images in [0, 1]; signed bytes are pixels less 128."""
        if not self.whole:
            return np.asarray(((images - self._mean) / self._std).astype(self._kind, copy=False))
        pixels = (images * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        return pixels if self._kind == np.uint8 else (pixels ^ np.uint8(128)).view(np.int8)


def find(path: str) -> Callable[[Array], Any]:
    """The callable that ``"package.module:name"`` names.

    Raises:
        ConfigError: there is none.
    """
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"box.model '{path}' is no .tflite or .onnx file and cannot be imported ({error}); "
            "write a path, or package.module:name"
        ) from error
    answer: Callable[[Array], Any] = found
    return answer


def place(names: list[str], output: str) -> int:
    """Where the tensor of this name is, else the first whose name has it as a part, else -1."""
    parts = [i for i, name in enumerate(names) if output in name]
    return names.index(output) if output in names else next(iter(parts), -1)


def short(error: Exception) -> str:
    """The first line of a library's message, without where in the library it arose."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.rpartition("failed:")[2].strip().rstrip(".")[:200]
