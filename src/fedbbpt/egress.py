"""What leaves a site: said before it joins, and kept to the byte when it has left."""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from fedbbpt.arrays import Array
from fedbbpt.build import Federation
from fedbbpt.config import Config
from fedbbpt.egress_words import ALL, BESIDES, FOR, JOINING, MEANING, NEVER, STATE, WORDS
from fedbbpt.guard import passed
from fedbbpt.parts import Phase
from fedbbpt.secure import SHAPE, summing
from fedbbpt.shielding import called
from fedbbpt.trial import Message, messages

WIDTH = 98


class Field(NamedTuple):
    """An array that leaves; its shape, its type and what it says."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    meaning: str


class Row(NamedTuple):
    """A kind of message.

    Attributes:
        phase: as in the logs.
        purpose, times: what it is for, and how often it is sent.
        fields: what it holds; nothing where a shield keeps the phase silent.
        bytes: of one such message, at most, without the envelope of what carries it.
        shields: names of those that it passes through.
    """

    phase: str
    purpose: str
    times: str
    fields: tuple[Field, ...]
    bytes: int
    shields: tuple[str, ...]


class Statement(NamedTuple):
    """All that leaves a site in a run.

    Attributes:
        title: what is run.
        rows: kinds of messages, in their order.
        shields: a sentence on each.
        besides: what goes with each of them; ``joining``: what is sent once, before the first.
        never: what does not leave.
    """

    title: str
    rows: tuple[Row, ...]
    shields: tuple[str, ...]
    besides: tuple[str, ...]
    joining: str
    never: tuple[str, ...]

    def text(self) -> str:
        """For a terminal and for paper: under 100 columns, nothing but text."""
        lines = ["EGRESS STATEMENT", *textwrap.wrap(self.title, WIDTH), ""]
        for row in self.rows:
            lines += [*_shown(row), ""]
        for what, items in (
            ("Shields", self.shields),
            ("With each of these messages", self.besides),
            ("Once, on joining", (self.joining,)),
            ("Never", self.never),
        ):
            if items:
                lines += [what, *(line for one in items for line in _item(f"- {one}", 2)), ""]
        return "\n".join(lines)


def statement(federation: Federation, config: Config) -> Statement:
    """What will leave a site, from the phases' own work on stand-ins (:mod:`fedbbpt.trial`).

    Args:
        federation: as the site builds it; its model is asked nothing.
        config: of the site.

    Raises:
        FedbbptError: what a run would refuse in its first round.
    """
    rows = tuple(_row(federation, config, message) for message in messages(federation))
    title = (
        f"What leaves this site in a run of {config.method.name} on {federation.box.name}, task "
        f"{config.task}, by fedbbpt {version('fedbbpt')}. Sizes are the most that a message can "
        "have, without the envelope of what carries it."
    )
    shields = tuple(shield.describe() for shield in federation.parts.shields)
    return Statement(title, rows, shields, BESIDES, JOINING, NEVER)


# --- one row -------------------------------------------------------------------------------------


def _row(federation: Federation, config: Config, message: Message) -> Row:
    name = message.phase
    phase, base = federation.parts.phases[name], name.removesuffix(ALL)
    known = _numbers(federation, config)
    purpose = FOR.get(base, f"{name.replace('_', ' ')}, for the method {config.method.name}")
    fields = tuple(
        Field(field, array.shape, str(array.dtype), _meaning(federation, base, field, array, known))
        for field, array in message.arrays.items()
    )
    times = _times(federation, config, phase)
    shields = tuple(called(shield) for shield in passed(federation.parts, phase))
    return Row(name, purpose.format(**known), times, fields, message.bytes, shields)


def _numbers(federation: Federation, config: Config) -> dict[str, str]:
    """How many examples stand behind the fields, of the site that has fewest."""

    def fewest(kind: str, what: str) -> str:
        sizes = [getattr(federation.split, kind)[name].size for name in federation.holders(kind)]
        return f"{min(sizes, default=0)} {what}" + " or more" * (len(set(sizes)) > 1)

    train, batch = fewest("train", "examples"), federation.parts.batch
    return {
        "train": train,
        "batch": f"{batch} examples at most" if batch else train,
        "holdout": fewest("holdout", "held-back examples"),
        "test": fewest("test", "test examples"),
        "quorum": str(config.prompt.min_clients),
    }


def _meaning(
    federation: Federation, base: str, field: str, array: Array, known: dict[str, str]
) -> str:
    if field == "words" and summing(federation.parts.shields):
        return WORDS
    if field.startswith(SHAPE):
        return "how it is laid out in there"
    state = base == "search" and field in federation.parts.optimizer.state._fields
    field = field.partition(".")[0]  # a shield marks what it has made of one behind a dot
    return MEANING.get((base, field), STATE if state else "").format(
        **known, rows=sum(array.shape[:1])
    )


def _times(federation: Federation, config: Config, phase: Phase) -> str:
    kept, writing = config.method.snapshots, federation.parts.prompt.writing
    again = writing.again if writing is not None else 0
    name = phase.name
    if name in ("setup", "propose"):
        return "before the search" + f", and up to {again} times during it" * bool(again)
    if name == "look":
        return f"during the search, up to {config.stop.looks} times"
    if name == "search":
        return f"in each round in which it is asked, up to {config.rounds.max:,} times"
    if name in ("advertise", "share", "answer"):
        return "with every message behind the shield mask"
    if name in ("count", "sharpen", "learn"):
        steps = "; for each several times" if name == "learn" else ""
        return f"at the start and for each prompt that is kept, up to {kept + 3} times{steps}"
    if name.endswith(ALL) and federation.baseline is None:
        return "after the choice, for each prompt that was kept"
    if phase.purse == "train" and federation.baseline is not None:
        return "while the method is fitted"
    return "once, after the search"


# --- as text -------------------------------------------------------------------------------------


def _shown(row: Row) -> Iterator[str]:
    yield f"{row.phase}: {row.purpose}"
    if not row.fields:
        yield "  nothing leaves: a shield promises what it cannot keep here"
        return
    behind = f"; behind {', '.join(row.shields)}" if row.shields else ""
    yield from _item(f"{row.times}; {_size(row.bytes)} at most{behind}", 2)
    names = max(len(field.name) for field in row.fields)
    shapes = max(len(_shape(field.shape)) for field in row.fields)
    for field in row.fields:
        head = f"{field.name:<{names}}  {_shape(field.shape):<{shapes}}  {field.dtype:<7}"
        yield from _item(f"{head}  {field.meaning}".rstrip(), 4, len(head) + 6)


def _item(text: str, indent: int, hanging: int = 0) -> list[str]:
    first, rest = " " * indent, " " * (hanging or indent + 2)
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, drop_whitespace=True
    )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one"


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count:,} bytes"
    return f"{count / 1e3:,.1f} kB" if count < 1e7 else f"{count / 1e6:,.1f} MB"


# --- what has left -------------------------------------------------------------------------------

LOG, SENT = "egress.jsonl", "sent"


class EgressLog:
    """What has left a node, to the byte: a line for each message, and its bytes in a file.

    Written before a message is sent, the file before its line, both on disk when :meth:`write`
    returns. So what left is in the log, whenever the node was killed; what is in the log may have
    been lost on the way, and a file without a line never left. A task that runs again adds nothing.

    ``egress.jsonl`` has one JSON object a line: time (UTC), phase, round, bytes, sha256 and file,
    which is ``sent/NUMBER-PHASE-ROUND.letter``. One process writes at a time.

    Args:
        folder: where; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, phase: str, round: int, data: bytes, now: datetime | None = None) -> Path:
        """Keep a message; returns the file with its bytes.

        Args:
            phase, round: of the job that it answers.
            data: the very bytes that leave.
            now: the time; the clock's if absent.
        """
        digest = hashlib.sha256(data).hexdigest()
        lines, whole = self._kept()
        for line in lines:
            if (line["phase"], line["round"], line["sha256"]) == (phase, round, digest):
                return self.folder / str(line["file"])
        name = f"{SENT}/{len(lines) + 1:06d}-{quote(phase, safe='')}-{round}.letter"
        file = self.folder / name
        _durably(file, data)
        line = {
            "time": (now or datetime.now(UTC)).isoformat(timespec="milliseconds"),
            "phase": phase,
            "round": round,
            "bytes": len(data),
            "sha256": digest,
            "file": name,
        }
        with (self.folder / LOG).open("ab") as log:
            # What a kill left of a line says nothing.
            log.truncate(whole)
            log.write(json.dumps(line).encode() + b"\n")
            log.flush()
            os.fsync(log.fileno())
        _settle(self.folder)
        return file

    def read(self) -> list[dict[str, Any]]:
        """Every line."""
        return self._kept()[0]

    def _kept(self) -> tuple[list[dict[str, Any]], int]:
        """Every whole line, and their bytes."""
        path = self.folder / LOG
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        return [json.loads(line) for line in data[:whole].splitlines()], whole


def _durably(file: Path, data: bytes) -> None:
    """Write a file, whole or not at all, and on disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".new")
    with partial.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    partial.replace(file)
    _settle(file.parent)


def _settle(folder: Path) -> None:
    """Put on disk which files a folder has."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
