"""The server's side of a pairwise-masked secure sum: what masks are left over, and the sum."""

from __future__ import annotations

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import Refused
from fedbbpt.maths import shamir
from fedbbpt.shielding import Messages
from fedbbpt.shields._keys import KEY_BYTES, commitment, public
from fedbbpt.shields._masking import between, own
from fedbbpt.shields._messages import Roster, among, array, enough, part, raw


def total(known: Roster, shares: Messages, covered: Messages, answers: Messages) -> Array:
    """(n,) uint64: the sum of the words of all sites that sent theirs.

    Args:
        known: who advertised keys.
        shares: of those who shared them.
        covered: ``words`` of those who sent them.
        answers: of those who were still there in the end.

    Raises:
        Refused: too few in any phase, a message of another form, or shares that do not give what
            their owner committed itself to.
    """
    senders = part(shares, known.names, "shared keys")
    summed = part(covered, senders, "sent words")
    there = part(answers, summed, "answered")
    for names, did in ((senders, "shared keys"), (summed, "sent words"), (there, "answered")):
        enough(names, known.threshold, did)
    size = np.asarray(covered[summed[0]].get("words", ())).shape
    result = np.zeros(size, np.uint64)
    for name in summed:
        result = result + array(covered[name], "words", size, np.uint64, name)
    masks = among(known, senders)
    rows = _rows(known, senders, {name: answers[name] for name in there})
    for at, name in enumerate(senders):
        secret = shamir.join({number: row[at] for number, row in rows.items()})
        if name in summed:
            seed = _seed(known, name, secret, shares)
            result = result - own(seed, masks, result.size)
            continue
        key = _mask_key(known, name, secret)
        for other in summed:
            # What is left in the sum is what the other added for it.
            result = result + between(key, name, other, masks, result.size)
    return result


def _rows(known: Roster, senders: tuple[str, ...], answers: Messages) -> dict[int, list[int]]:
    """As many answers as it takes, by the number of the share, one share for each sender."""
    rows = {}
    for name in sorted(answers)[: known.threshold]:
        shape = (len(senders), shamir.SHARE_BYTES)
        came = array(answers[name], "shares", shape, np.uint8, name)
        row = [int.from_bytes(line.tobytes(), "big") for line in came]
        if max(row) >= shamir.PRIME:
            raise Refused(f"{name} sent a share that is none: it is not below 2**521 - 1")
        rows[known.names.index(name) + 1] = row
    return rows


def _seed(known: Roster, name: str, secret: int, shares: Messages) -> bytes:
    promised = raw(shares[name], "commitment", (KEY_BYTES,), name)
    if secret < 2 ** (8 * KEY_BYTES):
        seed = secret.to_bytes(KEY_BYTES, "big")
        if commitment(seed, known.context) == promised:
            return seed
    raise Refused(f"the shares of the seed of {name} do not fit together: a site sent a wrong one")


def _mask_key(known: Roster, name: str, secret: int) -> bytes:
    if secret < 2 ** (8 * KEY_BYTES):
        key = secret.to_bytes(KEY_BYTES, "big")
        if public(key) == known.mask_keys[known.names.index(name)]:
            return key
    raise Refused(f"the shares of the key of {name} do not fit together: a site sent a wrong one")
