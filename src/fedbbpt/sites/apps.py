"""What Flower calls: ``server``, once for a run, and ``node``, once for each letter.

Both live in processes that Flower starts, and find all that they need in a directory.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import encode
from fedbbpt.errors import ConfigError, FedbbptError, UsageError
from fedbbpt.post import Post, own_version
from fedbbpt.record import read_json, write_json
from fedbbpt.rundir import RESULT, RunDir

ORDERS, OUTCOME, PROGRESS = "orders.json", "outcome.json", "progress.jsonl"
"""In the server's folder: what to do, what came of it, and how far it is."""
LOCK = "lock"
"""Held by the one process that works on the run."""
HOMES = "FEDBBPT_NODE_HOMES"
"""Variable with the folder of a node's home, where NVFlare starts the node; see ``home_of``."""
GOODBYE = 60.0
"""Seconds in which nodes can take the outcome."""


def __getattr__(name: str) -> Any:
    # Made when Flower asks for them: nothing else here needs Flower.
    if name == "server":
        from flwr.serverapp import ServerApp

        server = ServerApp()
        server.main()(lambda grid, context: serve(grid, Path(str(context.run_config["home"]))))
        return server
    if name == "node":
        from flwr.clientapp import ClientApp

        node = ClientApp()
        node.query()(reply)
        return node
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def serve(grid: Any, home: Path) -> None:
    """Run or resume what the orders say, with nodes in place of clients; the outcome is left in a
    file, errors too, for the command that gave the orders.
    """
    from fedbbpt import api
    from fedbbpt.config import read
    from fedbbpt.sites.agreed import agreed, empty
    from fedbbpt.sites.grid import GridPost

    orders = read_json(home / ORDERS)
    out = Path(orders["out"])
    names = orders["names"]
    with (home / PROGRESS).open("w", encoding="utf-8") as file, (home / LOCK).open("w") as lock:
        # Of a server that was killed, the app may live a moment longer.
        fcntl.flock(lock, fcntl.LOCK_EX)

        def progress(event: str, facts: dict[str, Any]) -> None:
            file.write(json.dumps([event, facts]) + "\n")
            file.flush()

        try:
            config = read(out / "config.toml" if orders["resume"] else Path(orders["config"]))
            post = GridPost(
                grid,
                None if names is None else frozenset(names),
                agreed(config),
                lambda notice: progress("node", dict(notice)),
            )
            if orders["resume"]:
                outcome = api.resume(out, progress=progress, split=empty(config), post=post)
            else:
                outcome = api.run(
                    config,
                    out,
                    overwrite=orders["overwrite"],
                    progress=progress,
                    split=empty(config),
                    post=post,
                )
        except FedbbptError as error:
            said = {"error": str(error), "usage": isinstance(error, UsageError)}
            write_json(home / OUTCOME, said)
            return
        farewell(post, out)
    told = {"error": "", "warnings": outcome.warnings, "by_client": outcome.by_client}
    write_json(home / OUTCOME, told)


def farewell(post: Post, out: Path) -> None:
    """Give the nodes that are there what all have tuned; who is away gets it from the server's
    people.
    """
    here = RunDir(out, "").prompt
    files = [*(here.iterdir() if here.is_dir() else ()), out / RESULT]
    body = encode({file.name: np.frombuffer(file.read_bytes(), np.uint8) for file in files})
    head = json.dumps({"kind": "done", "version": own_version()})
    waiting = post.online()
    if waiting:
        post.send(0, {name: {"head": head, "body": body} for name in waiting})
    end = time.monotonic() + GOODBYE
    while waiting and time.monotonic() < end:
        waiting -= {arrived.client for arrived in post.collect()}
        waiting &= post.online()
        post.pause()


def reply(message: Any, context: Any) -> Any:
    """Answer one letter from the node's home."""
    from flwr.app import ConfigRecord, Message, RecordDict

    from fedbbpt.sites.grid import RECORD
    from fedbbpt.sites.site import Site

    site = Site.at(home_of(context.node_config))
    letter = site.answer(dict(message.content[RECORD]))
    return Message(RecordDict({RECORD: ConfigRecord(dict(letter))}), reply_to=message)


def home_of(told: Mapping[str, Any]) -> Path:
    """Where a node lives: as `fedbbpt node` told Flower, or the folder named as NVFlare's client
    in the one that the site's own environment names.

    Raises:
        ConfigError: neither.
    """
    from fedbbpt.sites.site import NODE

    if "home" in told:
        return Path(str(told["home"]))
    client, homes = str(told.get("client-name", "")), os.environ.get(HOMES, "")
    home = Path(homes, client)
    if not (client and homes and (home / NODE).is_file()):
        # The server reads this, so it names no path.
        raise ConfigError(
            f"{HOMES} names no folder with a home for NVFlare's client '{client}'; make one with "
            "fedbbpt node --dry-run"
        )
    return home.resolve()
