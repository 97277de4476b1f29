"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an old run; its paid queries are kept.")
]
RunDir = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a finished run.")]
ConfigFile = Annotated[Path, typer.Argument(help="TOML file; see examples/.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key of the config.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DebugFlag = typer.Option("--debug", help="Show the traceback of an error.", is_eager=True)
