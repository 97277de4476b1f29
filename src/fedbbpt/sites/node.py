"""`fedbbpt node`: a site's examples, model and purse, behind Flower's SuperNode, as one command."""

from __future__ import annotations

import inspect
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from fedbbpt import registry
from fedbbpt.config import Config, read
from fedbbpt.egress import LOG, statement
from fedbbpt.errors import ConfigError, DataError, RunDirError
from fedbbpt.ledger import Ledger
from fedbbpt.outcome import Outcome
from fedbbpt.post import ask
from fedbbpt.random import stream
from fedbbpt.record import read_json, write_json
from fedbbpt.rundir import CONFIG, RESULT
from fedbbpt.sites import addresses, invitation, launch, locks, preflight
from fedbbpt.sites.launch import Child, Tail
from fedbbpt.sites.site import GATEWAY_KEY, NODE, UNFIT, Site
from fedbbpt.types import Job

LOOK = 0.3
"""Seconds between two looks at what has left."""
READY = 300.0
"""Seconds in which a model has to be loaded."""
DECLINED = 15.0
"""Seconds to stay where the node does not fit, so that the server hears why."""
GOODBYE = 30.0
"""Seconds to stay when all is over, for a server that is slow to end."""
CUT_OFF = 60.0
"""Seconds for which Flower takes a node that was cut off for present, and lets it in no second
time: two of its heartbeats."""
STEADY, AGAIN = 60.0, 2.0
"""Seconds after which a connection was no failure to connect, and between two tries."""

Say = Callable[[str], None]


def settle(folder: Path, home: Path, data: Path, test: Path | None, changes: Sequence[str]) -> Site:
    """Make or reopen a node's home from its invitation and what is its own.

    Args:
        folder: the invitation.
        home: where the node lives.
        data, test: files of its examples.
        changes: ``"table.key=value"`` over the agreed config, for the node's own keys.

    Raises:
        UsageError: a file is missing, or what is the node's own does not go with what was agreed.
    """
    file, name = folder / invitation.FILE, folder.resolve().name
    if not file.is_file():
        raise ConfigError(f"{folder} is no invitation, for it lacks {file.name}; see fedbbpt certs")
    own = ["engine.kind=local"]
    for key, path in (("train", data), ("test", test)):
        if path is not None:
            if not path.exists():
                raise DataError(f"{path} does not exist; --data and --test name files of examples")
            own.append(f"data.{key}={json.dumps(str(path.resolve()))}")
    config = read(file, [*own, *changes])
    if (home / NODE).is_file() and read_json(home / NODE)["name"] != name:
        raise RunDirError(
            f"{home} is the home of node {read_json(home / NODE)['name']}, not of {name}; "
            "choose another --home"
        )
    home.mkdir(parents=True, exist_ok=True)
    with locks.one_command(home):
        pass  # nothing may change below a node at work
    (home / CONFIG).write_text(config.toml(), encoding="utf-8")
    write_json(home / NODE, {"name": name})
    return Site(home.resolve(), name, config)


@contextmanager
def model(site: Site, shared: bool = True) -> Iterator[Site]:
    """The site with its model loaded once for all letters, where it has a model of its own: in a
    gateway beside it, which ends with it.
    """
    local = shared and _local(site.config)
    with locks.one_command(site.home), _gateway(site) if local else nullcontext("") as url:
        write_json(site.home / NODE, {"name": site.name, "gateway": url})
        try:
            yield replace(site, gateway=url)
        finally:
            # The home may be used without us: by NVFlare.
            write_json(site.home / NODE, {"name": site.name})


def _local(config: Config) -> bool:
    """Whether the box is a model on this machine, and no function either, which need not load."""
    kind = registry.find("boxes", config.box.kind)
    return config.box.kind != "function" and "url" not in inspect.signature(kind).parameters


@contextmanager
def _gateway(site: Site) -> Iterator[str]:
    port = _free_port()
    # Only this node's own processes may ask, on a machine that others share.
    os.environ.setdefault(GATEWAY_KEY, secrets.token_hex(16))
    settings = site.home / "gateway.toml"
    tables = {"box": site.config.tree()["box"], "gateway": {"keys_env": GATEWAY_KEY}}
    settings.write_text(tomli_w.dumps(tables), encoding="utf-8")
    log = site.home / "gateway.log"
    asked = ["fedbbpt", "serve-model", str(settings), "--port", str(port)]
    child = Child(asked, site.home, log)
    try:
        launch.listening("127.0.0.1", port, child, READY)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop()


def statement_of(site: Site) -> str:
    """What will leave the node, for people to read before it joins.

    Raises:
        UsageError: the node cannot do what was agreed: its model, its examples or a label.
    """
    return statement(site.federation(Ledger()), site.config).text()


