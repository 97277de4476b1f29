"""A federation's own certificate authority, the server's certificate, and a folder for each node.

    OUT/ca.crt, ca.key           the authority; whoever holds its key can be the server or a node
    OUT/server/                  server.crt, server.key, ca.crt; nodes/NAME.pub, who may join
    OUT/NAME/                    an invitation: node.key and node.pub, by which the server knows the
                                 node; node.crt and node.tls.key, for the node's own Runtime API,
                                 which only its own processes ask; ca.crt, to know the server by

A key that exists is never written again. So the same call adds nodes to a federation, goes on
where it was cut off, and renews a certificate that is about to end or lacks a host.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from fedbbpt.errors import ConfigError
from fedbbpt.sites.signing import (
    Signer,
    authority,
    cert_at,
    check_library,
    hosts_of,
    identity_at,
    issued,
    key_at,
    leaf,
    pem,
    write,
)

HERE = ("localhost", "127.0.0.1", "::1")
"""What every server is called by those on its own machine."""
EARLY = timedelta(days=1)
"""Certificates begin so long ago: clocks differ, and time zones are mistaken."""
MOST = 36_500
"""Days; a century is more than anyone can mean."""
SERVER = "server"
RESERVED = (SERVER, "ca.crt", "ca.key")
"""No names for nodes: what else is in the folder."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def ensure(
    out: Path,
    nodes: Sequence[str],
    hosts: Sequence[str] = (),
    days: int = 365,
    now: datetime | None = None,
) -> list[Path]:
    """Everything that a server and these nodes need to trust each other, as far as it is not there.

    Keys are of the curve P-384, as Flower wants those of nodes; private ones can be read by their
    owner alone. Certificates end with the authority at the latest.

    Args:
        out: folder of all of it; made if absent.
        nodes: names of nodes, those of an earlier call or new ones.
        hosts: addresses and names by which nodes reach the server, besides those of an earlier
            call and ``HERE``.
        days: how long what is made now is valid.
        now: the time, with a time zone; the clock's if absent.

    Returns:
        The files that were written, in the order in which they were.

    Raises:
        ConfigError: a name, a host, ``days`` or what lies in ``out`` is at fault.
        MissingExtra: cryptography is not installed.
    """
    now = (now or datetime.now(UTC)).replace(microsecond=0)
    if not 1 <= days <= MOST:
        raise ConfigError(f"--days is {days}; it must be from 1 to {MOST}")
    server = out / SERVER
    _check_invited(out, nodes, [file.stem for file in sorted((server / "nodes").glob("*.pub"))])
    wanted = [checked_host(host) for host in hosts]
    check_library()
    made: list[Path] = []
    span = timedelta(days=days)
    desk = _Desk(_authority(out, now, span, made), now, span, made)
    desk.certify(server / "server.key", server / "server.crt", [*HERE, *wanted])
    desk.keep(server / "ca.crt", pem(desk.signer.cert))
    for name in nodes:
        home = out / name
        public = identity_at(home / "node.key", made)
        desk.certify(home / "node.tls.key", home / "node.crt", HERE[:2])
        desk.keep(home / "ca.crt", pem(desk.signer.cert))
        desk.keep(home / "node.pub", public)
        desk.keep(server / "nodes" / f"{name}.pub", public)
    return made


