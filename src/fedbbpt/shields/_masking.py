"""The client's side of a pairwise-masked secure sum (Bonawitz et al., CCS 2017, figure 4).

Every two sites agree on a mask, which one adds and the other subtracts, so that all of them go in
the sum. Each site adds one more mask of its own, which keeps a late message, taken for lost, from
being bare. Shares of both secrets wait at the other sites: in the end the server is told the own
mask of each site that is in the sum, and the pairwise key of each that is not, never both.

    advertise   two public keys
    share       sealed shares of the mask key and of the own mask's seed, one for each site
    cover       words plus masks
    answer      for each site one of its two shares

All are functions of what they are given; what is random comes from the node's secret. What a node
must remember for a round are the words that it sent and what it answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import Refused
from fedbbpt.maths import shamir
from fedbbpt.maths.secret import secret_stream
from fedbbpt.shielding import Messages, Seat
from fedbbpt.shields._keys import (
    KEY_BYTES,
    agreed,
    commitment,
    derived,
    keystream,
    public,
    seal,
    unseal,
)
from fedbbpt.shields._messages import (
    SEALED_BYTES,
    Roster,
    among,
    array,
    enough,
    octets,
    part,
    roster,
)


class Agreement(NamedTuple):
    """What a client knows when it masks its words.

    Attributes:
        seat: its own.
        roster: who took part in the agreement; its context is that of masks.
        senders: those whose shares have come; the others are out of the round.
        mask_key, seed: its two secrets.
        held: its shares of the secrets of each sender: of the mask key, of the seed.
    """

    seat: Seat
    roster: Roster
    senders: tuple[str, ...]
    mask_key: bytes
    seed: bytes
    held: Mapping[str, tuple[int, int]]


def advertise(seat: Seat) -> Arrays:
    """``share_key`` and ``mask_key``, (32,) uint8 each: public keys for this round."""
    share, mask = _private(seat)
    return {"share_key": octets(public(share)), "mask_key": octets(public(mask))}


def share(seat: Seat, adverts: Messages, threshold: int) -> Arrays:
    """``sealed`` (n, 148) uint8, row i for the i-th site by name, its own row empty, and
    ``commitment`` (32,), which the seed of its own mask can be held against.

    Raises:
        Refused: as :func:`._messages.roster`, or its own advert came back changed.
    """
    known = _known(seat, adverts, threshold)
    key, _ = _private(seat)
    seed, shares = _split(seat, known)
    rows = []
    for at, name in enumerate(known.names):
        plain = b"".join(value.to_bytes(shamir.SHARE_BYTES, "big") for value in shares[at])
        if name == seat.name:
            rows.append(bytes(SEALED_BYTES))
        else:
            use = _use(b"share", seat.name, name)
            rows.append(seal(agreed(key, known.share_keys[at], known.context, use), plain))
    sealed = octets(b"".join(rows)).reshape(len(rows), SEALED_BYTES)
    return {"sealed": sealed, "commitment": octets(commitment(seed, known.context))}


def agreement(seat: Seat, adverts: Messages, shares: Messages, threshold: int) -> Agreement:
    """What the client then knows.

    Args:
        seat: its own.
        adverts, shares: the messages of all, its own among them.
        threshold: as in the run's config.

    Raises:
        Refused: too few, or a share for it is not what its sender sealed.
    """
    known = _known(seat, adverts, threshold)
    senders = part(shares, known.names, "shared keys")
    enough(senders, threshold, "shared keys")
    if seat.name not in senders:
        raise Refused(f"the shares of {seat.name} are not among those that came back")
    key, mask_key = _private(seat)
    seed, mine = _split(seat, known)
    me, held = known.names.index(seat.name), dict[str, tuple[int, int]]()
    for name in senders:
        sealed = array(shares[name], "sealed", (len(known.names), SEALED_BYTES), np.uint8, name)
        if name == seat.name:
            held[name] = mine[me]
            continue
        use = _use(b"share", name, seat.name)
        other = known.share_keys[known.names.index(name)]
        plain = unseal(agreed(key, other, known.context, use), sealed[me].tobytes())
        if plain is None:
            raise Refused(f"the share of {name} for {seat.name} was changed on its way")
        first, second = plain[: shamir.SHARE_BYTES], plain[shamir.SHARE_BYTES :]
        held[name] = int.from_bytes(first, "big"), int.from_bytes(second, "big")
    return Agreement(seat, among(known, senders), senders, mask_key, seed, held)


def cover(known: Agreement, words: Array) -> Array:
    """(n,) uint64: the words plus all masks, modulo 2**64; uniform to whoever lacks the keys.

    Other words in the same round would give their difference away: a client sends the ones that
    it has stored.
    """
    total = words + own(known.seed, known.roster, words.size)
    for name in known.senders:
        if name != known.seat.name:
            total = total + between(known.mask_key, known.seat.name, name, known.roster, words.size)
    return total


def own(seed: bytes, known: Roster, count: int) -> Array:
    """(count,) uint64: the mask of a site's own."""
    return keystream(derived(seed, known.context, b"own"), count)


