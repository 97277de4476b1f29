"""`fedbbpt server`: Flower's SuperLink, the nodes' keys and the run, as one command."""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbbpt.api import quiet
from fedbbpt.config import Config
from fedbbpt.errors import ConfigError, FedbbptError, RunDirError, UsageError
from fedbbpt.outcome import Outcome
from fedbbpt.record import read_json, write_json
from fedbbpt.rundir import FLOWER, RESULT, refuse_unless_free
from fedbbpt.runner import Progress
from fedbbpt.sites import addresses, launch
from fedbbpt.sites.agreed import federated
from fedbbpt.sites.apps import ORDERS, OUTCOME, PROGRESS
from fedbbpt.sites.launch import Child, Tail
from fedbbpt.sites.trust import trusted, validity, when

FEDERATION = "federation.toml"
"""The config as it was when the run began."""
PLACE = "server.json"
"""Where a resumed run finds its address and keys again."""
ASK = 10.0
"""Seconds between two questions to Flower whether the run is still alive; each starts a process."""
LOOK = 0.2
"""Seconds between two looks at how far the run is."""


@dataclass(frozen=True)
class Stand:
    """Where a server stands.

    Attributes:
        host, port: to listen on.
        certs: folder of :mod:`fedbbpt.sites.certs`; ``None`` without TLS and keys.
    """

    host: str
    port: int
    certs: Path | None

    @classmethod
    def of(cls, address: str, certs: Path | None, insecure: bool) -> Stand:
        """From what a user wrote.

        Raises:
            ConfigError: no address, no certificates, or plain text to other machines.
        """
        host, port = addresses.split(address)
        if insecure:
            if not addresses.loopback(host):
                raise ConfigError(
                    f"--insecure sends everything in plain text, so {host} may not be reached from "
                    "other machines; listen on 127.0.0.1, or make keys with: fedbbpt certs"
                )
            return cls(host, port, None)
        if certs is None or not (certs / "server" / "server.crt").is_file():
            raise ConfigError(
                f"{certs or '--certs'} holds no certificates of a server; make them with: "
                "fedbbpt certs CONFIG --nodes NAME --host ADDRESS"
            )
        return cls(host, port, certs.resolve())

    @property
    def names(self) -> list[str] | None:
        """Nodes that may join; ``None`` for any."""
        if self.certs is None:
            return None
        return sorted(key.stem for key in (self.certs / "server" / "nodes").glob("*.pub"))

    @property
    def here(self) -> str:
        """By which name this machine reaches it."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host

    @property
    def _tls(self) -> list[str]:
        if self.certs is None:
            return ["--insecure"]
        own = self.certs / "server"
        return [
            "--enable-supernode-auth",
            *("--ssl-ca-certfile", str(own / "ca.crt")),
            *("--ssl-certfile", str(own / "server.crt")),
            *("--ssl-keyfile", str(own / "server.key")),
        ]

    def superlink(self, home: Path) -> Child:
        """SuperLink on this address, with what it knows of nodes and runs on disk."""
        arguments = [
            *("--host", self.host, "--port", str(self.port)),
            *("--database", str(home / "superlink.db")),
            "--disable-runtime-dependency-installation",
            *self._tls,
        ]
        child = Child(["flower-superlink", *arguments], home, home / "superlink.log")
        try:
            launch.listening(self.here, self.port, child)
        except BaseException:
            child.stop()
            raise
        ca = None if self.certs is None else self.certs / "server" / "ca.crt"
        launch.connection(home, addresses.written(self.here, self.port), ca)
        return child

    def register(self, home: Path) -> None:
        """Tell SuperLink the keys of the nodes; those it knows already stay."""
        for name in self.names or ():
            key = str((self.certs or Path()) / "server" / "nodes" / f"{name}.pub")
            try:
                launch.command(["supernode", "register", key, launch.SITE, "--name", name], home)
            except launch.ChildFailed as error:
                if "already" not in str(error).lower():
                    raise


def start(
    config: Config,
    stand: Stand,
    out: Path,
    overwrite: bool = False,
    progress: Progress = quiet,
) -> Outcome:
    """Serve one run from its first round to its result.

    Raises:
        UsageError: the request is at fault; nothing was started.
        FedbbptError: the run failed; it can be resumed.
    """
    launch.installed()
    config = over_flower(config)
    refuse_unless_free(out, overwrite)
    home = (out / FLOWER).resolve()
    _check(stand)
    home.mkdir(parents=True, exist_ok=True)
    (home / FEDERATION).write_text(config.toml(), encoding="utf-8")
    write_json(home / PLACE, _told(stand))
    orders = {"config": str(home / FEDERATION), "resume": False, "overwrite": overwrite}
    return _serve(stand, out, orders, progress)


def over_flower(config: Config) -> Config:
    """A config with the engine that it needs, for many machines.

    Raises:
        ConfigError: the method is not for them.
    """
    if config.engine.kind != "flower":
        engine = {"engine": {"kind": "flower"}}
        config = Config.model_validate({**config.tree(), **engine})
    return federated(config)


def go_on(out: Path, progress: Progress = quiet) -> Outcome:
    """Resume a run on the address, with the keys and the nodes that it had.

    Raises:
        RunDirError: there is none.
    """
    launch.installed()
    home = (out / FLOWER).resolve()
    try:
        told = read_json(home / PLACE)
    except (OSError, ValueError) as error:
        raise RunDirError(f"{out} holds no run of a server that can be resumed: {error}") from None
    certs = told["certs"] and Path(told["certs"])
    stand = Stand(told["host"], told["port"], certs)
    _vacant(stand)
    _check(stand)
    begun = (out / "state" / "run.json").is_file()
    orders = {"config": str(home / FEDERATION), "resume": begun, "overwrite": False}
    return _serve(stand, out, orders, progress)


def _check(stand: Stand) -> None:
    if stand.names == []:
        raise ConfigError(
            f"{stand.certs} names no node; invite one with: fedbbpt certs --nodes NAME"
        )
    _in_time(stand)
    addresses.free(stand.host, stand.port)


def _in_time(stand: Stand) -> None:
    """ConfigError where no node could trust the server's certificates today."""
    if stand.certs is None:
        return
    trusted(stand.certs / "server" / "ca.crt")
    file, now = stand.certs / "server" / "server.crt", time.time()
    try:
        dates = validity(ssl.PEM_cert_to_DER_cert(file.read_text("ascii")))
    except ValueError:
        dates = None
    if dates is None:
        raise ConfigError(
            f"{file} holds no certificate; fedbbpt certs makes it again if it is gone"
        )
    if not dates[0] <= now < dates[1]:
        raise ConfigError(
            f"the server's certificate {file} {when(*dates, now)}; fedbbpt certs renews it"
        )


