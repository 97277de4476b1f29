"""Image classifiers behind one call: TFLite through ai-edge-litert, ONNX, and callables."""

from __future__ import annotations

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._sight import preprocessor
from fedbbpt.boxes._transformers import sha256
from fedbbpt.errors import ConfigError, MissingExtra

Triple = tuple[float, float, float]
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels, by which most classifiers are trained."""


class Classifier(ABC):
    """What stands behind an image classifier.

    Attributes:
        name: exact weights and the tensor read.
        size: (H, W) of the input.
        classes: S, or ``None`` where only an answer tells.
        std: by which pixels are divided, in [0, 1].
        step: of a quantised output, else 0.
    """

    name: str
    size: tuple[int, int]
    classes: int | None = None
    std: Triple = (1.0, 1.0, 1.0)
    step: float = 0.0

    @abstractmethod
    def ask(self, images: Array) -> Any:
        """(B, S) outputs of (B, H, W, 3) float32 images in [0, 1]."""


class Callable_(Classifier):
    """Any callable."""

    def __init__(self, answer: Callable[[Array], Any], name: str, size: tuple[int, int]) -> None:
        self.answer, self.name, self.size = answer, name, size

    def ask(self, images: Array) -> Any:
        """All images in one call."""
        return self.answer(images)


class TfLite(Classifier):
    """A TFLite file, one image at a time: that is what its graph is made for."""

    def __init__(self, path: Path, output: str, mean: Triple, std: Triple, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise MissingExtra("ai-edge-litert", "vision") from None
        with warnings.catch_warnings():
            # Of its own accord it warns of the memory that keeping every tensor takes.
            warnings.simplefilter("ignore")
            try:
                self._run = Interpreter(
                    str(path),
                    num_threads=threads or None,
                    experimental_preserve_all_tensors=bool(output),
                )
                self._run.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise ConfigError(f"{path} is no TFLite model: {_short(error)}") from error
        self._input = self._run.get_input_details()[0]
        self._output = _tensor(self._run, output, path)
        shape = tuple(int(side) for side in self._input["shape"])
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            raise ConfigError(f"{path} takes an input of shape {shape}; an image is (1, H, W, 3)")
        self.size = shape[1:3]
        self.classes = int(np.prod(self._output["shape"]))
        self.name = f"{path.stem}-{sha256(path)[:12]}" + f":{output}" * bool(output)
        self.step = float(self._output["quantization"][0])
        self._whole = np.issubdtype(self._input["dtype"], np.integer)
        self._mean, self.std = mean, (0.5, 0.5, 0.5) if self._whole else std

    def ask(self, images: Array) -> Any:
        """(B, S), dequantised."""
        return np.array([self._one(image) for image in images])

    def _one(self, image: Array) -> Array:
        kind = self._input["dtype"]
        if self._whole:
            # Pixels as they are: 0 to 255, or for signed bytes from -128 on.
            given: Array = (image * np.float32(255) + np.float32(0.5)).astype(np.int16)
            given += np.int16(np.iinfo(kind).min)
        else:
            given = (image - np.array(self._mean)) / np.array(self.std)
        self._run.set_tensor(self._input["index"], given[None].astype(kind))
        self._run.invoke()
        found = self._run.get_tensor(self._output["index"]).reshape(-1)
        scale, zero = self._output["quantization"]
        known: Array = found.astype(np.float64)
        return (known - zero) * scale if scale else known


class Onnx(Classifier):
    """An ONNX file, one image at a time, so that no image's answer depends on another."""

    def __init__(self, path: Path, output: str, mean: Triple, std: Triple, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtra("onnxruntime", "vision") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._run = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common kind of their own
            raise ConfigError(f"{path} is no ONNX model: {_short(error)}") from error
        given, made = self._run.get_inputs()[0], self._run.get_outputs()
        names = [one.name for one in made if output in one.name]
        if not names:
            known = ", ".join(one.name for one in made)
            raise ConfigError(f"box.output is '{output}'; {path} has: {known}")
        self._input, self._output = given.name, names[0]
        shape = [side if isinstance(side, int) else 0 for side in given.shape]
        if len(shape) != 4 or 3 not in (shape[1], shape[3]) or "float" not in given.type:
            raise ConfigError(
                f"{path} takes {given.type} of shape {given.shape}; an image is float32 of "
                "(1, 3, H, W) or (1, H, W, 3)"
            )
        self._first = shape[1] == 3
        height, width = shape[2:] if self._first else shape[1:3]
        self.size = (height or 224, width or 224)
        self.name = f"{path.stem}-{sha256(path)[:12]}" + f":{output}" * bool(output)
        self._mean, self.std = mean, std

    def ask(self, images: Array) -> Any:
        """(B, S)."""
        given = (images - np.array(self._mean, np.float32)) / np.array(self.std, np.float32)
        given = given.transpose(0, 3, 1, 2) if self._first else given
        rows = [
            self._run.run([self._output], {self._input: np.ascontiguousarray(one[None])})[0]
            for one in given.astype(np.float32)
        ]
        return np.array([np.asarray(row).reshape(-1) for row in rows])


def open_model(
    model: str | Callable[[Array], Any],
    name: str,
    output: str,
    size: tuple[int, int],
    mean: Triple | None,
    std: Triple | None,
    threads: int,
) -> Classifier:
    """The classifier that the options of the box name.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(model, str):
        return Callable_(model, name, size)
    path = Path(model)
    kinds: dict[str, Callable[..., Classifier]] = {".tflite": TfLite, ".onnx": Onnx}
    if path.suffix.lower() in kinds:
        if not path.is_file():
            raise ConfigError(f"box.model '{model}' does not exist; check the path")
        said = preprocessor(path.parent)
        own = [tuple(said.get(key, usual)) for key, usual in zip(_KEYS, IMAGENET, strict=True)]
        return kinds[path.suffix.lower()](path, output, mean or own[0], std or own[1], threads)
    module, _, attribute = model.partition(":")
    try:
        return Callable_(getattr(importlib.import_module(module), attribute), name, size)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"box.model '{model}' is no .tflite or .onnx file and cannot be imported ({error}); "
            "write a path, or package.module:name"
        ) from error


_KEYS = ("image_mean", "image_std")


def _tensor(run: Any, output: str, path: Path) -> Any:
    """The details of the tensor to read: the first output, or the last of that name."""
    if not output:
        return run.get_output_details()[0]
    found = [one for one in run.get_tensor_details() if output in one["name"]]
    if not found:
        ends = [one["name"].rsplit(";")[0] for one in run.get_tensor_details()[-4:]]
        raise ConfigError(f"box.output is '{output}'; {path} ends in: {', '.join(ends)}")
    return found[-1]


def _short(error: Exception) -> str:
    """The first line of a library's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
