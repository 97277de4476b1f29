"""In-context learning: each client shows the model a few of its own training examples.

Brown et al., Language Models are Few-Shot Learners, NeurIPS 2020, section 2. Demonstrations never
leave their client: every client is scored with its own, and the result is the mean over clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np

from fedbbpt.arrays import Arrays
from fedbbpt.baselines import Baseline, Exchange
from fedbbpt.baselines._template import GAPS, MASK, mask_in
from fedbbpt.black_box import AtomicBox, BlackBox
from fedbbpt.errors import ConfigError
from fedbbpt.parts import Client, Parts, Phase, zero
from fedbbpt.phases import PHASES, compare
from fedbbpt.random import stream
from fedbbpt.types import Batch, Job, RenderedPrompt

SPECIAL = 3
"""Tokens of a prompted text that its words do not count: two ends and a mask."""


class Shown(NamedTuple):
    """One demonstration: a text and its class."""

    text: str
    target: int


@dataclass(frozen=True)
class InContext(Baseline):
    """Demonstrations in the prompt; costs no training query.

    On the text side they are the filled template, with the label word for the mask or behind the
    template's end, in front of the template. On the label side the label in its template is
    followed by the demonstrations of its class.

    What does not fit into the box's ``max_tokens`` is left out, the longest first; on the text
    side room is kept for the client's longest training text, though no more than half.

    Attributes:
        shots: demonstrations per class, those of a random order that all classes share.
    """

    shots: int = 1

    everyone = True
    pictures = False
    evaluate = "in_context"

    def __post_init__(self) -> None:
        if self.shots < 1:
            raise ConfigError(f"in_context shots is {self.shots}; it must be at least 1")

    @property
    def phases(self) -> tuple[Phase, ...]:
        """A count of what fits, and the evaluation."""
        return (
            Phase("demonstrations", "train", lambda _: ("shown",), self._count),
            Phase(self.evaluate, "evaluation", PHASES["evaluate"].sends, self._evaluate),
        )

    def fit(self, exchange: Exchange) -> Arrays:
        """``{"shown": (clients,)}``: how many demonstrations each client can show.

        Raises:
            ConfigError: none can show any.
        """
        updates = exchange.ask("demonstrations", {}, exchange.holders("train"))
        shown = np.array([int(update.arrays["shown"]) for update in updates], np.int64)
        if not shown.any():
            raise ConfigError(
                "no client has a training example that fits into the prompt besides the template "
                "and a text; raise box.max_tokens"
            )
        return {"shown": shown}

    def prompted(
        self, start: RenderedPrompt, client: Client, seed: int, box: BlackBox
    ) -> tuple[RenderedPrompt, int]:
        """The client's prompt, and how many demonstrations are in it."""
        picked = self._pick(start, client, seed, box)
        if start.side == "text":
            return _in_front(start, picked, client.train, box)
        return _behind_labels(start, picked, box)

    def _pick(self, start: RenderedPrompt, client: Client, seed: int, box: BlackBox) -> list[Shown]:
        """At most ``shots`` of each class. A text that looks like a place of the template is not
        shown.
        """
        batch = client.train
        mask = mask_in(start.template, box.vocabulary)
        places = [place for place in (*GAPS.values(), MASK, mask) if place]
        count, picked = [0] * len(start.labels), []
        for row in stream(seed, "demonstrations", client=client.name).permutation(batch.size):
            # Where labels are numbers, one counts for the nearer pole.
            text, target = str(batch.inputs[row]), int(np.rint(batch.targets[row]))
            if count[target] < self.shots and not any(place in text for place in places):
                count[target] += 1
                picked.append(Shown(text, target))
        return picked

    def _count(self, parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
        start = zero(parts.prompt)
        _, shown = self.prompted(start, client, job.seed, box)
        return {"shown": np.array(shown)}, float(client.train.size)

    def _evaluate(
        self, parts: Parts, client: Client, job: Job, box: BlackBox
    ) -> tuple[Arrays, float]:
        start = parts.prompt.render(job.arrays["points"])[0]
        mine, _ = self.prompted(start, client, job.seed, box)
        return compare(parts, client, box([start, mine], client.test.inputs))


def _in_front(
    start: RenderedPrompt, picked: Sequence[Shown], own: Batch, box: BlackBox
) -> tuple[RenderedPrompt, int]:
    """The text side's prompt."""
    mask, gap = mask_in(start.template, box.vocabulary), GAPS["text"]
    frame = start.template if mask else f"{start.template} {MASK}"
    room = max((_tokens(str(text), box) for text in own.inputs), default=0)

    def write(shown: Sequence[Shown]) -> str:
        filled = [frame.replace(mask or MASK, start.labels[s.target]) for s in shown]
        texts = [f.replace(gap, s.text) for f, s in zip(filled, shown, strict=True)]
        return " ".join([*texts, start.template])

    kept = _fitting(picked, write, box, room)
    return replace(start, template=write(kept)), len(kept)


def _behind_labels(
    start: RenderedPrompt, picked: Sequence[Shown], box: BlackBox
) -> tuple[RenderedPrompt, int]:
    """The label side's prompt: whole texts as labels, in a template that is all gap."""
    labels, total = [], 0
    for target, label in enumerate(start.labels):
        filled = start.template.replace(GAPS["label"], label)

        def write(shown: Sequence[Shown], filled: str = filled) -> str:
            return " ".join([filled, *(s.text for s in shown)])

        kept = _fitting([s for s in picked if s.target == target], write, box, 0)
        labels.append(write(kept))
        total += len(kept)
    return replace(start, template=GAPS["label"], labels=tuple(labels)), total


def _fitting(
    picked: Sequence[Shown], write: Callable[[Sequence[Shown]], str], box: BlackBox, room: int
) -> list[Shown]:
    """As many as leave ``room`` tokens, or half of all, for what else the box is to read."""
    # Whatever stands behind a client's door is atomic: it has to be metered.
    limit = cast(AtomicBox, box).max_tokens
    kept = list(picked)
    while kept and limit and _tokens(write(kept), box) + SPECIAL + min(room, limit // 2) > limit:
        kept.remove(max(kept, key=lambda shown: len(shown.text)))
    return kept


def _tokens(text: str, box: BlackBox) -> int:
    return len(box.vocabulary.tokenise(text)) if box.vocabulary else 0