def between(key: bytes, name: str, other: str, known: Roster, count: int) -> Array:
    """(count,) uint64: the mask that ``name``, who has the private key, adds for another. What the
    other adds is its negative.
    """
    theirs = known.mask_keys[known.names.index(other)]
    use = _use(b"mask", *sorted((name, other)))
    stream = keystream(agreed(key, theirs, known.context, use), count)
    return stream if name < other else np.uint64(0) - stream


def answer(
    known: Agreement, summed: Iterable[str], answered: Iterable[str] | None = None
) -> Arrays:
    """``shares`` (senders, 66) uint8: for each sender by name, of its seed if its words are in the
    sum, else of its mask key.

    Args:
        known: what the client knew when it masked.
        summed: those whose words the server says to have.
        answered: what it was told when it last answered in this round, if it did: with both
            shares of a site its words would be bare, so it answers only the same again.

    Raises:
        Refused: too few or unknown sites, itself not among them, or another answer is asked.
    """
    names = part(summed, known.senders, "are in the sum")
    enough(names, known.roster.threshold, "are in the sum")
    if known.seat.name not in names:
        raise Refused(f"the words of {known.seat.name} are not in the sum that it is to unmask")
    if answered is not None and tuple(sorted(answered)) != names:
        raise Refused(
            f"{known.seat.name} has answered for a sum over {', '.join(sorted(answered))}; it "
            f"does not answer in the same round for one over {', '.join(names)}"
        )
    rows = [known.held[name][name in names] for name in known.senders]
    data = b"".join(value.to_bytes(shamir.SHARE_BYTES, "big") for value in rows)
    return {"shares": octets(data).reshape(len(rows), shamir.SHARE_BYTES)}


def _private(seat: Seat) -> tuple[bytes, bytes]:
    draws = secret_stream(seat.secret, seat.round, "mask keys", seat.name.encode())
    return draws.bytes(KEY_BYTES), draws.bytes(KEY_BYTES)


def _known(seat: Seat, adverts: Messages, threshold: int) -> Roster:
    known, sent = roster(adverts, threshold, seat.round), advertise(seat)
    came = adverts.get(seat.name, {})
    if not all(np.array_equal(came.get(field, ()), sent[field]) for field in sent):
        raise Refused(f"the keys of {seat.name} came back changed, or did not come back")
    return known


def _split(seat: Seat, known: Roster) -> tuple[bytes, list[tuple[int, int]]]:
    """The seed, and each site's shares of the mask key and of the seed."""
    draws = secret_stream(seat.secret, seat.round, "mask shares", known.context)
    seed = draws.bytes(KEY_BYTES)
    _, mask_key = _private(seat)
    of = (known.threshold, len(known.names), draws.bytes)
    keys, seeds = (shamir.split(int.from_bytes(secret, "big"), *of) for secret in (mask_key, seed))
    return seed, list(zip(keys, seeds, strict=True))


def _use(what: bytes, *names: str) -> bytes:
    """What a key is for; lengths are in it, so that names cannot run into each other."""
    parts = [name.encode() for name in names]
    return what + b"".join(len(name).to_bytes(8, "big") + name for name in parts)