def _vacant(stand: Stand) -> None:
    """Wait for the port of a server that was killed, whose SuperLink takes a moment to end.

    Raises:
        ConfigError: it stays taken.
    """
    end = time.monotonic() + launch.GRACE
    while True:
        try:
            return addresses.free(stand.host, stand.port)
        except ConfigError:
            if time.monotonic() > end:
                raise
        time.sleep(LOOK)


def _told(stand: Stand) -> dict[str, Any]:
    certs = stand.certs and str(stand.certs)
    return {"host": stand.host, "port": stand.port, "certs": certs}


def _serve(stand: Stand, out: Path, orders: dict[str, Any], progress: Progress) -> Outcome:
    home = give(out, orders, stand.names)
    link = stand.superlink(home)
    try:
        stand.register(home)
        folder = str(launch.app_folder(home))
        asked = ["run", folder, launch.SITE, "--run-config", f"home={json.dumps(str(home))}"]
        answer = launch.command(asked, home)
        _follow(home, str(answer["run-id"]), link, progress)
    finally:
        link.stop()
    return came_of(out)


def give(out: Path, orders: dict[str, Any], names: list[str] | None) -> Path:
    """Leave the server app its orders; the folder in which it finds them."""
    home = (out / FLOWER).resolve()
    for name in (OUTCOME, PROGRESS):
        (home / name).unlink(missing_ok=True)
    write_json(home / ORDERS, {**orders, "out": str(out.resolve()), "names": names})
    return home


def came_of(out: Path) -> Outcome:
    """What the server app has left.

    Raises:
        UsageError, FedbbptError: what it met.
    """
    said = read_json(out / FLOWER / OUTCOME)
    if said["error"]:
        raise (UsageError if said["usage"] else FedbbptError)(said["error"])
    by_client = {name: (was, now) for name, (was, now) in said.get("by_client", {}).items()}
    warnings = tuple(said.get("warnings", ()))
    return Outcome(read_json(out / RESULT), None, out, by_client, warnings)


def _follow(home: Path, run: str, link: Child, progress: Progress) -> None:
    """Pass progress on until there is an outcome.

    Raises:
        ChildFailed: Flower says that there will be none.
    """
    tail, asked, over = Tail(home / PROGRESS), time.monotonic(), False
    while not over:
        over = (home / OUTCOME).is_file()
        link.check()
        for line in tail.more():
            progress(*json.loads(line))
            asked = time.monotonic()
        if time.monotonic() - asked > ASK:
            asked = time.monotonic()
            _alive(home, run, link)
        time.sleep(0 if over else LOOK)


def _alive(home: Path, run: str, link: Child) -> None:
    runs = launch.command(["ls", launch.SITE, "--run-id", run], home).get("runs", [])
    status = str(runs[0].get("status", "")) if runs else "unknown to Flower"
    if status.startswith("finished") and not (home / OUTCOME).is_file():
        raise launch.ChildFailed(
            f"the run ended ({status}) without a result; all that was said is in {link.log}"
        )
