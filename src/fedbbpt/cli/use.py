"""What a person does with a tuned prompt: predict, export, serve."""

from __future__ import annotations

import csv
import json
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedbbpt.data import answers, load, pictures
from fedbbpt.errors import ConfigError, DataError, FedbbptError, MissingExtra
from fedbbpt.finished import Finished, Prediction, Predictor, open_run
from fedbbpt.sharing import read_table
from fedbbpt.till import AccountTill, Bill, Caps, Tills
from fedbbpt.types import Receipt

CHUNK = 64
"""Examples in one call: enough to fill a batch or the requests in flight, few enough that the bar
moves and that little is lost when a paid model fails on the way."""

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
LINES = (".jsonl", ".ndjson")

# Standard output is for predictions alone.
console = Console(stderr=True, highlight=False, soft_wrap=True)


# --- predict -------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One example without a label.

    Attributes:
        cells: all that its row holds, by column.
        open: gives the text or the picture; or ``None`` and the reason.
        name: of an image, its file.
    """

    cells: Mapping[str, Any]
    open: Callable[[], tuple[Any, str]]
    name: str = ""


def predict(path: Path, source: Path, target: Path | None) -> None:
    """What the tuned prompt makes of every row of a file, into a file or to standard output."""
    run = open_run(path)
    examples, what = _read(run, source), "images" if run.pictures else "texts"
    layout = _layout(source, target)
    bills: list[Bill] = []
    predictor = run.predictor(_till(bills))
    model = predictor.tuned.box.name
    if model != run.model:
        _say(f"note      the prompt was tuned on {run.model}; what answers is {model}")
    bare = run.pictures and pictures.holds_pictures(source)
    rename = partial(_added, predictor=predictor, column="label" if bare else "prediction")
    added = rename(Prediction("", 0.0))
    columns = list(dict.fromkeys(column for example in examples for column in example.cells))
    for column in added:
        if column in columns:
            raise DataError(f"{source} has a column '{column}' already; rename it")
    with _opened(target) as file:
        write = _writer(file, layout, [*columns, *added])
        faults, silent = _answer(
            examples,
            predictor,
            lambda cells, found: (write({**cells, **rename(found)}), file.flush()),
        )
    if faults:
        said = pictures.left_out(faults, len(examples), "input", "have no label")
        if len(faults) == len(examples):
            raise DataError(f"{source}: {said}")
        _say(f"note      {said}")
    told = f"{len(examples) - len(faults)} {what} answered by {model}"
    _say(told + (f", {silent} of them with no prediction" if silent else ""))
    if bills:
        tokens, usd = sum(bill.tokens for bill in bills), sum(bill.usd for bill in bills)
        _say(f"billed    {len(bills)} requests, {tokens} tokens" + (f", ${usd:.4f}" if usd else ""))


def _till(bills: list[Bill]) -> AccountTill:
    """A till without a cap that notes what is billed."""

    def note(account: str, round: int, receipt: Receipt, rows: object) -> None:
        tokens = receipt.prompt_tokens + receipt.completion_tokens
        if tokens or receipt.usd:
            bills.append(Bill(1, tokens, receipt.usd))

    return Tills(Caps(), note, dict).open("predict", 0, True)


def _read(run: Finished, source: Path) -> list[Row]:
    """What wants a label or an answer: images as they lie in a folder; or the rows of a file that
    is laid out as the run's training data, but for the label.
    """
    data, words = run.config.data, not run.classes
    text = answers.INPUTS if words and data.text == "text" else data.text
    if words and ".json" in source.suffixes[-2:]:  # of tasks, which come with their answers
        inputs = read_table(run.config, str(source)).inputs
        return [Row({"input": one}, partial(_text, one)) for one in inputs]
    if run.pictures and pictures.holds_pictures(source):
        found = pictures.unlabelled(source)
        return [Row({"image": f.name}, partial(f.open, data.pixels), f.name) for f in found]
    rows = load.unlabelled(
        source,
        text=(data.image or "image") if run.pictures else text,
        header=data.columns,
        repeats=data.repeats,
        blank=data.blank,
    )
    if not run.pictures:
        return [Row(row.cells, partial(_text, row.text)) for row in rows]
    files = pictures.listed([row.text for row in rows], source)
    return [
        Row(row.cells, partial(file.open, data.pixels), file.name)
        for row, file in zip(rows, files, strict=True)
    ]


def _text(text: str) -> tuple[str, str]:
    return text, ""


def _answer(
    examples: Sequence[Row],
    predictor: Predictor,
    write: Callable[[Mapping[str, Any], Prediction], object],
) -> tuple[list[str], int]:
    """Ask and write chunk by chunk; returns ``"name: reason"`` of all that could not be read, and
    how many of the others got no prediction.
    """
    faults: list[str] = []
    done = silent = 0
    try:
        with _bar() as bar:
            task = bar.add_task("predicting", total=len(examples))
            for start in range(0, len(examples), CHUNK):
                some = examples[start : start + CHUNK]
                opened = [row.open() for row in some]
                asked = [one for one, fault in opened if not fault]
                found = iter(predictor(asked) if asked else ())
                for row, (_, fault) in zip(some, opened, strict=True):
                    one = Prediction(None, None) if fault else next(found)
                    write(row.cells, one)
                    silent += one.answer is None and not fault
                    faults += [f"{row.name}: {fault}"] * bool(fault)
                done += len(some)
                bar.update(task, completed=done)
    except (FedbbptError, KeyboardInterrupt):
        _say(f"{done} of {len(examples)} predictions were written")
        raise
    return faults, silent


def _added(found: Prediction, predictor: Predictor, column: str) -> dict[str, Any]:
    """The columns that a prediction adds to its row."""
    if predictor.task.numbers or predictor.task.words:
        return {column: found.answer}
    share = None if found.probability is None else round(found.probability, 6)
    return {column: found.answer, "probability": share}


def _layout(source: Path, target: Path | None) -> str:
    """The suffix that says how to write: that of the output file, else that of the input."""
    known = [*SEPARATORS, *LINES]
    if target is None:
        suffix = Path(source.name.lower().removesuffix(".gz")).suffix
        return suffix if suffix in known else LINES[0]
    suffix = target.suffix.lower()
    if suffix not in known:
        raise DataError(f"--output {target} has the suffix '{suffix}'; known: {', '.join(known)}")
    if target.exists() and source.exists() and target.samefile(source):
        raise DataError(f"--output {target} is the input itself; name another file")
    return suffix


@contextmanager
def _opened(target: Path | None) -> Iterator[TextIO]:
    """The output."""
    if target is None:
        yield sys.stdout
        return
    try:
        file = target.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"--output {target} cannot be written ({error.strerror})") from None
    with file:
        yield file


def _writer(file: TextIO, layout: str, columns: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    """What writes one row."""
    if layout in LINES:

        def line(cells: dict[str, Any]) -> None:
            file.write(json.dumps(cells, ensure_ascii=False, default=str) + "\n")

        return line
    table = csv.DictWriter(
        file, columns, restval="", delimiter=SEPARATORS[layout], lineterminator="\n"
    )
    table.writeheader()

    def row(cells: dict[str, Any]) -> None:
        nested = {k: v for k, v in cells.items() if isinstance(v, dict | list)}
        table.writerow(cells | {k: json.dumps(v, default=str) for k, v in nested.items()})

    return row


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _say(line: str) -> None:
    console.print(line, markup=False)


# --- export --------------------------------------------------------------------------------------


def export(path: Path, to: str, out: Path | None) -> None:
    """The tuned prompt in another form; says what was tested and where it is."""
    from fedbbpt.exports import export as write

    written = write(open_run(path), to, out)
    if to == "text":
        print(written.draft.files[""].decode())
    _say(f"self-test {written.draft.tested}")
    _say(f"written   {written.path}")


# --- serve ---------------------------------------------------------------------------------------


def serve_prompt(path: Path, host: str, port: int, key_env: str) -> None:
    """The tuned prompt as a server, until it is stopped."""
    from fedbbpt.service.proxy import caller_key, proxy

    run = open_run(path)
    app = proxy(run, caller_key(key_env, host))
    listen(app, host, port, "the prompt tuned on " + run.model)


def listen(app: Any, host: str, port: int, what: str) -> None:
    """Serve an application until SIGTERM or Ctrl-C, and say where.

    Raises:
        ConfigError: nothing can listen there.
        MissingExtra: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra(error.name or "uvicorn", "serve") from error
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without a protocol asyncio does not know TCP, and small packets wait for 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            raise ConfigError(f"{host}:{port} cannot be used ({error.strerror})") from None
        name = f"[{host}]" if ":" in host else host
        print(f"serving {what} on http://{name}:{door.getsockname()[1]}/v1", flush=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn answers what is on the way, ends, and raises the signal that it got again.
            signal.signal(number, lambda *_: None)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none")).run(sockets=[door])
