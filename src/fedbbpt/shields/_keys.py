"""Keys and ciphers of the secure sum, all from the library ``cryptography``.

X25519 (RFC 7748) lets two sites agree on a key through the server, HKDF (RFC 5869) makes one key
per use of it, ChaCha20 (RFC 8439) makes a mask of a key, and with Poly1305 a sealed message.
"""

from __future__ import annotations

import hashlib
import importlib
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import MissingExtra, Refused

KEY_BYTES = 32
TAG_BYTES = 16


def public(key: bytes) -> bytes:
    """The public half of a private key, which is any 32 bytes."""
    made = _part("asymmetric.x25519").X25519PrivateKey.from_private_bytes(key)
    return bytes(made.public_key().public_bytes_raw())


def agreed(key: bytes, other: bytes, context: bytes, use: bytes) -> bytes:
    """A key that two sites have in common and nobody else has, for one use.

    Args:
        key: one's own private key.
        other: the other's public key.
        context: digest of all that must be the same for both (round, who is in it, ...).
        use: what it is for.

    Raises:
        Refused: the public key is one with which every agreement is known to all.
    """
    curve = _part("asymmetric.x25519")
    mine, theirs = (
        curve.X25519PrivateKey.from_private_bytes(key),
        curve.X25519PublicKey.from_public_bytes(other),
    )
    try:
        shared = mine.exchange(theirs)
    except ValueError:
        raise Refused(
            "a site sent a public key of low order, with which no key is secret"
        ) from None
    return derived(bytes(shared), context, use)


def derived(secret: bytes, context: bytes, use: bytes) -> bytes:
    """A key for one use of a secret."""
    sha256 = _part("hashes").SHA256()
    kdf = _part("kdf.hkdf").HKDF(sha256, KEY_BYTES, salt=context, info=b"fedbbpt mask 1 " + use)
    return bytes(kdf.derive(secret))


def keystream(key: bytes, count: int) -> Array:
    """(count,) uint64 from a key that makes nothing else."""
    ciphers = _part("ciphers")
    cipher = ciphers.Cipher(ciphers.algorithms.ChaCha20(key, bytes(16)), mode=None)
    return np.frombuffer(cipher.encryptor().update(bytes(8 * count)), "<u8").astype(np.uint64)


def seal(key: bytes, data: bytes) -> bytes:
    """Data that only who has the key can read, and nobody else can change, 16 bytes longer.

    Args:
        key: seals one message only, for which reason the nonce is always the same.
        data: bytes.
    """
    return bytes(_part("ciphers.aead").ChaCha20Poly1305(key).encrypt(bytes(12), data, None))


def unseal(key: bytes, sealed: bytes) -> bytes | None:
    """What was sealed, or nothing if it was changed or sealed for somebody else."""
    invalid = importlib.import_module("cryptography.exceptions").InvalidTag
    try:
        return bytes(_part("ciphers.aead").ChaCha20Poly1305(key).decrypt(bytes(12), sealed, None))
    except invalid:
        return None


def commitment(seed: bytes, context: bytes) -> bytes:
    """What a random seed can be held against later, and that does not tell it."""
    return hashlib.sha256(b"fedbbpt seed 1" + context + seed).digest()


def _part(name: str) -> Any:
    try:
        importlib.import_module("cryptography")
    except ModuleNotFoundError:
        raise MissingExtra("cryptography", "privacy") from None
    return importlib.import_module(f"cryptography.hazmat.primitives.{name}")
