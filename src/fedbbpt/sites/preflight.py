"""Before a node joins: the server is there, is the right one, and its clock agrees; or why not.

Whatever is wrong is said in one sentence, before anything heavy is started. The standard library
is enough for that: one connection, one TLS handshake, one GET.
"""

from __future__ import annotations

import email.utils
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fedbbpt.errors import Unreachable
from fedbbpt.sites.addresses import free, loopback, split, written
from fedbbpt.sites.trust import anyone, same, trusted, validity, when

__all__ = ["Hello", "free", "loopback", "reach", "split"]

PAUSE = 0.2
"""Seconds between two tries to connect."""
ANSWER = 10.0
"""Seconds that a server which took the connection may need to say something."""
HEAD = 65_536
"""Bytes of an HTTP head, at most."""
WARN, AHEAD, BEHIND = 3.0, 5.0, 305.0
"""Flower refuses what is signed by a node whose clock is more than 5 s ahead of the server's or 305
behind (``SYSTEM_TIME_TOLERANCE`` and ``TIMESTAMP_TOLERANCE`` of flwr 1.41)."""
AGE = 1.0
"""Seconds that an HTTP date is old on average: whole seconds, and made anew once in a second."""

_EXPIRED, _EARLY = 10, 9
"""X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL."""


class Hello(NamedTuple):
    """What a server that can be joined said.

    Attributes:
        host, port: where it was reached.
        tls: behind TLS, with a certificate that the CA vouches for.
        ahead: seconds that this machine's clock is ahead of the server's, to about one; ``None``
            where the server does not tell the time.
        warning: a sentence about the clocks, or nothing.
    """

    host: str
    port: int
    tls: bool
    ahead: float | None
    warning: str = ""


def reach(address: str, ca: Path | None, wait: float) -> Hello:
    """Say hello to a server.

    Args:
        address: ``host:port``; of IPv6 ``[host]:port``.
        ca: certificate of the authority that the server's own has to be signed by; ``None`` for
            plain text.
        wait: seconds for a server that is not there yet to come up.

    Raises:
        ConfigError: the address or the CA's file is at fault.
        Unreachable: there is no such server, or it may not be trusted; the sentence says why.
    """
    host, port = split(address)
    trust = None if ca is None else trusted(ca)
    there = _There(host, port, written(host, port))
    end = time.monotonic() + wait
    with _connected(there, end, wait) as plain:
        if trust is None:
            return _plain(there, plain)
        with _secured(there, plain, trust, ca) as secure:
            return _greeted(there, secure, tls=True)


# --- the connection ------------------------------------------------------------------------------


class _There(NamedTuple):
    """Where the server is said to be, and how that is written."""

    host: str
    port: int
    name: str


@contextmanager
def _connected(there: _There, end: float, wait: float) -> Iterator[socket.socket]:
    """A connection, as soon as something listens."""
    while True:
        left = max(PAUSE, end - time.monotonic())
        try:
            found = socket.create_connection((there.host, there.port), timeout=left)
            break
        except socket.gaierror as error:
            why = f"the name {there.host} is not known here ({error.strerror})"
            if error.errno != socket.EAI_AGAIN:
                raise Unreachable(f"{why}; check --server, or the name service") from None
        except ConnectionRefusedError:
            why = f"nothing listens at {there.name}; is the server running, and is the port right?"
        except TimeoutError:
            why = (
                f"{there.name} gave no answer within {wait:g} s; is the address right, and does a "
                "firewall let this machine through?"
            )
        except OSError as error:
            why = f"{there.name} cannot be reached ({error.strerror or error})"
        if time.monotonic() + PAUSE >= end:
            raise Unreachable(why) from None
        time.sleep(PAUSE)
    with found:
        found.settimeout(ANSWER)
        yield found


def _plain(there: _There, connection: socket.socket) -> Hello:
    """Without TLS; a server that wants it is told apart from one that is none of ours."""
    try:
        return _greeted(there, connection, tls=False)
    except Unreachable:
        if _peer(there) is not None:
            raise Unreachable(
                f"{there.name} speaks TLS, and it was to be asked in plain text; give the ca.crt "
                "of the invitation instead of --insecure"
            ) from None
        raise


