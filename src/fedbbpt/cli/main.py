"""The command line: parses, calls, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.many import many
from fedbbpt.cli.words import AsJson, Changes, ConfigFile, DebugFlag, Overwrite, RunDir
from fedbbpt.errors import FedbbptError, UsageError

app = typer.Typer(
    name="fedbbpt",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Tune one prompt for a model you can only query, together with others, "
    "without showing them your data.",
)


@app.callback()
def options(debug: Annotated[bool, DebugFlag] = False) -> None:
    """Options before the command."""


@app.command(epilog="Example: `fedbbpt demo`, or `fedbbpt demo vision --out runs/digits`")
def demo(
    what: Annotated[
        str, typer.Argument(metavar="[tickets|vision|instructions]", help="Which.")
    ] = "tickets",
    out: Annotated[
        Path | None, typer.Option(help="Run directory; default runs/demo, or runs/demo-WHAT.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Five fictional sites tune one prompt, in under a minute.

    With **tickets**, help desks tune the words around their requests on a real language model.
    With **vision**, post offices tune a look at handwritten digits on a small network.
    With **instructions**, language schools look for the words to ask a simulated chat model with.
    """
    from fedbbpt.cli.demos import show

    show(what, out, overwrite)


@app.command(epilog="Example: `fedbbpt run examples/sst2.toml --set run.seed=1 --out runs/sst2-1`")
def run(
    config: Annotated[Path, typer.Argument(help="TOML file; see examples/.")],
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/CONFIG.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key of the config.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Tune a prompt as a config says; writes result.json, the prompt and the ledger."""
    from fedbbpt.cli.show import follow

    follow("run", config, out or Path("runs") / config.stem, set_ or [], overwrite)


@app.command(epilog="Example: `fedbbpt plan examples/sst2.toml --set budget.usd=5`")
def plan(
    config: ConfigFile,
    set_: Changes = None,
    latency: Annotated[
        float, typer.Option(help="Seconds that a request over a wire needs; see doctor.")
    ] = 1.0,
    json: AsJson = False,
) -> None:
    """What a run will take: queries, requests, tokens, dollars, hours. Asks the model nothing."""
    from fedbbpt.cli.ask import plan as make

    make(config, set_ or [], latency, json)


@app.command(epilog="Example: `fedbbpt doctor examples/sst2.toml`")
def doctor(config: ConfigFile, set_: Changes = None, json: AsJson = False) -> None:
    """Find out in about ten cheap calls what a model can do; says what to tune, and how."""
    from fedbbpt.cli.ask import doctor as examine

    examine(config, set_ or [], json)


@app.command(epilog="Example: `fedbbpt resume runs/sst2`")
def resume(out: Annotated[Path, typer.Argument(metavar="DIR", help="Its directory.")]) -> None:
    """Go on with a run that was cut off; no recorded query is paid twice."""
    from fedbbpt.cli.machines import resume as go_on

    go_on(out)


@app.command(epilog="Example: `fedbbpt compare examples/compare-sst2.toml --seeds 5 --jobs 2`")
def compare(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CONFIG...", help="TOML files; one has [compare].")
    ],
    seeds: Annotated[int | None, typer.Option(min=1, help="How many of the seeds to run.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes; each loads the model.")] = 1,
    sweep: Annotated[
        str, typer.Option(metavar="A.B=V,W", help="Repeat for these values of one key.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Its directory; default runs/compare-CONFIG.")
    ] = None,
) -> None:
    """Methods side by side at equal budgets; give the same command again to go on after a stop."""
    from fedbbpt.cli.table import compare as run_compare

    run_compare(configs, out or Path("runs") / f"compare-{configs[0].stem}", seeds, jobs, sweep)


@app.command(epilog="Example: `fedbbpt predict runs/sst2 --input new.csv --output answers.csv`")
def predict(
    run: RunDir,
    input: Annotated[
        Path,
        typer.Option(
            help="CSV, TSV, JSONL or Parquet, as in training; or images: a folder, a tar or one."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="CSV, TSV or JSONL; default standard output.")
    ] = None,
) -> None:
    """Label new texts or images with the tuned prompt; other columns are passed through."""
    from fedbbpt.cli.use import predict as label

    label(run, input, output)


@app.command(epilog="Example: `fedbbpt export runs/sst2 --to text`")
def export(
    run: RunDir,
    to: Annotated[str, typer.Option(help="text, openai, peft or dspy.")],
    out: Annotated[Path | None, typer.Option(help="File or folder; default DIR/export/...")] = None,
) -> None:
    """Write the tuned prompt in another program's form, tested against what was tuned."""
    from fedbbpt.cli.use import export as write

    write(run, to, out)


@app.command(epilog="Example: `fedbbpt report runs/sst2`, or `fedbbpt report runs/a runs/b`")
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Directories of runs, or of comparisons."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File; default DIR/report.html, of several report.html here."),
    ] = None,
    against: Annotated[
        str, typer.Option(metavar="METHOD", help="Of several: test the others against this one.")
    ] = "",
) -> None:
    """One page on a run, or on several side by side, that needs no network to be read.

    It holds no example; pictures of examples are left out.
    """
    from fedbbpt.cli.reports import report as write

    write(runs, out, against)


@app.command("serve-model", epilog="Example: `fedbbpt serve-model examples/sst2.toml --port 8080`")
def serve_model(
    config: Annotated[Path, typer.Argument(help="TOML file with [box], maybe [gateway].")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any free one.")] = 8080,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key of the config.")
    ] = None,
) -> None:
    """Serve a local model over HTTP to everyone who tunes on it; loads it once."""
    from fedbbpt.cli.serve import serve_model as serve

    serve(config, host, port, set_ or [])


@app.command("serve-prompt", epilog="Example: `fedbbpt serve-prompt runs/tickets --port 8100`")
def serve_prompt(
    run: RunDir,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any free one.")] = 8100,
    key_env: Annotated[
        str, typer.Option(help="Variable with the bearer key that callers must show.")
    ] = "",
) -> None:
    """An OpenAI-compatible server that puts the tuned prompt around what its callers send."""
    from fedbbpt.cli.use import serve_prompt as serve

    serve(run, host, port, key_env)


@app.command("list", epilog="Example: `fedbbpt list optimizers`")
def list_(
    group: Annotated[str | None, typer.Argument(help="methods, optimizers, boxes, ...")] = None,
) -> None:
    """Name the methods and plug-ins there are, with a line on each."""
    from fedbbpt.cli.show import listing

    listing(group)


app.add_typer(many)


def main() -> None:
    """Entry point: 0 only on success, 2 for a request at fault, one sentence on stderr."""
    debug = "--debug" in sys.argv
    try:
        app(standalone_mode=True)
    except FedbbptError as error:
        if debug:
            raise
        print(f"fedbbpt: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None


if __name__ == "__main__":
    main()
