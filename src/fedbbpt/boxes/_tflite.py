"""TFLite files as image classifiers, through ai-edge-litert."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._classifiers import FromFile, Reading, place, short
from fedbbpt.errors import ConfigError, MissingExtra

NOTICES = (b"INFO:", b"ERROR:")
"""How the lines begin that LiteRT writes; its errors are in its exceptions too."""
_STDERR = threading.Lock()


class TfLite(FromFile):
    """A TFLite file, one image at a time: that is what its graph is made for.

    Raises:
        ConfigError: it is none, or takes no images.
        MissingExtra: ai-edge-litert is not installed.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        try:
            import ai_edge_litert.interpreter  # noqa: F401
        except ImportError:
            raise MissingExtra("ai-edge-litert", "vision") from None
        try:
            with _without_notices():
                self._run = _load(path, reading)
                found, inner = _tensor(self._run, reading.output, path)
                if inner:
                    self._run = _load(path, reading, keep=True)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{path} is no TFLite model that runs: {short(error)}") from error
        self._lock, given = threading.Lock(), self._run.get_input_details()
        shape = tuple(int(side) for side in given[0]["shape"])
        if len(given) > 1 or len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            listed = ", ".join(str(tuple(int(n) for n in one["shape"])) for one in given)
            raise ConfigError(f"{path} takes inputs of shape {listed}; an image is (1, H, W, 3)")
        self._set_up(path, reading, np.dtype(given[0]["dtype"]).name)
        self._input, self._output = int(given[0]["index"]), int(found["index"])
        self.size, self.classes = (shape[1], shape[2]), int(np.prod(found["shape"]))
        self.step, self._zero = (float(number) for number in found["quantization"])

    def ask(self, images: Array) -> Any:
        """(B, S), dequantised."""
        given = self._given(images)
        with self._lock:
            found = np.array([self._one(image) for image in given], np.float64)
        return (found - self._zero) * self.step if self.step else found

    def _one(self, image: Array) -> Array:
        self._run.set_tensor(self._input, image[None])
        self._run.invoke()
        return np.asarray(self._run.get_tensor(self._output)).reshape(-1)


def _load(path: Path, reading: Reading, keep: bool = False) -> Any:
    """An interpreter; the tensors between input and output are overwritten unless all are kept."""
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        # It warns of the memory that keeping takes.
        warnings.simplefilter("ignore")
        run = Interpreter(
            str(path),
            num_threads=reading.threads or None,
            experimental_preserve_all_tensors=keep,
        )
    given = run.get_input_details()[0]
    if [int(side) for side in given["shape_signature"][1:]] == [-1, -1, 3]:
        run.resize_tensor_input(given["index"], [1, *reading.size, 3])
    run.allocate_tensors()
    return run


def _tensor(run: Any, output: str, path: Path) -> tuple[Any, bool]:
    """The details of the tensor to read, and whether it is another than the outputs: of several
    of that name the last.
    """
    made, every = run.get_output_details(), run.get_tensor_details()[::-1]
    at = place([one["name"] for one in made], output)
    if at >= 0:
        return made[at], False
    at = place([one["name"] for one in every], output)
    if at < 0:
        ends = [one["name"].rsplit(";")[0] for one in every[3::-1]]
        raise ConfigError(f"box.output is '{output}'; {path} ends in: {', '.join(ends)}")
    return every[at], True


@contextmanager
def _without_notices() -> Iterator[None]:
    """Nothing of LiteRT's notices, which its C++ writes to the process's stderr whatever Python
    or the environment say. All else that is written meanwhile comes a moment later.
    """
    with _STDERR, ExitStack() as after:
        with suppress(OSError, ValueError, AttributeError):  # there is no stderr, or no room
            sys.stderr.flush()
            kept = after.enter_context(tempfile.TemporaryFile())
            usual = os.dup(2)
            os.dup2(kept.fileno(), 2)
            after.callback(_write_again, kept, usual)
        yield


def _write_again(kept: IO[bytes], usual: int) -> None:
    os.dup2(usual, 2)
    os.close(usual)
    kept.seek(0)
    for line in kept:
        if not line.startswith(NOTICES):
            os.write(2, line)
