"""What a user calls from Python: :func:`run`, :func:`resume`, and :mod:`fedbbpt.pairs`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt import alone, artefact, registry
from fedbbpt.artefact import Tuned
from fedbbpt.auto import settle
from fedbbpt.black_box import AtomicBox
from fedbbpt.build import build
from fedbbpt.closing import declare, leave, name_words
from fedbbpt.config import Config, read
from fedbbpt.following import Following
from fedbbpt.ledger import Ledger
from fedbbpt.needs import count_needs, meet
from fedbbpt.outcome import Outcome
from fedbbpt.post import Post
from fedbbpt.record import read_json, write_json
from fedbbpt.report.pictures import draw
from fedbbpt.result import judge, result
from fedbbpt.rundir import (
    RESULT,
    RunDir,
    begun,
    create,
    ledger_path,
    refuse_unless_free,
    reopen,
)
from fedbbpt.runner import Progress, Run
from fedbbpt.sections import AUTO
from fedbbpt.sharing import Split, examples, only


def quiet(event: str, facts: dict[str, Any]) -> None:
    """Progress for nobody."""


def run(
    config: Config | str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = quiet,
    box: AtomicBox | None = None,
    split: Split | None = None,
    post: Post | None = None,
    why: Sequence[str] = (),
) -> Outcome:
    """Tune a prompt as a config says.

    Args:
        config: a config or the path of a TOML file.
        out: the run directory.
        overrides: ``"section.key=value"`` over a config file.
        overwrite: replace an old run in ``out``; its ledger stays, those queries are paid.
        progress: told about phases and rounds.
        box: a box made already, instead of the one the config names.
        split: examples shared out already, instead of the files the config names.
        post: the way to clients on other machines, whose examples stay there.
        why: reasons for the method, where it was chosen already.

    Raises:
        UsageError: the request is at fault; nothing was paid, no directory was made.
        BoxError: the model failed for good; the run can be resumed.
    """
    if not isinstance(config, Config):
        config = read(Path(config), overrides)
    out = Path(out)
    refuse_unless_free(out, overwrite)
    began = time.perf_counter()
    progress("phase", {"name": "load"})
    config, box, reasons = settle(config, box, split)
    why = why or reasons
    if why:
        progress("chosen", {"method": config.method.name, "why": why})
    split = examples(config) if split is None else split

    def place() -> RunDir:
        return create(out, config)

    if config.method.clients == "alone":
        return _alone(config, split, box, out, place, progress)
    return _carry_out(config, split, box, out, place, progress, began, post, why)


def resume(
    out: str | Path,
    *,
    progress: Progress = quiet,
    box: AtomicBox | None = None,
    split: Split | None = None,
    post: Post | None = None,
) -> Outcome:
    """Go on with a run that was cut off; a finished one repeats its last pass from its ledger.

    Args:
        out: its directory.
        progress, box, split, post: as in :func:`run`.

    Raises:
        RunDirError: there is no run, or its config or data changed since it began.
    """
    out = Path(out)
    config = read(out / "config.toml")
    directory = reopen(out, config)
    began = time.perf_counter()
    progress("phase", {"name": "load"})
    split = examples(config) if split is None else split
    if config.method.clients == "alone":
        return _alone(config, split, box, out, lambda: directory, progress)
    return _carry_out(config, split, box, out, lambda: directory, progress, began, post)


def complete(
    config: Config,
    out: Path,
    *,
    progress: Progress = quiet,
    load: Callable[[], AtomicBox] | None = None,
    split: Split | None = None,
) -> dict[str, Any]:
    """The result of a run: read if the run is finished, else it is gone on with, or begun.

    Args:
        config: of the run.
        out: the run directory; what another config or other data left there is replaced.
        load: makes the box, where one is needed.
        progress, split: as in :func:`run`.

    Raises:
        UsageError, BoxError: as :func:`run` does.
    """
    why: Sequence[str] = ()
    if config.method.name == AUTO:
        config, _, why = settle(config, load() if load else None, split)
    same = begun(out, config)
    if same and (out / RESULT).is_file():
        return read_json(out / RESULT)
    box = load() if load else None
    if same:
        return resume(out, progress=progress, box=box, split=split).result
    return run(config, out, overwrite=True, progress=progress, box=box, split=split, why=why).result


def _carry_out(
    config: Config,
    split: Split,
    box: AtomicBox | None,
    out: Path,
    directory: Callable[[], RunDir],
    progress: Progress,
    began: float,
    post: Post | None,
    why: Sequence[str] = (),
) -> Outcome:
    """Build, then run in the directory that ``directory()`` makes once nothing can be refused."""
    alone.refuse_elsewhere(config)
    followed = Following(config)
    ledger = Ledger()
    federation = meet(build(config, split, ledger, box, post))
    needs = count_needs(federation)
    with ExitStack() as opened:
        opened.callback(ledger.close)
        opened.enter_context(followed)
        path = ledger_path(out, config)
        # Opened first where that is possible: a broken ledger must not cost an old run.
        shared = bool(config.run.ledger)
        early = path.exists() or shared
        if early:
            ledger.open(path, shared)
        place = followed.begin(directory())
        if not early:
            ledger.open(path)
        ledger.run = place.run
        federation.engine.begin(place.run)
        work = Run(federation, place, ledger, followed.listening(progress))
        opened.callback(work.books.close)
        if why:
            work.books.events.write("chosen", method=config.method.name, why=list(why))
        counts = work.books.counts
        counts.total = counts.setup + counts.search  # by earlier processes of this run
        counts.setup += time.perf_counter() - began
        progress("phase", {"name": "search", "budget": config.budget.queries})
        if federation.baseline is None:
            work.search(needs)
        return _finish(work, began, followed)


def _alone(
    config: Config,
    split: Split,
    box: AtomicBox | None,
    out: Path,
    directory: Callable[[], RunDir],
    progress: Progress,
) -> Outcome:
    """A run for each client, one after another; finished ones are not begun again."""
    Following(config)  # refused now, if at all
    model = box or registry.make("boxes", config.box.kind, config.box.options, "box")
    each = alone.shares(config, split, model, ledger_path(out, config))
    path = directory().path
    results = {
        name: complete(
            own,
            alone.folder(path, name),
            progress=progress,
            load=lambda: model,
            split=only(split, name),
        )
        for name, own in each.items()
    }
    content = alone.mean_of(results, config, split)
    write_json(path / RESULT, content)
    warnings = (*alone.warnings(path, list(results)), *leave(path))
    return Outcome(content, None, path, alone.by_client(results), warnings)


def _finish(work: Run, began: float, followed: Following) -> Outcome:
    federation = work.federation
    verdict = judge(work)
    tuned = None
    if federation.baseline is None:
        points = np.array(work.books.snapshots.points)
        point, prompt = points[verdict.chosen], work.parts.snapshots(points)[verdict.chosen]
        facts = {
            "text": list(work.parts.prompt.read(prompt)),
            "classes": list(federation.split.classes),
            "box": federation.box.name,
            "pictures": federation.split.pictures,
        }
        artefact.save(work.directory.prompt, prompt, point, facts)
        name_words(work, prompt)
        tuned = Tuned(federation.box, prompt, federation.split.classes)
    work.books.counts.total += time.perf_counter() - began
    content, requests = result(work, verdict), work.ledger.requests()
    if requests:
        work.books.events.write("requests", **requests)
    declare(work)
    write_json(work.directory.path / RESULT, content)
    split, visual = federation.split, tuned.prompt.visual if tuned else None
    hindered = draw(work.directory.pictures, visual, federation.box.vision, split)
    work.books.events.flush()
    missing = (*hindered, *leave(work.directory.path))
    followed.end(content, work.directory.path)
    found = (finding.sentence for finding in verdict.warnings)
    warnings = (*work.notes, *found, *missing, *followed.warnings)
    return Outcome(content, tuned, work.directory.path, verdict.by_client, warnings, requests)
