"""ONNX files as image classifiers, through onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._classifiers import FromFile, Reading, place, short
from fedbbpt.errors import ConfigError, MissingExtra

ERRORS = 3
"""The severity from which on onnxruntime writes to stderr."""


class Onnx(FromFile):
    """An ONNX file, one image at a time, so that no image's answer depends on another.

    Raises:
        ConfigError: it is none, or takes no images.
        MissingExtra: onnxruntime is not installed.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtra("onnxruntime", "vision") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = reading.threads, ERRORS
        try:
            self._run = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common kind of their own
            raise ConfigError(f"{path} is no ONNX model that runs: {short(error)}") from error
        made = [one.name for one in self._run.get_outputs()]
        at = place(made, reading.output)
        if at < 0:
            raise ConfigError(f"box.output is '{reading.output}'; {path} has: {', '.join(made)}")
        given = self._run.get_inputs()
        shape = [side if isinstance(side, int) else 0 for side in given[0].shape]
        image = len(given) == 1 and len(shape) == 4 and shape[0] < 2 and 3 in (shape[1], shape[3])
        if not image:
            listed = ", ".join(f"{one.name} {one.shape}" for one in given)
            raise ConfigError(f"{path} takes {listed}; an image is (1, 3, H, W) or (1, H, W, 3)")
        kind = given[0].type.removeprefix("tensor(").removesuffix(")")
        self._set_up(path, reading, "float32" if kind == "float" else kind)
        self._input, self._output, self._first = given[0].name, made[at], shape[1] == 3
        height, width = shape[2:] if self._first else shape[1:3]
        self.size = (height or reading.size[0], width or reading.size[1])
        self.classes = self._try_out(path)

    def ask(self, images: Array) -> Any:
        """(B, S)."""
        given = self._given(images)
        given = given.transpose(0, 3, 1, 2) if self._first else given
        return np.array([self._one(np.ascontiguousarray(image)) for image in given])

    def _one(self, image: Array) -> Array:
        (found,) = self._run.run([self._output], {self._input: image[None]})
        return np.asarray(found).reshape(-1)

    def _try_out(self, path: Path) -> int:
        """S: a file may leave its own sizes open, and what it makes of ours."""
        height, width = self.size
        try:
            return int(self.ask(np.zeros((1, height, width, 3), np.float32)).size)
        except Exception as error:
            raise ConfigError(
                f"{path} cannot be asked about an image of {height}x{width}: {short(error)}; "
                "box.size = [H, W] says which it takes, if that is open"
            ) from error
