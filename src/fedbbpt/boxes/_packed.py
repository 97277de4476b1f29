"""Atoms on the wire to a gateway: prompts and examples once each, atoms as references to them.

The whole is JSON; matrices are one base64 safetensors file, so nothing that is read can be code.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors import SafetensorError

from fedbbpt.arrays import Array, Arrays, decode, encode
from fedbbpt.boxes._forms import Content, Form
from fedbbpt.errors import ConfigError
from fedbbpt.types import Atom, Picture, RenderedPrompt

PROTOCOL = 1
"""Version of what gateway and client send each other; both must be of the same."""


def pack(form: Form, atoms: Sequence[Atom], wanted: Sequence[int]) -> dict[str, Any]:
    """Atoms and which of them are wanted, as JSON has it.

    Raises:
        ConfigError: an example that is no text, picture or array, or a visual prompt.
    """
    arrays: Arrays = {}
    prompts: dict[int, tuple[int, Any]] = {}
    examples: dict[Any, tuple[int, Any]] = {}
    places = []
    for prompt, label, example in map(form.content, atoms):
        p = e = -1
        if prompt is not None:
            if id(prompt) not in prompts:
                prompts[id(prompt)] = len(prompts), pack_prompt(prompt, arrays)
            p = prompts[id(prompt)][0]
        if label < 0:
            known = example if isinstance(example, str) else id(example)
            if known not in examples:
                examples[known] = len(examples), _pack_example(example, arrays)
            e = examples[known][0]
        places.append((p, label, e))
    return {
        "prompts": [packed for _, packed in prompts.values()],
        "examples": [packed for _, packed in examples.values()],
        "atoms": places,
        "wanted": list(wanted),
        "arrays": pack_arrays(arrays),
    }


def unpack(form: Form, sent: Mapping[str, Any]) -> tuple[list[Atom], list[int]]:
    """Inverse of :func:`pack`; keys are made here and not taken from the sender.

    Raises:
        ConfigError: what was sent does not fit together.
    """
    arrays = unpack_arrays(sent["arrays"])
    prompts = [unpack_prompt(prompt, arrays) for prompt in sent["prompts"]]
    examples = [_unpack_example(example, arrays) for example in sent["examples"]]
    atoms, wanted = [], list(sent["wanted"])
    for p, label, e in sent["atoms"]:
        if p >= len(prompts) or e >= len(examples) or min(p, label, e) < -1:
            raise ConfigError(f"atom [{p}, {label}, {e}] names a prompt or an example not sent")
        prompt = prompts[p] if p >= 0 else None
        content = Content(prompt, label, examples[e] if e >= 0 else None)
        if not form.takes(content):
            raise ConfigError(f"atom [{p}, {label}, {e}] is none that this box can answer")
        atoms.append(form.atom(content))
    if any(not 0 <= i < len(atoms) for i in wanted):
        raise ConfigError(f"wanted names an atom that was not sent; {len(atoms)} were")
    return atoms, wanted


def pack_prompt(prompt: RenderedPrompt, arrays: Arrays) -> dict[str, Any]:
    """A prompt as JSON has it; its matrices go into ``arrays``, each once.

    Raises:
        ConfigError: it is a visual prompt.
    """
    if prompt.visual is not None:
        raise ConfigError("a gateway takes no visual prompts; run the box where the pictures are")
    return {
        "template": prompt.template,
        "labels": prompt.labels,
        "side": prompt.side,
        "mode": prompt.mode,
        "place": prompt.place,
        "tokens": prompt.tokens,
        "soft": [_named(matrix, arrays) for matrix in prompt.soft],
    }


def unpack_prompt(sent: Mapping[str, Any], arrays: Mapping[str, Array]) -> RenderedPrompt:
    """Inverse of :func:`pack_prompt`.

    Raises:
        ConfigError: its parts do not fit together.
    """
    soft, labels = tuple(_matrix(name, arrays) for name in sent["soft"]), tuple(sent["labels"])
    for what, several in (("soft", soft), ("tokens", sent["tokens"])):
        if len(several) not in (0, 1, len(labels)):
            raise ConfigError(
                f"a prompt with {len(labels)} labels has {len(several)} entries in {what}; "
                f"it must have none, 1 or {len(labels)}"
            )
    return RenderedPrompt(
        sent["template"],
        labels,
        sent["side"],
        soft,
        sent["mode"],
        tuple(tuple(ids) for ids in sent["tokens"]),
        sent["place"],
    )


def pack_arrays(arrays: Arrays) -> str:
    """Base64 of a safetensors file; of no array nothing."""
    return base64.b64encode(encode(arrays)).decode() if arrays else ""


def unpack_arrays(sent: str) -> Arrays:
    """Inverse of :func:`pack_arrays`.

    Raises:
        ConfigError: it is not that.
    """
    try:
        return decode(base64.b64decode(sent, validate=True)) if sent else {}
    except (binascii.Error, ValueError, SafetensorError) as error:
        raise ConfigError(f"arrays must be a safetensors file in base64: {error}") from error


def pack_rows(rows: Sequence[Array]) -> str:
    """Rows of any lengths, in one array: their bits are kept if they have one type. Sealed words,
    which are bytes, are in another, and their lengths are below 0.
    """
    sealed = [row for row in rows if row.dtype == np.uint8]
    others = [row for row in rows if row.dtype != np.uint8]
    arrays = {"rows": np.concatenate([np.zeros(0, np.float32), *others])}
    if sealed:
        arrays["sealed"] = np.concatenate(sealed)
    signs = [-1 if row.dtype == np.uint8 else 1 for row in rows]
    lengths = [sign * len(row) for sign, row in zip(signs, rows, strict=True)]
    return pack_arrays(arrays | {"lengths": np.array(lengths, np.int64)})


def unpack_rows(sent: str) -> list[Array]:
    """Inverse of :func:`pack_rows`; a KeyError or ConfigError if it is not that."""
    arrays = unpack_arrays(sent)
    lengths = arrays["lengths"]
    words = lengths < 0
    rows = iter(_cut(arrays["rows"], lengths[~words]))
    sealed = iter(_cut(arrays["sealed"], -lengths[words]) if words.any() else [])
    return [next(sealed if length < 0 else rows) for length in lengths]


def _cut(flat: Array, lengths: Array) -> list[Array]:
    return np.split(flat, np.cumsum(lengths))[: len(lengths)]


def _named(array: Array, arrays: Arrays) -> str:
    """The name of an array among those to send; most candidates share most of their matrices."""
    for name, known in arrays.items():
        if known is array:
            return name
    name = str(len(arrays))
    arrays[name] = array
    return name


def _matrix(name: str, arrays: Mapping[str, Array]) -> Array:
    found = arrays.get(name)
    if found is None or found.ndim != 2 or found.dtype != np.float32:
        raise ConfigError(f"soft names '{name}', which is no float32 matrix among the arrays")
    return found


def _pack_example(example: Any, arrays: Arrays) -> Any:
    if isinstance(example, str):
        return example
    if isinstance(example, Picture):
        return {"picture": _named(example.pixels, arrays)}
    if not isinstance(example, np.ndarray):
        kind = type(example).__name__
        raise ConfigError(
            f"an example is of type {kind}; a gateway takes texts, pictures and arrays"
        )
    return {"array": _named(example, arrays)}


def _unpack_example(sent: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(sent, str):
        return sent
    ((kind, name),) = sent.items()
    if name not in arrays:
        raise ConfigError(f"an example names the array '{name}', which was not sent")
    if kind == "array":
        return arrays[name]
    pixels = arrays[name]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ConfigError(
            f"a picture is {pixels.dtype} of shape {pixels.shape}; it must be uint8 of (H, W, 3)"
        )
    return Picture(pixels)
