"""Keys and certificates as the library ``cryptography`` makes them, and how they lie on disk.

Keys are of the curve P-384, which Flower wants of nodes. A private key is written once, whole or
not at all, and can be read by its owner alone.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fedbbpt.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import PrivateFormat


class Signer(NamedTuple):
    """Who vouches: an authority's key and its certificate."""

    key: EllipticCurvePrivateKey
    cert: x509.Certificate


def check_library() -> None:
    """Refuse to begin what could not be ended.

    Raises:
        MissingExtra: cryptography is not installed.
    """
    try:
        import_module("cryptography.x509")
    except ImportError:
        raise MissingExtra("cryptography", "flower") from None


# --- certificates --------------------------------------------------------------------------------


def authority(key: EllipticCurvePrivateKey, begin: datetime, end: datetime) -> x509.Certificate:
    """A certificate that vouches for itself and signs no other authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA384

    # A name of its own, so that one authority is never taken for another.
    name = _called(f"fedbbpt authority {os.urandom(8).hex()}")
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _begun(name, name, key, begin, end)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(own, critical=False)
        .sign(key, SHA384())
    )


def leaf(
    signer: Signer,
    key: EllipticCurvePrivateKey,
    hosts: Sequence[str],
    begin: datetime,
    end: datetime,
) -> x509.Certificate:
    """A certificate for a server that is reached by these hosts."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA384

    names = x509.SubjectAlternativeName([_general(host) for host in hosts])
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    use = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        _begun(_called(hosts[0][:64]), signer.cert.subject, key, begin, end)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(use, critical=False)
        .add_extension(names, critical=False)
        .add_extension(own, critical=False)
        .add_extension(above, critical=False)
        .sign(signer.key, SHA384())
    )


def hosts_of(cert: x509.Certificate) -> list[str]:
    """The addresses and names that a certificate is for."""
    from cryptography import x509

    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def issued(signer: Signer, cert: x509.Certificate) -> bool:
    """Whether this very authority has signed a certificate."""
    from cryptography.exceptions import InvalidSignature

    try:
        cert.verify_directly_issued_by(signer.cert)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _begun(
    name: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePrivateKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    from cryptography import x509

    return x509.CertificateBuilder(
        subject_name=name,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=begin,
        not_valid_after=end,
    )


def _called(name: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])


def _general(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


# --- on disk -------------------------------------------------------------------------------------


def key_at(file: Path, made: list[Path]) -> EllipticCurvePrivateKey:
    """The private key of a file (PEM), made if it is not there.

    Raises:
        ConfigError: it is no such key.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import PrivateFormat, load_pem_private_key

    _key_there(file, PrivateFormat.PKCS8, made)
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (ValueError, TypeError):
        raise _damaged(file, "private key without a password (PEM)") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(file, "private key of an elliptic curve")
    return key


def identity_at(file: Path, made: list[Path]) -> bytes:
    """The public half of a node's key, in OpenSSH's form as the private one is (made if absent).

    Raises:
        ConfigError: it is no such key.
    """
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PrivateFormat,
        PublicFormat,
        load_ssh_private_key,
    )

    _key_there(file, PrivateFormat.OpenSSH, made)
    try:
        public = load_ssh_private_key(file.read_bytes(), None).public_key()
    except (ValueError, TypeError):
        raise _damaged(file, "private key without a password (OpenSSH)") from None
    return bytes(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)) + b"\n"


def _key_there(file: Path, form: PrivateFormat, made: list[Path]) -> None:
    """Make a private key of the curve P-384 if there is none."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption

    if not file.exists():
        fresh = ec.generate_private_key(ec.SECP384R1())
        write(file, fresh.private_bytes(Encoding.PEM, form, NoEncryption()), made, private=True)


def cert_at(file: Path) -> x509.Certificate:
    """The certificate of a file (PEM).

    Raises:
        ConfigError: it is none.
    """
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except ValueError:
        raise _damaged(file, "certificate (PEM)") from None


def pem(cert: x509.Certificate) -> bytes:
    """A certificate as it lies in a file."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return cert.public_bytes(Encoding.PEM)


def write(file: Path, data: bytes, made: list[Path], private: bool = False) -> None:
    """Put a file in its place, whole or not at all, and note that it was made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".new")
    partial.unlink(missing_ok=True)  # or it would keep its own permissions
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    with open(handle, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    partial.replace(file)
    made.append(file)


def _damaged(file: Path, what: str) -> ConfigError:
    return ConfigError(f"{file} holds no {what}; put the right file back, or begin with another")
