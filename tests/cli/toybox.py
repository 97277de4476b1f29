"""A black box that needs no model, for tests that start real processes.

The tests put this folder on PYTHONPATH and name ``toybox:answer`` in a config. Rows do not depend
on the batch they are computed in, so runs can be compared to the bit. The environment steers it:

TOYBOX_SLEEP: seconds that every call takes.
TOYBOX_LOG: a file that gets a line ``key text`` for every atom, before it is evaluated.
TOYBOX_FAULT: ``nan``: a third of the moved prompts never get an answer; ``flaky``: every seventh
    gets one only when asked again; ``shape``: one class too many; ``raise``: an exception;
    ``silent``: no answer at all.
TOYBOX_AFTER: calls that go well before a ``shape``, ``raise`` or ``silent``.
"""

from __future__ import annotations

import os
import re
import time
import zlib

import numpy as np

from fedbbpt.types import digest

NAME = "toy"  # what the configs of the tests call it
HIDDEN, WORDS = 8, 997
calls = 0
seen: set[int] = set()


class Vocabulary:
    """Words and marks as tokens; ``w12`` is what token 12 decodes to."""

    hidden, std = HIDDEN, 0.5

    def __init__(self):
        table = np.random.default_rng(0).standard_normal((WORDS, HIDDEN))
        self.table = (self.std * table).astype(np.float32)

    def tokenise(self, text):
        return [
            int(word[1:]) if re.fullmatch(r"w\d+", word) else zlib.crc32(word.encode()) % WORDS
            for word in re.findall(r"\w+|[^\w\s]", text)
        ]

    def layout(self, template, fill):
        before, _, after = template.partition("\0")
        parts = [self.tokenise(part) for part in (before, fill, after)]
        places = list(range(len(parts[0]) + len(parts[2])))
        split = len(parts[0])
        return [*parts[0], *parts[1], *parts[2]], [
            *places[:split],
            *[-1] * len(parts[1]),
            *places[split:],
        ]

    def embed(self, ids):
        return self.table[list(ids)]

    def decode(self, ids):
        return " ".join(f"w{i}" for i in ids)

    def ordinary(self):
        return np.arange(WORDS)


def answer(prompts, examples):
    """(K, B, C) log-probabilities."""
    global calls
    calls += 1
    _log(prompts, examples)
    time.sleep(float(os.environ.get("TOYBOX_SLEEP", "0")))
    scores = np.array([_rows(prompt, examples) for prompt in prompts])
    return _spoil(scores, prompts, os.environ.get("TOYBOX_FAULT", ""))


answer.vocabulary = Vocabulary()


def mute(prompts, examples):
    """The same box without a vocabulary."""
    return answer(prompts, examples)


def key(prompt, text):
    """What the box of kind ``function`` calls this atom in the ledger."""
    return digest(f"function:{NAME}", *prompt.keys, *prompt.labels, repr(text).encode()).hex()


def _rows(prompt, examples):
    moves = [matrix.sum(axis=0, dtype=np.float64) for matrix in prompt.soft] or [np.zeros(HIDDEN)]
    moves = np.array(moves)
    tokens = [answer.vocabulary.embed(ids).sum(axis=0, dtype=np.float64) for ids in prompt.tokens]
    moves = moves + np.array(tokens) if any(prompt.tokens) else moves
    words = prompt.template.replace("{label}", "").replace("{text}", "")
    labels = np.array([_mean(label) for label in prompt.labels])
    texts = np.array([4 * _mean(text) for text in examples])
    if prompt.side == "label":
        labels = labels + moves + _mean(words)
    else:
        texts = texts + moves[0] + _mean(words)
    # Sums over the last axis alone: a row is the same in any company.
    logits = 3 * (np.tanh(texts)[:, None] * np.tanh(labels)[None]).sum(axis=-1)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def _mean(text):
    vocabulary = answer.vocabulary
    return vocabulary.embed(vocabulary.tokenise(text)).mean(axis=0, dtype=np.float64)


def _spoil(scores, prompts, fault):
    moved = [
        zlib.crc32(b"".join(m.tobytes() for m in p.soft) + repr(p.tokens).encode()) for p in prompts
    ]
    plain = [not any(p.tokens) and not any(matrix.any() for matrix in p.soft) for p in prompts]
    for k, number in enumerate(moved):
        if fault == "nan" and number % 3 == 0 and not plain[k]:
            scores[k, 0] = np.inf if number % 2 else np.nan
        if fault == "flaky" and number not in seen:
            seen.add(number)
            if len(seen) % 7 == 0:
                scores[k] = np.nan
    if calls > int(os.environ.get("TOYBOX_AFTER", "0")):
        if fault == "shape":
            return np.concatenate([scores, scores[..., :1]], axis=-1)
        if fault == "silent":
            scores[:] = np.nan
        if fault == "raise":
            raise RuntimeError("the toy broke")
    return scores


def _log(prompts, examples):
    path = os.environ.get("TOYBOX_LOG")
    if not path:
        return
    lines = "".join(f"{key(prompt, text)} {text}\n" for prompt in prompts for text in examples)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, lines.encode())
    os.close(file)
