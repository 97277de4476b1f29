"""``fedbbpt server`` and ``fedbbpt node``: one run over many machines."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fedbbpt.cli.show import Bar, console, follow, tell, watch
from fedbbpt.config import read
from fedbbpt.outcome import Outcome
from fedbbpt.rundir import FLOWER


class Own(NamedTuple):
    """What a node brings.

    Attributes:
        data, test: files of its examples.
        box: a kind of box, or options of it as ``key=value``.
        changes: ``table.key=value`` over the agreed config.
        home: where it keeps what it must.
    """

    data: Path
    test: Path | None
    box: Sequence[str]
    changes: Sequence[str]
    home: Path

    @property
    def overrides(self) -> list[str]:
        """All as ``table.key=value``."""
        box = [f"box.{word}" if "=" in word else f"box.kind={word}" for word in self.box]
        return [*box, *self.changes]


def split(config: Path, out: Path, overrides: Sequence[str]) -> None:
    """Write a file for each client."""
    from fedbbpt.sites.split import parts

    made = parts(read(config, overrides), out)
    for file, size in made.items():
        console.print(f"made      {file}, {size} examples", markup=False)
    names = " ".join(f"--nodes {file.stem}" for file in made)
    console.print(f"next      fedbbpt certs {config} {names}", markup=False)


def server(
    config: Path,
    certs: Path | None,
    address: str,
    out: Path,
    overrides: Sequence[str] | None,
    overwrite: bool,
    insecure: bool,
) -> None:
    """Serve a run until its result is there."""
    from fedbbpt.sites.server import Stand, start

    _end_in_order()
    stand = Stand.of(address, certs, insecure)
    wanted = read(config, overrides or [])
    if insecure:
        console.print("warning   --insecure: plain text, and anyone on this machine may join")
    names = stand.names
    who = "any node" if names is None else ", ".join(names)
    console.print(f"server    {address}, for {who}", markup=False)
    watch(lambda bar: start(wanted, stand, out, overwrite, bar), out)


def resume(out: Path) -> None:
    """Go on with a run, on this machine or over many."""
    from fedbbpt.sites.server import PLACE, go_on

    if not (out / FLOWER / PLACE).is_file():
        follow("resume", out, out, [], False)
        return
    _end_in_order()

    def work(bar: Bar) -> Outcome:
        return go_on(out, bar)

    watch(work, out)


def node(folder: Path, address: str, own: Own, dry_run: bool, insecure: bool, wait: float) -> None:
    """Say what will leave, then take part until the run is over."""
    from fedbbpt.sites.node import join, model, rehearse, settle, statement_of

    _end_in_order()
    site = settle(folder, own.home, own.data, own.test, own.overrides)
    with model(site) as ready:
        console.print(statement_of(ready), markup=False)
        if dry_run:
            console.print(rehearse(ready), markup=False)
            return

        def say(line: str) -> None:
            console.print(line, markup=False)

        try:
            outcome = join(ready, folder, address, insecure, wait, say)
        except KeyboardInterrupt:
            console.print(f"{ready.name} has left; the same command joins again")
            raise SystemExit(130) from None
    tell(outcome)


def _end_in_order() -> None:
    """SIGTERM ends as Ctrl-C does: child processes are stopped first."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
