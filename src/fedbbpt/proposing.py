"""The paid phase ``propose``: a client has instructions written from its own examples.

What it shows the writer are private demonstrations; the writer is a box of the client's own bill,
as the follower is. What leaves the client are instructions that passed the leak check
(:mod:`fedbbpt.data.leaks`) against *all* examples it holds, and how many did not and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.black_box import BlackBox
from fedbbpt.data.leaks import Private
from fedbbpt.errors import BudgetSpent
from fedbbpt.parts import Client, Parts, Phase, zero
from fedbbpt.random import stream
from fedbbpt.types import Job, RenderedPrompt
from fedbbpt.writing import ASK, Writing, instructions, proposal, unfit, variation

WHY = {
    "nothing": "replies without one",
    "long": "longer than prompt.longest",
    "gap": "with a placeholder",
    "leak": "telling of a private example",
}
"""Why something did not leave."""


def propose(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """``texts``: the instructions, packed; ``rows``: for each, which of the asked
    latents or instructions it came of; ``refused``: (4,) how many did not leave, see ``WHY``.

    The job says what is wanted: ``number`` instructions from demonstrations; besides, where
    ``near`` holds instructions (packed), as many variations of each; or, where it holds
    ``latents`` (K, d), one behind each of the soft prompts that :func:`soft_prompts` makes.
    """
    writing = parts.prompt.writing
    if writing is None or not client.train.size:
        return {}, 0.0
    try:
        replies = list(_written(parts, writing, client, job, box))
    except BudgetSpent:
        return {}, 0.0
    kept: dict[str, int] = {}
    refused = Counter[str]()
    own = _private(parts, client)
    for row, reply, whole in replies:
        found, room = instructions(reply, whole), writing.proposals
        refused["nothing"] += not found
        for text in found:
            why = unfit(text, writing.longest) or ("leak" if own.leak(text) else "")
            if why:
                refused[why] += 1
            elif room:  # a model that goes on talking must not fill the pool
                room -= 1
                kept.setdefault(text, row)
    if own.leak(" ".join(kept)):  # an example in pieces, a line each
        refused["leak"] += len(kept)
        kept.clear()
    arrays = {
        "texts": packed(kept),
        "rows": np.array([*kept.values()], np.int64),
        "refused": np.array([refused[why] for why in WHY], np.int64),
    }
    return arrays, float(client.train.size)


PROPOSE = Phase("propose", "train", lambda _: ("texts", "rows", "refused"), propose, writes=True)


def packed(texts: Iterable[str]) -> Array:
    """Texts as bytes, a NUL between."""
    return np.frombuffer("\0".join(texts).encode(), np.uint8)


def unpacked(array: Array) -> list[str]:
    """Inverse of :func:`packed`."""
    return [text for text in array.tobytes().decode(errors="replace").split("\0") if text]


def _written(
    parts: Parts, writing: Writing, client: Client, job: Job, box: BlackBox
) -> Iterator[tuple[int, str | None, bool]]:
    """(row, reply, whether it is one instruction that goes on) of everything asked."""
    number = int(job.arrays["number"])
    shown = _demonstrations(parts, writing, client, job)
    if "latents" in job.arrays:
        matrices = soft_prompts(box, writing, job.arrays["latents"], job.seed)
        prompts = [RenderedPrompt(ASK, (), "text", (matrix,), "insert") for matrix in matrices]
        for row, texts in enumerate(box(prompts, [proposal(shown, 1)]).texts or ()):
            yield row, texts[0], True
        return
    plain = RenderedPrompt(ASK, (), "text")
    near = unpacked(job.arrays["near"]) if "near" in job.arrays else []
    asked = [proposal(shown, number), *(variation(text, number) for text in near)]
    for row, text in enumerate((box([plain], asked).texts or ((),))[0]):
        yield row, text, number == 1 and not row


def soft_prompts(box: BlackBox, writing: Writing, latents: Array, seed: int) -> Array:
    """(K, tokens, H) float32 soft prompts A z of (K, d) latents z in [-1, 1]^d.

    A is uniform and the same everywhere (Chen et al. 2024, section 3.1); published are entries in
    [-1, 1], which are some ten times as large as embeddings of words are. Here they are scaled so
    that the entries of a soft prompt spread as those of the model's own tokens do.
    """
    words = box.vocabulary
    assert words is not None  # a box that takes soft prompts has one
    shape = (writing.tokens * words.hidden, writing.dim)
    project = stream(seed, "soft prompt").uniform(-1, 1, shape)
    # A z has variance d / 9 for uniform z.
    scale = 3 * words.std / np.sqrt(writing.dim)
    soft = scale * latents @ project.T
    return np.asarray(soft.reshape(len(latents), writing.tokens, -1).astype(np.float32))


def _demonstrations(
    parts: Parts, writing: Writing, client: Client, job: Job
) -> list[tuple[str, str]]:
    """Some of the client's training examples with an answer each."""
    rng = stream(job.seed, "demonstrations", job.round, client.name)
    rows = rng.permutation(client.train.size)[: writing.demonstrations]
    batch = client.train.take(rows)
    answers = _answers(parts, batch.targets)
    return [(str(text), own[0]) for text, own in zip(batch.inputs, answers, strict=True)]


def _private(parts: Parts, client: Client) -> Private:
    """All that a client holds."""
    inputs: list[str] = []
    references: list[Sequence[str]] = []
    for batch in (client.train, client.holdout, client.test):
        inputs += map(str, batch.inputs)
        # Class names are no secret: an instruction has to say them.
        references += list(batch.targets) if parts.task.words else [()] * batch.size
    return Private(inputs, references)


def _answers(parts: Parts, targets: Array) -> list[Sequence[str]]:
    if parts.task.words:
        return list(targets)
    labels = zero(parts.prompt).labels
    return [(labels[round(float(target))],) for target in targets]  # a number: the nearer pole
