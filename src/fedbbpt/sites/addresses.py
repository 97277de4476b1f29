"""Addresses: how they are written, which are this machine's alone, and which are free."""

from __future__ import annotations

import errno
import ipaddress
import socket

from fedbbpt.errors import ConfigError


def written(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, int]:
    """(host, port) of ``host:port`` or ``[host]:port``.

    Raises:
        ConfigError: it is neither.
    """
    host, colon, port = address.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    number = int(port) if port.isascii() and port.isdigit() else 0
    wrong = not colon or not 1 <= number <= 65535 or (":" in bare and not bracketed)
    if wrong or not _can_be_host(bare):
        raise ConfigError(
            f"the address is '{address}'; it must be HOST:PORT, such as fed.example.org:8000"
        )
    return bare, number


def _can_be_host(text: str) -> bool:
    if any(mark in text for mark in "/[]@ "):
        return False
    try:
        return bool(text.encode("idna"))
    except UnicodeError:  # a label that is empty or too long
        return False


def loopback(host: str) -> bool:
    """Whether a host is this machine and can be nothing else.

    Args:
        host: an IP address or a name, without a port.
    """
    bare = host.removeprefix("[").removesuffix("]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return bare == "localhost" or bare.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def free(host: str, port: int) -> None:
    """Refuse a port on which nothing new can listen.

    Args:
        host: an address of this machine, or all of them (``0.0.0.0`` or ``::``).
        port: 0 for any.

    Raises:
        ConfigError: it is taken, or is not this machine's or this user's to use.
    """
    where = written(host, port)
    if not 0 <= port <= 65535:
        raise ConfigError(f"{where} is no address; a port is a number from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
            door.listen(1)
        except OSError as error:
            raise ConfigError(f"{where} {_unusable(error)}") from None


def _unusable(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "is taken by another program; stop that one, or choose another port"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return "is no address of this machine; use one that is, or 0.0.0.0 for all of them"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "may not be used by this user; ports from 1024 on may be"
    return f"cannot be used ({error.strerror})"