@contextmanager
def _secured(
    there: _There, connection: socket.socket, trust: ssl.SSLContext, ca: Path | None
) -> Iterator[ssl.SSLSocket]:
    """The connection behind TLS, with the right server at its other end."""
    try:
        secure = trust.wrap_socket(connection, server_hostname=there.host)
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(_mistrusted(there, error, ca)) from None
    except OSError as error:
        if _speaks_http(there):
            raise Unreachable(
                f"{there.name} speaks plain text where TLS is expected; was the server started "
                "with --insecure?"
            ) from None
        raise Unreachable(
            f"{there.name} answers, but not in TLS ({_reason(error)}); is it a fedbbpt server?"
        ) from None
    with secure:
        shown: dict[str, Any] = secure.getpeercert() or {}
        names = [str(name) for _, name in shown.get("subjectAltName", ())]
        if not any(same(name, there.host) for name in names):
            raise Unreachable(
                f"the certificate of {there.name} is not for {there.host} but for "
                f"{', '.join(names) or 'nobody'}; use one of these in --server, or have the server "
                f"add it: fedbbpt certs ... --host {there.host}"
            )
        yield secure


def _mistrusted(there: _There, error: ssl.SSLCertVerificationError, ca: Path | None) -> str:
    """Why a certificate was not accepted."""
    if error.verify_code in (_EXPIRED, _EARLY):
        shown = validity(_peer(there) or b"")
        told = when(*shown, time.time()) if shown else error.verify_message
        return f"the certificate of {there.name} {told}; fedbbpt certs at the server renews it"
    return (
        f"the certificate of {there.name} is not signed by {ca} ({error.verify_message}): it is "
        "another server, or the invitation belongs to another federation; ask for a new one"
    )


# --- second looks, at what did not go as it should -----------------------------------------------


def _peer(there: _There) -> bytes | None:
    """The certificate of whoever speaks TLS there, trusted or not; ``None`` if nobody does."""
    try:
        with (
            socket.create_connection((there.host, there.port), timeout=ANSWER) as plain,
            anyone().wrap_socket(plain, server_hostname=there.host) as secure,
        ):
            return secure.getpeercert(binary_form=True)
    except OSError:
        return None


def _speaks_http(there: _There) -> bool:
    try:
        with socket.create_connection((there.host, there.port), timeout=ANSWER) as plain:
            plain.settimeout(ANSWER)
            return _asked(there, plain)[0].startswith(b"HTTP/")
    except OSError:
        return False


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)


# --- one GET -------------------------------------------------------------------------------------


def _greeted(there: _There, connection: socket.socket, tls: bool) -> Hello:
    """What the server says of the time.

    Raises:
        Unreachable: it speaks no HTTP, or the clocks are too far apart for Flower.
    """
    asked = time.time()
    try:
        lines = _asked(there, connection)
    except OSError as error:
        raise Unreachable(
            f"{there.name} took the connection, but did not answer ({_reason(error)})"
        ) from None
    if not lines[0].startswith(b"HTTP/"):
        raise Unreachable(f"{there.name} answers, but not in HTTP; is it a fedbbpt server?")
    told = _date(lines)
    if told is None:
        return Hello(there.host, there.port, tls, None)
    ahead = (asked + time.time()) / 2 - (told + AGE)
    return Hello(there.host, there.port, tls, ahead, _judged(there, ahead))


def _asked(there: _There, connection: socket.socket) -> Sequence[bytes]:
    """The lines of the head that answers a GET of ``/``."""
    ask = f"GET / HTTP/1.1\r\nHost: {there.name}\r\nConnection: close\r\n\r\n"
    connection.sendall(ask.encode("ascii", "replace"))
    head, end = b"", time.monotonic() + ANSWER
    while b"\r\n\r\n" not in head and len(head) < HEAD:
        if time.monotonic() >= end:
            raise TimeoutError("timed out")
        more = connection.recv(4096)
        if not more:
            break
        head += more
    return head.partition(b"\r\n\r\n")[0].split(b"\r\n")


def _date(lines: Sequence[bytes]) -> float | None:
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"date":
            try:
                text = value.decode("ascii", "replace").strip()
                return email.utils.parsedate_to_datetime(text).timestamp()
            except ValueError:
                return None
    return None


def _judged(there: _There, ahead: float) -> str:
    """A warning, or nothing."""
    if -BEHIND <= ahead <= WARN:
        return ""
    way = "ahead of" if ahead > 0 else "behind"
    said = (
        f"the clock here is about {abs(ahead):.0f} s {way} that of {there.name}, and Flower "
        f"refuses a node that is more than {AHEAD:g} s ahead or {BEHIND:g} s behind; set it right"
    )
    if ahead > AHEAD or ahead < -BEHIND:
        raise Unreachable(said)
    return said
