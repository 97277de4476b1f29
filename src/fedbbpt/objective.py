"""The one door to the model: K points on B examples become K losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import BlackBox
from fedbbpt.protocols import Prompt, Task
from fedbbpt.types import Batch


@dataclass(frozen=True)
class Objective:
    """Mean loss of each candidate on the same examples (common random numbers).

    Attributes:
        box: the model, wrapped as the caller wants it.
        prompt: renders points.
        task: loss of a reply.
        batch: the examples that count.
        asked: the examples sent, ``batch`` and any companions the task put behind it.
    """

    box: BlackBox
    prompt: Prompt
    task: Task
    batch: Batch
    asked: Batch

    def __call__(self, points: Array) -> Array:
        """(K,) losses of (K, *shape) points; not finite where the box gave no answer."""
        prompts = self.prompt.render(points)
        reply = self.box(prompts, self.asked.inputs)
        losses = self.task.loss(reply, self.batch)
        # An example that no candidate got an answer for tells nothing; a candidate that lacks an
        # answer for another is left out, for it could not be compared.
        answered = np.isfinite(losses).any(axis=0)
        if not answered.any():
            return np.full(len(losses), np.nan)
        if not answered.all():
            losses = losses[:, answered]
        means: Array = losses.mean(axis=1)
        return means
