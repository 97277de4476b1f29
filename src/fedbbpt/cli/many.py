"""The commands of a run over many machines: parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.words import Changes, ConfigFile, Overwrite

many = typer.Typer(rich_markup_mode="markdown")


@many.command(epilog="Example: `fedbbpt split examples/sst2-flower.toml --out parts`")
def split(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="A new folder, for a file NAME.csv for each client.")],
    set_: Changes = None,
) -> None:
    """Write each client's examples to a file, to rehearse many machines on one."""
    from fedbbpt.cli.machines import split as divide

    divide(config, out, set_ or [])


@many.command(epilog="Example: `fedbbpt server federation.toml --certs certs --out runs/wards`")
def server(
    config: ConfigFile,
    certs: Annotated[
        Path | None, typer.Option(help="Folder that fedbbpt certs has made; it says who may join.")
    ] = None,
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="To listen on; 0.0.0.0 for all networks.")
    ] = "127.0.0.1:8000",
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/CONFIG.")] = None,
    set_: Changes = None,
    overwrite: Overwrite = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Plain text and no keys; on 127.0.0.1 alone.")
    ] = False,
) -> None:
    """Tune a prompt with nodes on other machines; the examples stay there. Needs Flower.

    After a crash: fedbbpt resume DIR, with the same nodes.
    """
    from fedbbpt.cli.machines import server as serve

    serve(config, certs, address, out or Path("runs") / config.stem, set_, overwrite, insecure)


@many.command(
    epilog="Example: `fedbbpt node certs/ash --data ward.csv --server fed.example.org:8000`"
)
def node(
    invitation: Annotated[Path, typer.Argument(help="Folder from fedbbpt certs.")],
    data: Annotated[Path, typer.Option(help="Your examples; they stay here.")],
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where fedbbpt server listens.")
    ] = "127.0.0.1:8000",
    test: Annotated[Path | None, typer.Option(help="Examples to score the result on.")] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND | A=B", help="Your model: a kind of box, then its options."),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Ledger and log of what left; default nodes/NAME.")
    ] = None,
    set_: Changes = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write one update to HOME and send nothing.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Plain text; to a server on this machine alone.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the server.")] = 60.0,
) -> None:
    """Take part in a federation with your own examples, model and purse. Needs Flower.

    Says first what will leave this machine, and keeps every byte that did.
    """
    from fedbbpt.cli.machines import Own
    from fedbbpt.cli.machines import node as take_part

    own = Own(data, test, box or [], set_ or [], home or Path("nodes") / invitation.resolve().name)
    take_part(invitation, server, own, dry_run, insecure, wait)


@many.command(
    epilog="Example: `fedbbpt certs fed.toml --nodes ash --nodes birch --host fed.example.org`"
)
def certs(
    config: ConfigFile,
    nodes: Annotated[
        list[str], typer.Option(metavar="NAME", help="A node to invite; give one for each.")
    ],
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDR", help="By which nodes reach the server: an address or name."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of keys and invitations.")] = Path("certs"),
    days: Annotated[int, typer.Option(help="How long certificates made now are valid.")] = 365,
) -> None:
    """Make certificates for a server and an invitation for every node; again to add nodes."""
    from fedbbpt.cli.sites import certs as make

    make(config, nodes, host or [], out, days)