def rehearse(site: Site) -> str:
    """Write the first update to disk in place of sending it; its queries are paid, and kept."""
    federation = site.federation(Ledger())
    parts, rounds = federation.parts, site.config.rounds
    state = parts.optimizer.init(parts.prompt.space)
    arrays = parts.broadcast(parts.optimizer.plan(state, stream(site.config.run.seed, "plan", 0)))
    job = Job("search", 0, rounds.steps, site.config.run.seed, arrays)
    asked = ask("rehearsal", job, site.name, shared=parts.directions == "shared")
    letter = site.answer(asked, sends=False)
    if "body" not in letter:
        return f"nothing could be rehearsed: {letter['head']!r}"
    place = site.home / "rehearsal"
    place.mkdir(exist_ok=True)
    for name, content in letter.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (place / name).write_bytes(raw)
    size = sum(len(content) for content in letter.values())
    shown = os.path.relpath(place)
    return f"the first update is in {shown} ({size} bytes); nothing was sent"


def join(site: Site, folder: Path, server: str, insecure: bool, wait: float, say: Say) -> Outcome:
    """Take part until the server says that the run is over.

    Args:
        site: with its model.
        folder: the invitation.
        server: ``host:port``.
        insecure: plain text, on this machine alone.
        wait: seconds to wait for a server that is not there yet.
        say: told what left, a line each.

    Raises:
        ConfigError: what answers is not the server, or the node does not fit to what it runs.
        ChildFailed: Flower's SuperNode ended.
    """
    ca = None if insecure else folder / "ca.crt"
    if insecure and not addresses.loopback(addresses.split(server)[0]):
        raise ConfigError(f"--insecure is for servers on this machine, not for {server}")
    hello = preflight.reach(server, ca, wait)
    if hello.warning:
        say(f"warning: {hello.warning}")
    result, unfit, log = (site.home / name for name in (RESULT, UNFIT, LOG))
    result.unlink(missing_ok=True)
    unfit.unlink(missing_ok=True)
    locks.broken_off(site.home)  # of an earlier command
    tail = Tail(log, log.stat().st_size if log.is_file() else 0)
    over = 0.0
    say(f"{site.name} is joining {server}; Ctrl-C leaves")
    command = _supernode(site, folder, server, insecure)
    with closing(_connected(site, command, server, wait)) as moments:
        for _ in moments:
            for line in tail.more():
                say(_told(json.loads(line)))
            if result.is_file() or unfit.is_file():
                over = over or time.monotonic()
            # The server ends when all have said goodbye; before, our goodbye may not be out.
            if result.is_file() and (time.monotonic() - over > GOODBYE or not _answers(server)):
                break
            if unfit.is_file() and time.monotonic() - over > DECLINED:
                raise ConfigError(read_json(unfit)["why"])
    return Outcome(read_json(result), None, site.home, {})


def _connected(
    site: Site, command: list[str], server: str, wait: float
) -> Generator[None, None, None]:
    """SuperNode, started again where it gave up: a server may be restarted, or not know our key
    yet.

    Yields:
        every now and then, as long as it runs.

    Raises:
        ChildFailed: it gave up at once again and again for longer than a server needs to start.
    """
    log, end = site.home / "node.log", time.monotonic() + wait
    while True:
        child, began = Child(command, site.home, log), time.monotonic()
        try:
            # Of a letter whose process was killed, Flower would wait a minute for a sign of life,
            # and take no other meanwhile.
            while child.process.poll() is None and not locks.broken_off(site.home):
                yield
                time.sleep(LOOK)
        finally:
            child.stop()
        now = time.monotonic()
        if now - began > STEADY:
            end = now + wait + CUT_OFF
        if now > end:
            raise launch.ChildFailed(_why(site, log, server))
        time.sleep(AGAIN)


def _why(site: Site, log: Path, server: str) -> str:
    said = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    if "Failed to activate" in said or "authenticat" in said.lower():
        return (
            f"{server} does not let {site.name} in: it does not know the key of this invitation, "
            f"or the same key is in use elsewhere (all that was said is in {log})"
        )
    return f"Flower's SuperNode gives up again and again; all that it said is in {log}"


def _supernode(site: Site, folder: Path, server: str, insecure: bool) -> list[str]:
    port = _free_port()
    own = f"home={json.dumps(str(site.home))}"
    arguments = ["--superlink", server, "--port", str(port), "--node-config", own]
    if insecure:
        return ["flower-supernode", *arguments, "--insecure"]
    where = folder.resolve()
    keys = {
        "--root-certificates": "ca.crt",
        "--auth-supernode-private-key": "node.key",
        "--ssl-ca-certfile": "ca.crt",
        "--ssl-certfile": "node.crt",
        "--ssl-keyfile": "node.tls.key",
    }
    named = [word for flag, file in keys.items() for word in (flag, str(where / file))]
    return ["flower-supernode", *arguments, *named]


def _answers(server: str) -> bool:
    try:
        with socket.create_connection(addresses.split(server), timeout=2):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _told(line: dict[str, Any]) -> str:
    return f"sent {line['bytes']:>6} bytes   {line['phase']}, round {line['round']}"
