"""Answers in words as rows: UTF-8, sealed under the very question that they answer.

A ledger keeps rows on a disk, and an answer may repeat the private text that it was asked about.
So a row is encrypted under its own question (the box, the prompt and the example), which no ledger
holds: who has the example reads the answer, and nobody else. There is no other key to keep or to
lose, and a known answer costs nothing wherever the same question is asked again.

The nonce in front is a digest of question and answer (a synthetic initialisation vector, RFC 5297):
the same answer has the same row in every run, two answers to one question never share a key
stream, and a row that is opened under another question, or was changed, is seen to be wrong.

It does not protect from somebody who can guess the example: he asks the row whether he is right,
as he can ask the key that it is kept under. The length of an answer in bytes is not hidden.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.types import Picture, RenderedPrompt, digest

_NONCE, _STREAM = "fedbbpt words: nonce", "fedbbpt words: stream"
_SIZE = 16


def seal(answer: str | None, name: str, prompt: RenderedPrompt, example: Any) -> Array:
    """The row of an answer: (16 + its bytes,) uint8; of no answer one NaN.

    Half a character, which a reply's JSON may hold, becomes a question mark.

    Args:
        answer: what the model said; an empty text is an answer.
        name: the box's.
        prompt, example: what it was asked.
    """
    if answer is None:
        return np.full(1, np.nan)
    said, about = answer.encode("utf-8", "replace"), bytes_of(example)
    nonce = digest(_NONCE, name, prompt.keys[0], about, said)
    hidden = _masked(said, nonce, name, prompt, about)
    return np.frombuffer(nonce + hidden, np.uint8)


def unseal(row: Array, name: str, prompt: RenderedPrompt, example: Any) -> str | None:
    """The answer in a row; ``None`` if it holds none, or none to this question."""
    if row.dtype != np.uint8:
        return None
    sealed, about = row.tobytes(), bytes_of(example)
    nonce = sealed[:_SIZE]
    said = _masked(sealed[_SIZE:], nonce, name, prompt, about)
    if digest(_NONCE, name, prompt.keys[0], about, said) != nonce:
        return None
    return said.decode()


def bytes_of(example: Any) -> bytes:
    """What tells an example from others."""
    if isinstance(example, Picture):
        return example.key
    if isinstance(example, np.ndarray):
        shape = f"{example.dtype.str}{example.shape}"
        return bytes(shape.encode() + example.tobytes())
    return repr(example).encode()


def _masked(text: bytes, nonce: bytes, name: str, prompt: RenderedPrompt, about: bytes) -> bytes:
    """The text under the key stream of a question, or out of it again."""
    key = digest(_STREAM, name, prompt.keys[0], about, nonce)
    stream = hashlib.shake_256(key).digest(len(text))
    return (np.frombuffer(text, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()
