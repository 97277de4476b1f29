"""The input embeddings of a network as an array, in no more memory than they need."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedbbpt.arrays import Array

ROWS = 4096
"""Looked up at a time."""


def embeddings(torch: Any, layer: Any) -> Array:
    """(V, H) float32, read-only; a network of single precision shares them.

    Some networks scale what their weights say, so it is looked up, and the weights themselves are
    handed out only where they are the same to the bit.

    Args:
        torch: the library.
        layer: embeds token ids, on the CPU.
    """
    weights = layer.weight.detach().float()
    some = torch.arange(len(weights)).split(ROWS)
    with torch.inference_mode():
        if all(torch.equal(layer(ids).float(), weights[ids]) for ids in some):
            found: Array = weights.numpy()
        else:
            found = np.concatenate([layer(ids).float().numpy() for ids in some])
    found.setflags(write=False)
    return found
