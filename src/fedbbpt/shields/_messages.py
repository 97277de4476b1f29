"""What the sites and the server of a secure sum send each other, and how it is checked.

A message is a dict of arrays, as every update is; messages of a phase are kept by the name of
their sender.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import Refused
from fedbbpt.maths.shamir import SHARE_BYTES
from fedbbpt.shielding import Messages
from fedbbpt.shields._keys import KEY_BYTES, TAG_BYTES

SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES


class Roster(NamedTuple):
    """Who is in a secure sum, the same for all of them.

    Attributes:
        names: sorted; the i-th has share i + 1.
        share_keys, mask_keys: public keys in that order: for sealing shares, for masks.
        threshold: how many must stay to the end.
        context: digest of all this and of the round. Every derived key depends on it, so that
            sites which were told different things have no key in common.
    """

    names: tuple[str, ...]
    share_keys: tuple[bytes, ...]
    mask_keys: tuple[bytes, ...]
    threshold: int
    context: bytes


def gathered(messages: Iterable[tuple[str, Arrays]], known: Iterable[str]) -> dict[str, Arrays]:
    """Messages by sender, each from somebody known and only one from each.

    Raises:
        Refused: a sender is unknown, or sent two.
    """
    expected, kept = set(known), dict[str, Arrays]()
    for sender, message in messages:
        if sender not in expected:
            raise Refused(f"{sender} sent a message, but takes no part in this phase")
        if sender in kept:
            raise Refused(f"{sender} sent two messages in one phase; the round is not safe")
        kept[sender] = message
    return kept


def roster(adverts: Messages, threshold: int, round: int) -> Roster:
    """Who takes part, from what all have advertised.

    Raises:
        Refused: too few, a threshold that two halves could both reach, a message of another
            form, or a key that comes twice.
    """
    names = tuple(sorted(adverts))
    enough(names, threshold, "advertised keys")
    if 2 * threshold <= len(names):
        raise Refused(
            f"the threshold is {threshold} of {len(names)} sites; it must be above half of them, "
            "or two groups of sites could be asked for different shares"
        )
    share, mask = (
        tuple(raw(adverts[name], field, (KEY_BYTES,), name) for name in names)
        for field in ("share_key", "mask_key")
    )
    if len({*share, *mask}) < 2 * len(names):
        raise Refused("a public key comes twice among the sites' keys, so somebody copied another")
    h = hashlib.sha256(f"fedbbpt secure sum 1, round {round}, {threshold} of:".encode())
    for name, one, other in zip(names, share, mask, strict=True):
        h.update(len(name.encode()).to_bytes(8, "big") + name.encode() + one + other)
    return Roster(names, share, mask, threshold, h.digest())


def among(known: Roster, senders: tuple[str, ...]) -> Roster:
    """The roster with a context that also says whose shares have come.

    Masks depend on it: a site asked twice for its words, with and without a third site's shares,
    would else show its mask with that site.
    """
    h = hashlib.sha256(known.context)
    for name in senders:
        h.update(known.names.index(name).to_bytes(8, "big"))
    return known._replace(context=h.digest())


def enough(names: Sequence[str], threshold: int, did: str) -> None:
    """Pass if there are as many sites as the threshold asks for.

    Raises:
        Refused: there are fewer.
    """
    if len(names) < threshold:
        raise Refused(f"{len(names)} sites {did}; a secure sum needs {threshold}")


def part(names: Iterable[str], whole: Sequence[str], what: str) -> tuple[str, ...]:
    """Names in order, if they are a part of the whole.

    Raises:
        Refused: one comes twice or is not among the whole.
    """
    ordered = tuple(sorted(names))
    strange = sorted(set(ordered) - set(whole))
    if strange:
        raise Refused(f"{', '.join(strange)} {what}, but did not take the step before")
    if len(set(ordered)) < len(ordered):
        raise Refused(f"a site comes twice among those that {what}")
    return ordered


def raw(message: Arrays, field: str, shape: tuple[int, ...], sender: str) -> bytes:
    """The bytes of a field.

    Raises:
        Refused: it is not there, or of another shape or type.
    """
    return array(message, field, shape, np.uint8, sender).tobytes()


def array(
    message: Arrays, field: str, shape: tuple[int, ...], kind: type[Any], sender: str
) -> Array:
    """A field of a message; raises as :func:`raw`."""
    found = message.get(field)
    if found is None:
        raise Refused(f"{sender} sent a message without {field}")
    if found.shape != shape or found.dtype != kind:
        raise Refused(
            f"{field} of {sender} is {found.dtype} of shape {found.shape}; it must be "
            f"{np.dtype(kind)} of shape {shape}"
        )
    return found


def octets(data: bytes) -> Array:
    """Bytes as an array."""
    return np.frombuffer(data, np.uint8)
