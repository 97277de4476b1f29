"""Where the candidates of a discrete prompt come from when a corpus has to say: before it is made.

``prompt.vocabulary = "public"`` reads a public corpus. ``"clients"`` asks the clients, in a phase
of two exchanges and no query, for n-grams that at least ``prompt.min_clients`` of them hold:

1. each client sends keyed hashes of its n-grams, how often it holds each, and its number of words;
2. the server names the hashes that enough clients sent, and clients send the text of those alone.

So the server never sees a text that fewer clients hold: nobody's rare name gets out by *accident*.
It is no protection from a malicious server. The key is the run's seed, which the server knows, so
it can hash words that it guesses and look for them (a dictionary attack), and see who holds them
and how often; it can also claim a quorum that there is not. A salt that the clients share and keep
from the server would stop the guessing; sharing one is not done here.

n-grams are counted and ranked in :mod:`fedbbpt.data.vocabulary`, PMI from the sums over all
clients of what reached the quorum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt import registry
from fedbbpt.arrays import Array, Arrays, wire_bytes
from fedbbpt.black_box import BlackBox
from fedbbpt.budget import Budget
from fedbbpt.config import Config
from fedbbpt.data.vocabulary import candidates, hashed, ngrams, quorum, ranked, told, words_in
from fedbbpt.errors import ConfigError, DataError
from fedbbpt.parts import Client, Door, Parts, Phase
from fedbbpt.protocols import Engine
from fedbbpt.sharing import read_table
from fedbbpt.types import Batch, Job, Update

SALT = "n-gram"
WIDTH = 16
"""Bytes of a hash."""


@dataclass(frozen=True)
class Gathered:
    """What was found for a prompt.

    Attributes:
        words: words and n-grams, best first; ``None`` where the prompt looks for its own.
        phases: those that clients were asked in, by name.
        reports: for each client asked its name, the number of hashes and of n-grams that it sent,
            and the bytes they took.
    """

    words: tuple[str, ...] | None = None
    phases: Mapping[str, Phase] = field(default_factory=dict)
    reports: tuple[dict[str, Any], ...] = ()


def gather(config: Config, train: Mapping[str, Batch]) -> Gathered:
    """The candidates that ``prompt.vocabulary`` asks for.

    Args:
        config: its ``prompt`` table says what.
        train: training examples of the clients, by name.

    Raises:
        ConfigError: keys that do not go together, or a quorum that the clients cannot reach.
        DataError: the public corpus cannot be read.
    """
    table, named = config.prompt, config.prompt.options.get("words")
    kind = table.vocabulary
    if bool(table.public) != (kind == "public"):
        raise ConfigError(
            f"prompt.vocabulary is '{kind}' and prompt.public '{table.public}'; "
            "'public' and a corpus need each other"
        )
    if kind == "file" and not named:
        raise ConfigError("prompt.vocabulary = 'file' needs prompt.words, a file or a list")
    if named and kind not in ("auto", "file"):
        raise ConfigError(f"prompt.words has no use where prompt.vocabulary is '{kind}'")
    if kind == "public":
        return Gathered(tuple(candidates(_corpus(config))))
    if kind != "clients":
        return Gathered()
    if table.min_clients > len(train):
        raise ConfigError(
            f"prompt.min_clients is {table.min_clients}, but there are only {len(train)} clients"
        )
    return _ask(_engine(config, train), list(train), config.run.seed, table.min_clients)


def _corpus(config: Config) -> tuple[str, ...]:
    """The lines of a text file, or the texts of a table like the training file."""
    path = config.prompt.public
    if not path.lower().endswith(".txt"):
        return _texts(path, read_table(config, path).inputs)
    try:
        return tuple(Path(path).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"prompt.public '{path}' cannot be read: {error}") from error


def _texts(path: str, inputs: tuple[Any, ...]) -> tuple[str, ...]:
    if not all(isinstance(input, str) for input in inputs):
        raise ConfigError(f"prompt.public '{path}' holds images; name a file of texts")
    return inputs


# --- at the client -------------------------------------------------------------------------------


def vocabulary(parts: Parts, client: Client, job: Job, box: BlackBox) -> tuple[Arrays, float]:
    """Without ``wanted``: hashes (n, 16), counts (n,) and the number of words. With it: the text of
    those n-grams among the wanted hashes that this client holds.
    """
    counts = ngrams(text for text in client.train.inputs if isinstance(text, str))
    mine = hashed(told(counts), job.seed, SALT)
    weight = float(client.train.size)
    if "wanted" in job.arrays:
        held = [mine[key] for key in _keys(job.arrays["wanted"]) if key in mine]
        return {"ngrams": np.frombuffer("\n".join(held).encode(), np.uint8)}, weight
    # In the order of the hashes, which says nothing about the texts.
    keys = sorted(mine)
    return {
        "hashes": _rows(keys),
        "counts": np.array([counts[mine[key]] for key in keys], np.int64),
        "words": np.array(words_in(counts), np.int64),
    }, weight


VOCABULARY = Phase(
    "vocabulary", "train", lambda _: ("hashes", "counts", "words", "ngrams"), vocabulary
)


# --- at the server -------------------------------------------------------------------------------


def _ask(engine: Engine, clients: list[str], seed: int, least: int) -> Gathered:
    job = Job(VOCABULARY.name, 0, 1, seed)
    hashes = engine.map(job, clients)
    wanted = quorum((_keys(update.arrays["hashes"]) for update in hashes), least)
    job = Job(VOCABULARY.name, 0, 1, seed, {"wanted": _rows(wanted)})
    texts = engine.map(job, clients) if wanted else []
    counts: Counter[bytes] = Counter()
    for update in hashes:
        keys = _keys(update.arrays["hashes"])
        counts.update(dict(zip(keys, update.arrays["counts"].tolist(), strict=True)))
    sent = {update.client: _lines(update) for update in texts}
    known = hashed((gram for grams in sent.values() for gram in grams), seed, SALT)
    total = sum(int(update.arrays["words"]) for update in hashes)
    words = ranked({known[key]: counts[key] for key in wanted if key in known}, total)
    up = Counter({update.client: wire_bytes(update.arrays) for update in hashes})
    up.update({update.client: wire_bytes(update.arrays) for update in texts})
    reports = (
        {
            "client": update.client,
            "hashed": len(update.arrays["hashes"]),
            "sent": len(sent.get(update.client, ())),
            "bytes_up": up[update.client],
        }
        for update in hashes
    )
    return Gathered(tuple(words), {VOCABULARY.name: VOCABULARY}, tuple(reports))


def _engine(config: Config, train: Mapping[str, Batch]) -> Engine:
    """An engine for this one phase, which needs examples alone: no box, no part is made yet."""
    nothing: Any = None
    empty = Batch((), np.zeros(0, np.int64))

    def door(name: str) -> Door:
        return Door(nothing, Budget(0).open(VOCABULARY.purse, name))

    def client(name: str) -> Client:
        return Client(name, train[name], empty, empty, lambda job, phase: door(name))

    phases = {VOCABULARY.name: VOCABULARY}
    engine: Engine = registry.make(
        "engines",
        config.engine.kind,
        config.engine.options,
        "engine",
        parts=Parts(nothing, nothing, nothing, nothing, "distinct", "state", phases),
        clients={name: client(name) for name in train},
        federation=lambda job, phase: door(""),
    )
    return engine


# --- on the wire ---------------------------------------------------------------------------------


def _rows(keys: list[bytes]) -> Array:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, WIDTH)


def _keys(rows: Array) -> list[bytes]:
    return [row.tobytes() for row in rows]


def _lines(update: Update) -> list[str]:
    return update.arrays["ngrams"].tobytes().decode().splitlines()
