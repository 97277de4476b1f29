"""Random numbers that only a node can know, from a secret that never leaves it.

What hides a client's update must not come from the run's seed, which everyone knows, nor from one
of numpy's generators: those are made for simulation, so who sees some of their numbers (the noise
on a value that is known anyway) may work out the others. SHAKE-256 (FIPS 202) is made against
that. It is a sponge, so a secret in front of the message makes a sound keyed function of it.
"""

from __future__ import annotations

import hashlib
import math
from typing import Protocol

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError

SECRET_BYTES = 32

Size = tuple[int, ...] | int


class Draws(Protocol):
    """Where random numbers come from; ``numpy.random.Generator`` is one too, for simulations."""

    def bytes(self, length: int, /) -> bytes:
        """That many random bytes."""

    def random(self, size: Size, /) -> Array:
        """Uniform numbers in [0, 1)."""

    def standard_normal(self, size: Size, /) -> Array:
        """Normal numbers of mean 0 and variance 1."""


class SecretStream:
    """SHAKE-256 of a key and a counter, one call a block, with numpy's names for what it draws."""

    def __init__(self, key: bytes) -> None:
        self._key, self._block = key, 0

    def bytes(self, length: int, /) -> bytes:
        """The next bytes."""
        self._block += 1
        block = self._block.to_bytes(8, "big")
        return hashlib.shake_256(self._key + block).digest(length)

    def random(self, size: Size, /) -> Array:
        """Uniform odd multiples of 2**-53, float64; never 0 or 1."""
        count = math.prod(size) if isinstance(size, tuple) else size
        words = np.frombuffer(self.bytes(8 * count), "<u8") >> np.uint64(12)
        return np.asarray((words.astype(np.float64) + 0.5) * 2.0**-52).reshape(size)

    def standard_normal(self, size: Size, /) -> Array:
        """By the inverse of the distribution function; never further out than 8.3."""
        from scipy.special import ndtri

        return np.asarray(ndtri(self.random(size)))


def secret_stream(secret: bytes, round: int, purpose: str, content: bytes = b"") -> SecretStream:
    """The numbers at an address, for those who know the secret.

    The same address gives the same numbers again, so a task that is executed twice sends the same
    update twice.

    Args:
        secret: 32 bytes that a node makes anew for each run (``secrets.token_bytes(32)``), keeps
            beside its ledger and never sends. A secret that served two runs would give both the
            same noise.
        round: round number.
        purpose: what the numbers are for; streams of two purposes have nothing in common.
        content: what they are to hide. Two different updates must not get the same noise, or
            their difference is bare; so noise depends on the update too, as a signature's nonce
            depends on the message (RFC 6979).

    Raises:
        ConfigError: the secret has another length.
    """
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            f"a node's secret has {len(secret)} bytes; it must have {SECRET_BYTES} random ones"
        )
    h = hashlib.shake_256(b"fedbbpt secret stream 1")
    for part in (secret, round.to_bytes(8, "big"), purpose.encode(), content):
        h.update(len(part).to_bytes(8, "big"))
        h.update(part)
    return SecretStream(h.digest(64))
