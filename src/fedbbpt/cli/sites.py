"""``fedbbpt certs``: what a server and its nodes need to know each other by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

PORT = 8000
"""On which a server listens if nothing else is said."""

console = Console(highlight=False, soft_wrap=True)


def certs(config: Path, nodes: Sequence[str], hosts: Sequence[str], out: Path, days: int) -> None:
    """Make the authority, the server's certificate and an invitation for each node; say what to
    do with them.
    """
    from fedbbpt.config import read
    from fedbbpt.sites.addresses import loopback, written
    from fedbbpt.sites.certs import SERVER, ensure
    from fedbbpt.sites.invitation import differs, invitation, write

    agreed = invitation(read(config))
    made = ensure(out, nodes, hosts, days)
    for file in made:
        if file.parent in (out, out / SERVER):
            _say("made", f"{file}")
    for name in nodes:
        home = out / name
        fresh = any(home in file.parents for file in made)
        changed = write(home, agreed)
        if fresh or changed:
            _say(
                "made", f"{home}/, an invitation; send it by a safe way, for it holds {name}'s key"
            )
        else:
            _say("kept", f"{home}/ as it was")
    known = [file.stem for file in sorted((out / SERVER / "nodes").glob("*.pub"))]
    for name in sorted(set(known) - set(nodes)):
        if differs(out / name, agreed):
            _say("note", f"{name} was invited with another config; --nodes {name} renews it")
    if not hosts and SERVER in {file.parent.name for file in made}:
        _say("note", "without --host the server can be reached on this machine alone")
    if apart := ", ".join(agreed.apart):
        _say("note", f"not in the invitations, for each node has its own: {apart}")
    _say("note", f"whoever has {out / 'ca.key'} can be the server or any node; keep it apart")
    far = [host for host in hosts if not loopback(host)]
    listen = f" --address 0.0.0.0:{PORT}" if far else ""  # else on this machine alone
    _say("next", f"fedbbpt server {config} --certs {out}{listen}")
    address = written([*far, "127.0.0.1"][0].strip("[]"), PORT)
    for name in nodes:
        _say("next", f"fedbbpt node {out / name} --data FILE --server {address}")


def _say(what: str, line: str) -> None:
    console.print(f"{what:<9} {line}", markup=False)
