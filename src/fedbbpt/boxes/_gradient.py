"""Gradients with respect to a soft prompt, for boxes whose model runs here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._transformers import Inputs, Pretrained
from fedbbpt.types import RenderedPrompt


def slopes(
    model: Pretrained, rows: Sequence[Inputs], number: Callable[[Mapping[str, Any]], Any]
) -> tuple[float, list[Array]]:
    """A number that a network makes of a batch, and its gradient with respect to the input
    embeddings of every row. Torch records nothing before and after.

    Args:
        model: the network; one call at a time.
        rows: as :meth:`Pretrained.batch` takes them.
        number: what that returns -> a tensor of one number.

    Returns:
        the number, and (L, H) float64 per row.
    """
    with model.torch.enable_grad():
        given = model.batch(rows)
        embedded = given["inputs_embeds"].requires_grad_()
        value = number(given)
        (slope,) = model.torch.autograd.grad(value, embedded)
    found = slope.double().cpu().numpy()
    return value.item(), [f[: len(ids)] for f, (ids, _, _) in zip(found, rows, strict=True)]


def numbered(prompt: RenderedPrompt) -> RenderedPrompt:
    """The soft prompt whose t-th vector is (t,): laid out, it tells which vector goes where."""
    counted = [np.arange(len(matrix), dtype=np.float32)[:, None] for matrix in prompt.soft]
    return replace(prompt, soft=tuple(counted))


def gather(gradient: Array, slope: Array, laid: Inputs) -> None:
    """Add one row's slopes to the gradient of the vectors that are in it.

    Args:
        gradient: (T, H), changed in place.
        slope: (L, H).
        laid: the row as laid out with the :func:`numbered` prompt.
    """
    _, places, number = laid
    if places is not None and number is not None:
        np.add.at(gradient, number[:, 0].astype(np.int64), slope[places])
