"""A causal language model's own words: the likeliest next token, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedbbpt.boxes._causal import Network
from fedbbpt.boxes._transformers import Inputs


def continued(network: Network, rows: Sequence[Inputs], most: int) -> list[list[int]]:
    """What the network says behind each of R rows: at most ``most`` tokens, up to the first at
    which a text ends and without it.

    A row stays in the batch when it is finished: so nobody's answer depends on when another's
    ends. Where the network has a cache that reaches so far, each token is run once.
    """
    torch, ends = network.torch, network.ends
    width = max(len(ids) for ids, _, _ in rows) + most
    keep = width <= network.window
    said: list[list[int]] = [[] for _ in rows]
    done = np.zeros(len(rows), bool)
    now, state = list(rows), None
    with torch.inference_mode():
        for _ in range(most):
            given, state = network.given(now, state, None, keep)
            likeliest = network.logits(given, network.lasts(now, 1))[:, 0].argmax(1).tolist()
            for r, one in enumerate(likeliest):
                done[r] |= one in ends
                if not done[r]:
                    said[r].append(one)
            if done.all():
                break
            now = [
                _next(row, new, one, keep)
                for row, new, one in zip(rows, said, likeliest, strict=True)
            ]
    return said


def _next(row: Inputs, said: list[int], last: int, known: bool) -> Any:
    """What to run next: the last token, or without a cache all of them."""
    if known:
        return np.array([last], np.int64), None, None
    ids, places, soft = row
    return np.concatenate([ids, np.array(said, np.int64)]), places, soft