def _check_invited(out: Path, nodes: Sequence[str], known: Sequence[str]) -> None:
    """Refuse what cannot be the name of a node, and one that is another's.

    Args:
        out: folder of all of it.
        nodes: to be invited.
        known: names of those that were invited before.

    Raises:
        ConfigError: says which.
    """
    taken = {name.lower(): name for name in known}
    seen: set[str] = set()
    for name in nodes:
        if not _NAME.fullmatch(name) or name.endswith("."):
            raise ConfigError(
                f"--nodes '{name}' is no name for a node; it must be at most 64 letters, digits, "
                "'-', '_' or '.', beginning with a letter or digit and not ending with '.'"
            )
        if name.lower() in RESERVED:
            raise ConfigError(
                f"--nodes '{name}' is the name of a file of the server's; take another"
            )
        # Some file systems take names that differ in capitals alone for one.
        other = taken.setdefault(name.lower(), name)
        if other != name or name.lower() in seen:
            raise ConfigError(
                f"--nodes names '{other}' and '{name}'; every node needs a name of its own, "
                "whatever its capitals"
            )
        seen.add(name.lower())
        if name in known and not (out / name / "node.key").exists():
            raise ConfigError(
                f"--nodes '{name}' was invited before, and {out / name / 'node.key'} is no longer "
                "here; take another name, or remove "
                f"{out / SERVER / 'nodes' / name}.pub to shut that node out and invite a new one"
            )


def checked_host(host: str) -> str:
    """A host as a certificate has it: an IP address, or a name in small letters.

    Raises:
        ConfigError: it is neither, or no address that others can reach.
    """
    bare = host.strip().removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        if address.is_unspecified:
            raise ConfigError(
                f"--host is {host}, which means every address of this machine; name those by which "
                "nodes reach it"
            )
        return str(address)
    try:
        name = bare.rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    digits = name.replace(".", "").isdigit()  # an IP address with a slip
    if not name or digits or not all(map(_LABEL.fullmatch, name.split("."))):
        raise ConfigError(
            f"--host '{host}' is no host; it must be an IP address or a name such as "
            "fed.example.org, without a port"
        )
    return name


# --- what is there, and what is not --------------------------------------------------------------


class _Desk(NamedTuple):
    """Who signs, when, for how long, and what was written so far."""

    signer: Signer
    now: datetime
    span: timedelta
    made: list[Path]

    def certify(self, key_file: Path, cert_file: Path, hosts: Sequence[str]) -> None:
        """A key and a certificate for these hosts and those that it had before; a certificate
        that has them all is made anew in the second half of its time.
        """
        key, known, left = key_at(key_file, self.made), list[str](), timedelta(0)
        begin, end = self.now - EARLY, self.now + self.span
        begin = max(begin, self.signer.cert.not_valid_before_utc)
        end = min(end, self.signer.cert.not_valid_after_utc)
        if cert_file.exists():
            old = cert_at(cert_file)
            if old.public_key() == key.public_key() and issued(self.signer, old):
                known, left = hosts_of(old), old.not_valid_after_utc - self.now
        every = list(dict.fromkeys([*hosts, *known]))
        if set(every) != set(known) or left < (end - self.now) / 2:
            write(cert_file, pem(leaf(self.signer, key, every, begin, end)), self.made)

    def keep(self, file: Path, data: bytes) -> None:
        """A public file, written where it is not there or not the same."""
        if not file.exists() or file.read_bytes() != data:
            write(file, data, self.made)


def _authority(out: Path, now: datetime, span: timedelta, made: list[Path]) -> Signer:
    """What signs all others; made where neither half is there.

    Raises:
        ConfigError: one is missing, they are no pair, or it is not their time.
    """
    file, key_file = out / "ca.crt", out / "ca.key"
    if file.exists() and not key_file.exists():
        raise ConfigError(
            f"{key_file} is missing, and nothing can be signed by {file} without it; put it back, "
            "or begin with another --out"
        )
    key = key_at(key_file, made)
    if not file.exists():
        write(file, pem(authority(key, now - EARLY, now + span)), made)
    cert = cert_at(file)
    if cert.public_key() != key.public_key():
        raise ConfigError(f"{key_file} is not the key of {file}; put the right one back")
    begins, ends = cert.not_valid_before_utc, cert.not_valid_after_utc
    if not begins <= now < ends:
        when = f"ended on {ends:%Y-%m-%d}" if now >= ends else f"begins on {begins:%Y-%m-%d}"
        raise ConfigError(
            f"the certificate authority {file} {when}, and today is {now:%Y-%m-%d}; begin with "
            "another --out, and invite every node again"
        )
    return Signer(key, cert)
