"""What a method's parts have learned since they were made, as arrays for clients elsewhere.

That is a pool of instructions that clients had written, or what a classifier's classes mean by the
clients' counts. A client that has its parts from a config needs no more to have the server's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.parts import Parts
from fedbbpt.proposing import packed, unpacked
from fedbbpt.protocols import Prompt

NONE = np.zeros((0, 0))
"""Stands for no mapping: the labels say it all."""


def learned(parts: Parts, own: Prompt | None) -> Arrays:
    """What :func:`taught` needs to make the same parts.

    Args:
        parts: as the server has them.
        own: the prompt with which the client trains, where that is not everybody's.
    """
    prompt = parts.prompt
    found: Arrays = {}
    if prompt.texts and prompt.space.points is not None:
        found |= {"texts": packed(prompt.texts), "points": prompt.space.points}
    if prompt.maps and parts.looks:
        found["mapping"] = _mapping(prompt)
        found |= {f"look.{i}": _mapping(look) for i, look in enumerate(parts.looks)}
        if own is not None:
            found["own"] = _mapping(own)
    return found


def taught(parts: Parts, arrays: Mapping[str, Array]) -> tuple[Parts, Prompt | None]:
    """The parts that have learned this, and the prompt with which the client trains, if it has one
    of its own.
    """
    plain = parts.prompt
    if "texts" in arrays:
        parts = replace(parts, prompt=plain.grown(unpacked(arrays["texts"]), arrays["points"]))
    if "mapping" not in arrays:
        return parts, None
    looks = tuple(_mapped(plain, arrays[f"look.{i}"]) for i in range(_looks(arrays)))
    own = _mapped(plain, arrays["own"]) if "own" in arrays else None
    return replace(parts, prompt=_mapped(plain, arrays["mapping"]), looks=looks), own


def _mapping(prompt: Prompt) -> Array:
    return NONE if prompt.mapping is None else prompt.mapping


def _mapped(prompt: Prompt, mapping: Array) -> Prompt:
    return prompt.mapped(mapping) if mapping.size else prompt


def _looks(arrays: Mapping[str, Array]) -> int:
    return sum(name.startswith("look.") for name in arrays)
