"""Whom a node believes: one authority, the names in a certificate, and its two dates.

Python tells the dates of certificates that it trusts alone; a user wants to know those of one that
has ended, so they are read here from its bytes.
"""

from __future__ import annotations

import calendar
import ipaddress
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

from fedbbpt.errors import ConfigError

SEQUENCE, CONTEXT_0, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
"""Tags of X.690."""


def trusted(ca: Path) -> ssl.SSLContext:
    """Trusts this authority alone. Names are compared later, so that they can be told.

    Raises:
        ConfigError: there is no authority in the file, or it is not its time.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    try:
        context.load_verify_locations(cafile=str(ca))
    except ssl.SSLError:
        raise ConfigError(f"{ca} holds no certificate (PEM); use the invitation's ca.crt") from None
    except OSError as error:
        raise ConfigError(f"{ca} cannot be read ({error.strerror})") from None
    now = time.time()
    for found in context.get_ca_certs():
        begins, ends = (ssl.cert_time_to_seconds(str(found[k])) for k in ("notBefore", "notAfter"))
        if not begins <= now < ends:
            raise ConfigError(f"the certificate authority {ca} {when(begins, ends, now)}")
    if not context.get_ca_certs():
        raise ConfigError(f"{ca} is no certificate authority's; use the invitation's ca.crt")
    return context


def anyone() -> ssl.SSLContext:
    """Trusts whoever is there: for a look at who it is, never to tell them anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def when(begins: float, ends: float, now: float) -> str:
    """Of a certificate that is too young or too old."""
    first, last, today = (
        datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M") for t in (begins, ends, now)
    )
    what = f"is valid from {first} on" if now < begins else f"ended on {last}"
    return f"{what}, and the clock here says {today} (UTC)"


def same(named: str, host: str) -> bool:
    """Whether a name in a certificate means a host; ``*.`` stands for one label."""
    try:
        return ipaddress.ip_address(named) == ipaddress.ip_address(host)
    except ValueError:
        pass
    named, host = named.lower(), host.encode("idna").decode().rstrip(".").lower()
    return named == host or (named[:2] == "*." and host.partition(".")[2] == named[2:])


def validity(certificate: bytes) -> tuple[float, float] | None:
    """Unix times at which a certificate begins and ends to be valid.

    Args:
        certificate: DER (RFC 5280, section 4.1): in a sequence a sequence of version, serial
            number, algorithm, issuer and then the two dates.

    Returns:
        ``None`` where the bytes are no certificate.
    """
    try:
        whole, _ = _inside(certificate, SEQUENCE)
        rest, _ = _inside(whole, SEQUENCE)
        # The version is left out of certificates of version 1.
        for _ in range(3 + (rest[0] == CONTEXT_0)):
            _, rest = _inside(rest)
        dates, _ = _inside(rest, SEQUENCE)
        begin, rest = _inside(dates)
        end, _ = _inside(rest)
        return _time(dates[0], begin), _time(rest[0], end)
    except (IndexError, ValueError):
        return None


def _inside(data: bytes, tag: int | None = None) -> tuple[bytes, bytes]:
    """The content of the first value, and what is behind it."""
    if tag is not None and data[0] != tag:
        raise ValueError("another tag")
    length, start = data[1], 2
    if length > 127:
        start += length - 128
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        raise ValueError("cut off")
    return data[start : start + length], data[start + length :]


def _time(tag: int, text: bytes) -> float:
    if tag == UTC_TIME:
        # Two digits of the year mean 1950 to 2049.
        text = (b"20" if text[:2] < b"50" else b"19") + text
    elif tag != GENERALIZED_TIME:
        raise ValueError("no time")
    return float(calendar.timegm(time.strptime(text.decode("ascii"), "%Y%m%d%H%M%SZ")))
