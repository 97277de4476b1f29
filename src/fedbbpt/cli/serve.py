"""``fedbbpt serve-model``: a local box for everyone who has its URL and a key."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from fedbbpt import registry
from fedbbpt.cli.use import listen


def serve_model(config: Path, host: str, port: int, overrides: Sequence[str]) -> None:
    """Load the config's box once and serve it until SIGTERM or Ctrl-C."""
    from fedbbpt.service.gateway import gateway
    from fedbbpt.service.settings import Keys, open_to, read

    box, table = read(config, overrides)
    named = [table.keys_env] if isinstance(table.keys_env, str) else table.keys_env
    keys = Keys([name for name in named if name])
    open_to(host, keys)
    app = gateway(lambda: registry.make("boxes", box.kind, box.options, "box"), table, keys)
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn answers what is on the way, ends, and raises the signal that it got once more.
        signal.signal(number, lambda *_: None)
    listen(app, host, port, app.description)
