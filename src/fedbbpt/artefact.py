"""The tuned prompt on disk, and the predictor made from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt import registry
from fedbbpt.arrays import Array, Arrays, decode, encode
from fedbbpt.black_box import BlackBox
from fedbbpt.errors import RunDirError
from fedbbpt.types import Pixels, RenderedPrompt, Reply

META, ARRAYS = "prompt.json", "prompt.safetensors"


def save(folder: Path, prompt: RenderedPrompt, point: Array, facts: dict[str, Any]) -> None:
    """Write a rendered prompt, whole: it needs neither the seed nor the projection again.

    Args:
        folder: made if missing.
        prompt: what the box receives.
        point: what the optimiser moved to get it.
        facts: class names, box, ... for people and for :func:`load`.
    """
    arrays = {f"soft.{i}": matrix for i, matrix in enumerate(prompt.soft)}
    if prompt.mapping is not None:
        arrays["mapping"] = prompt.mapping
    if prompt.visual is not None:
        arrays |= {f"visual.{name}": array for name, array in prompt.visual.arrays.items()}
        facts = {**facts, "visual": dict(prompt.visual.facts)}
    write_arrays(folder, {"point": point, **arrays})
    meta = {
        "parameters": int(point.size),  # numbers that were searched
        "bytes": (folder / ARRAYS).stat().st_size,
        "kind": prompt.kind,
        "side": prompt.side,
        "mode": prompt.mode,
        "template": prompt.template,
        "labels": list(prompt.labels),
        "tokens": [list(ids) for ids in prompt.tokens],
        "place": prompt.place,
        **facts,
    }
    (folder / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def write_arrays(folder: Path, arrays: Arrays) -> None:
    """Write what was learned into the folder, made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ARRAYS).write_bytes(encode(arrays))


def placed(words: str, template: str, side: str, place: str) -> str:
    """A template with tuned words where they stand; attributes as in :class:`RenderedPrompt`."""
    if not words:
        return template
    if place == "before":
        return f"{words} {template}"
    gap = "{" + side + "}"
    return template.replace(gap, f"{gap} {words}")


def load(folder: Path) -> tuple[RenderedPrompt, dict[str, Any]]:
    """The prompt and its facts; inverse of :func:`save`.

    Raises:
        RunDirError: there is no complete prompt in the folder.
    """
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        arrays = decode((folder / ARRAYS).read_bytes())
    except (OSError, ValueError) as error:
        raise RunDirError(f"{folder} holds no tuned prompt: {error}") from error
    count = sum(name.startswith("soft.") for name in arrays)
    prompt = RenderedPrompt(
        meta["template"],
        tuple(meta["labels"]),
        meta["side"],
        soft=tuple(arrays[f"soft.{i}"] for i in range(count)),
        mode=meta["mode"],
        tokens=tuple(tuple(ids) for ids in meta["tokens"]),
        place=meta["place"],
        visual=_pixels(meta["visual"], arrays) if "visual" in meta else None,
        mapping=arrays.get("mapping"),
    )
    return prompt, meta


def _pixels(facts: dict[str, Any], arrays: Arrays) -> Pixels:
    """What is done to pictures, made again by the kind of prompt that made it."""
    own = {name[7:]: array for name, array in arrays.items() if name.startswith("visual.")}
    pixels: Pixels = registry.find("prompts", facts["prompt"]).restored(facts, own)
    return pixels


class Tuned:
    """A prompt and the box it was tuned for, ready to answer.

    Args:
        box: any box of the kind the prompt was tuned on.
        prompt: the tuned prompt.
        classes: class names in class order; none where answers are words.
    """

    def __init__(self, box: BlackBox, prompt: RenderedPrompt, classes: Sequence[str]) -> None:
        self.box, self.prompt, self.classes = box, prompt, tuple(classes)

    def ask(self, inputs: Sequence[Any]) -> Reply:
        """The reply to B inputs, in one call: one prompt by B.

        Raises:
            BoxError: the model failed for good.
        """
        return self.box([self.prompt], inputs)

    def scores(self, inputs: Sequence[Any]) -> Array:
        """(B, C) log-probabilities of the classes."""
        scores: Array = self.ask(inputs).scores[0]
        return scores

    def predict(self, inputs: Sequence[Any]) -> list[str | None]:
        """The most probable class of each input; where the prompt has no classes, the answer in
        words, ``None`` for none.
        """
        reply = self.ask(inputs)
        if reply.texts is not None:
            return list(reply.texts[0])
        return [self.classes[i] for i in np.argmax(reply.scores[0], axis=1)]
