"""``fedbbpt server`` and ``fedbbpt node``: one run over many machines."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fedbbpt.cli.show import Bar, console, follow, tell, watch
from fedbbpt.config import read
from fedbbpt.egress import EgressLog
from fedbbpt.errors import FedbbptError, UsageError
from fedbbpt.outcome import Outcome
from fedbbpt.rundir import FLOWER

WAITING = "waiting for nodes"


class Own(NamedTuple):
    """What a node brings.

    Attributes:
        data, test: files of its examples.
        box: a kind of box, which keeps none of the agreed one's options; or options as
            ``key=value``.
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
        kinds = [f"box={{kind={json.dumps(word)}}}" for word in self.box if "=" not in word]
        options = [f"box.{word}" for word in self.box if "=" in word]
        return [*kinds, *options, *self.changes]


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
    _serve(lambda bar: start(wanted, stand, out, overwrite, bar), out)


def resume(out: Path) -> None:
    """Go on with a run, on this machine or over many."""
    from fedbbpt.sites.server import PLACE, go_on

    if not (out / FLOWER / PLACE).is_file():
        follow("resume", out, out, [], False)
        return
    _end_in_order()
    _serve(lambda bar: go_on(out, bar), out)


def _serve(work: Callable[[Bar], Outcome], out: Path) -> None:
    try:
        watch(work, out, WAITING)
    except UsageError:
        raise
    except FedbbptError as error:
        if not (out / "state" / "run.json").is_file():
            raise
        raise FedbbptError(f"{error}. Go on with: fedbbpt resume {out}") from None


def node(folder: Path, address: str, own: Own, dry_run: bool, insecure: bool, wait: float) -> None:
    """Say what will leave, then take part until the run is over."""
    from fedbbpt.sites.node import join, model, rehearse, settle, statement_of

    _end_in_order()
    site = settle(folder, own.home, own.data, own.test, own.overrides)
    log = EgressLog(own.home)
    before = len(log.read())
    console.print(f"node      {site.name} is getting its model ready", markup=False)
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
    console.print(f"\nThe run is over. {_own(log, before)} Of all nodes together:")
    tell(replace(outcome, path=own.home))


def _own(log: EgressLog, before: int) -> str:
    """What the node has paid and sent since a line of its log."""
    sent = log.read()[before:]
    letters = [(log.folder / line["file"]).read_bytes() for line in sent]
    paid = sum(json.loads(letter.partition(b"\n")[0]).get("paid", 0) for letter in letters)
    size = sum(len(letter) for letter in letters)
    return f"Here {paid} queries were paid, and {len(sent)} messages left, {size} bytes in all."


def _end_in_order() -> None:
    """SIGTERM ends as Ctrl-C does: child processes are stopped first."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
