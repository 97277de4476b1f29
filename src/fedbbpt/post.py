"""Letters: what a server and its nodes write each other, whatever carries them.

A letter is a head of JSON and a body of arrays (safetensors): text and numbers, nothing that could
run. What is in a reply is checked before anything is made of it, for a node may send anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

from safetensors import SafetensorError

from fedbbpt.arrays import Arrays, decode, encode
from fedbbpt.types import Job, Update, digest

Letter = dict[str, str | bytes]
"""``head``: JSON. ``body``: arrays. A job may have ``parts`` too: see :func:`ask`."""


class Arrived(NamedTuple):
    """What came back for a letter.

    Attributes:
        client: to whom it was written.
        number: of the sending.
        letter: the reply, or ``None`` where there will be none; ``lost`` says why.
    """

    client: str
    number: int
    letter: Letter | None
    lost: str = ""


class Post(Protocol):
    """Carries letters to nodes and back.

    Attributes:
        names: every node that may take part, here or not.
        agreed: the part of the config that they must have alike.
    """

    names: frozenset[str]
    agreed: Mapping[str, Any]

    def online(self) -> set[str]:
        """The nodes that are there now."""

    def send(self, number: int, letters: Mapping[str, Letter]) -> None:
        """Write to some nodes that are there."""

    def collect(self) -> list[Arrived]:
        """What has come since the last time, to whatever letters; never waits for more."""

    def pause(self) -> None:
        """Wait until it makes sense to look again."""

    def tell(self, notice: Mapping[str, Any]) -> None:
        """Show the server's people at once what happened to a node."""


@dataclass(frozen=True)
class Card:
    """What a node says of itself before it takes part.

    Attributes:
        client: its name.
        train, holdout, test: number of its examples for each.
        box: name of its model.
        pictures: its examples are images.
    """

    client: str
    train: int
    holdout: int
    test: int
    box: str
    pictures: bool = False


class Misread(ValueError):
    """A letter is not what it should be: one sentence that quotes nothing of it."""


def own_version() -> str:
    """What is installed here."""
    return version("fedbbpt")


# --- from the server -----------------------------------------------------------------------------


def invite(agreed: Mapping[str, Any]) -> Letter:
    """Ask for a card.

    Args:
        agreed: the part of the config that both sides must have alike.
    """
    return {"head": json.dumps({"kind": "join", "version": own_version(), "agreed": agreed})}


def ask(
    run: str,
    job: Job,
    client: str,
    *,
    shared: bool = False,
    parts: Arrays | None = None,
    state: str = "",
) -> Letter:
    """A job for one client.

    Args:
        run: name of the run.
        job: as for all; of its quotas the client reads its own.
        client: to whom.
        shared: what does not depend on examples is charged to all together.
        parts: what the client's parts have learned since they were made, if it may not have it.
        state: digest of what they have learned, empty if nothing.
    """
    head = {
        "kind": "job",
        "version": own_version(),
        "run": run,
        "phase": job.phase,
        "round": job.round,
        "steps": job.steps,
        "seed": job.seed,
        "quota": job.quotas.get(client),
        "shared": shared,
        "parts": state,
    }
    letter: Letter = {"head": json.dumps(head), "body": encode(job.arrays)}
    return letter if parts is None else {**letter, "parts": encode(parts)}


def asked(letter: Letter, client: str) -> tuple[str, Job]:
    """At the node: (run, job) as :func:`ask` wrote them.

    Raises:
        Misread: it is none.
    """
    head = read_head(letter, "job")
    quota = head["quota"]
    job = Job(
        str(head["phase"]),
        int(head["round"]),
        int(head["steps"]),
        int(head["seed"]),
        _arrays(letter),
        {} if quota is None else {client: int(quota)},
    )
    return str(head["run"]), job


# --- from a node ---------------------------------------------------------------------------------


def answer(run: str, phase: str, update: Update) -> Letter:
    """A client's update."""
    head = {
        "kind": "update",
        "run": run,
        "phase": phase,
        "client": update.client,
        "round": update.round,
        "weight": update.weight,
        "queries": update.queries,
        "dropped": update.dropped,
        "common": update.common,
        "paid": update.paid,
        "seconds": round(update.seconds, 3),
    }
    return {"head": json.dumps(head), "body": encode(update.arrays)}


def introduce(card: Card) -> Letter:
    """A card."""
    return {"head": json.dumps({"kind": "card", **asdict(card)})}


def decline(why: str) -> Letter:
    """No answer, and why: a sentence with nothing private in it."""
    return {"head": json.dumps({"kind": "none", "why": why})}


def answered(letter: Letter, run: str, job: Job, client: str) -> Update:
    """At the server: the update that a client sent for a job.

    Raises:
        Misread: it sent something else.
    """
    head = read_head(letter, "update")
    for name, mine in (("run", run), ("phase", job.phase), ("round", job.round)):
        if head.get(name) != mine:
            raise Misread(f"it answers {name} {_short(head.get(name))}, and this is {mine}")
    if head.get("client") != client:
        raise Misread(f"it answers in the name of {_short(head.get('client'))}")
    counts = [_count(head, name) for name in ("queries", "dropped", "common", "paid")]
    weight, seconds = (_number(head, name) for name in ("weight", "seconds"))
    queries, dropped, common, paid = counts
    return Update(
        client, job.round, weight, _arrays(letter), queries, dropped, seconds, common, paid
    )


def introduced(letter: Letter, client: str) -> Card:
    """At the server: a client's card.

    Raises:
        Misread: it sent something else.
    """
    head = read_head(letter, "card")
    if head.get("client") != client:
        raise Misread(f"it calls itself {_short(head.get('client'))}")
    train, holdout, test = (_count(head, name) for name in ("train", "holdout", "test"))
    pictures = head.get("pictures") is True
    return Card(client, train, holdout, test, str(head.get("box"))[:200], pictures)


def read_head(letter: Letter, kind: str) -> dict[str, Any]:
    """The head of a letter of this kind.

    Raises:
        Misread: it is another, or none; a reason that was given for it is repeated.
    """
    try:
        head = json.loads(letter["head"])
        said = head["kind"]
    except (KeyError, TypeError, ValueError):
        raise Misread("what it sent is no letter of fedbbpt") from None
    if said == "none":
        raise Misread(str(head.get("why"))[:500])
    if said != kind:
        raise Misread(f"it sent a letter of the kind {_short(said)}, not {kind}")
    return dict(head)


def mark(parts: Arrays | None) -> str:
    """A digest of what parts have learned."""
    return digest(encode(parts)).hex() if parts else ""


def _arrays(letter: Letter) -> Arrays:
    body = letter.get("body")
    try:
        return decode(body) if isinstance(body, bytes) else {}
    except SafetensorError:
        raise Misread("its arrays are not complete safetensors") from None


def _count(head: Mapping[str, Any], name: str) -> int:
    value = head.get(name)
    if type(value) is not int or value < 0:
        raise Misread(f"its {name} is {_short(value)}; it must be a whole number from 0")
    return value


def _number(head: Mapping[str, Any], name: str) -> float:
    value = head.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise Misread(f"its {name} is {_short(value)}; it must be a finite number")
    return float(value)


def _short(value: object) -> str:
    return repr(value)[:60]
