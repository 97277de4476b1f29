"""What a person sees: a progress bar, the outcome, lists."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
)
from rich.table import Table

from fedbbpt import api, registry
from fedbbpt.artefact import META
from fedbbpt.config import presets
from fedbbpt.egress import LOG
from fedbbpt.errors import UnknownPart, closest
from fedbbpt.outcome import Outcome
from fedbbpt.record import read_json
from fedbbpt.report.pages import PAGE
from fedbbpt.report.pictures import PROMPT, STRIP
from fedbbpt.report.sentences import verdict
from fedbbpt.rundir import CANDIDATES, FLOWER, RunDir
from fedbbpt.stopping import EARLY, early

PHASES = {
    "load": "loading the model and the examples",
    "search": "tuning",
    "select": "choosing on held-back examples",
    "evaluate": "reading the test split, once",
}
TOP = 5
"""Instructions to show."""
console = Console(highlight=False, soft_wrap=True)


class Bar:
    """Progress of a run as a bar over its budget, one step per round.

    Args:
        loading: what is done before the first round.
    """

    def __init__(self, loading: str = PHASES["load"]) -> None:
        self._phases = {**PHASES, "load": loading}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
        )
        self._task = self._progress.add_task(loading, total=None, state="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        """Take a progress event of a run."""
        if event == "phase":
            self._progress.update(self._task, description=self._phases[facts["name"]])
            if "budget" in facts:
                self._progress.update(self._task, total=facts["budget"])
        elif event == "round":
            loss = "-" if facts["loss"] is None else f"{facts['loss']:.4f}"
            state = f"round {facts['round'] + 1}  loss {loss}"
            self._progress.update(self._task, completed=facts["queries"], state=state)
        elif event == "chosen":
            console.print(f"method    {facts['method']}, chosen for this model, data and budget:")
            for reason in facts["why"]:
                console.print(f"          - {reason}", markup=False)
        elif event == "node":
            said = f"{facts['what']}: {facts['why']}" if facts["why"] else facts["what"]
            console.print(f"node      {facts['client']} {said}", markup=False)


def follow(
    command: str, source: Path, out: Path, overrides: Sequence[str], overwrite: bool
) -> None:
    """Run or resume under a progress bar, then tell what came of it."""

    def work(bar: Bar) -> Outcome:
        if command == "run":
            return api.run(source, out, overrides=overrides, overwrite=overwrite, progress=bar)
        return api.resume(out, progress=bar)

    watch(work, out)


def watch(work: Callable[[Bar], Outcome], out: Path, loading: str = PHASES["load"]) -> None:
    """Do some work on a run under a progress bar, then tell what came of it."""
    try:
        with Bar(loading) as bar:
            outcome = work(bar)
    except KeyboardInterrupt:
        begun = (out / "state" / "run.json").is_file()
        more = f"go on with: fedbbpt resume {out}" if begun else "nothing was paid"
        print(f"fedbbpt: interrupted; {more}", file=sys.stderr)
        raise SystemExit(130) from None
    tell(outcome)


def tell(outcome: Outcome) -> None:
    """Before and after, what it cost, where it is and what to do next."""
    result = outcome.result
    metric, queries, size = result["metric"], result["queries"], result["bytes"]
    if result["test_examples"]:
        low, high = result["gain_interval"]
        before, after = result["baseline"][metric], result["tuned"][metric]
        console.print(
            f"\n[bold]{metric}  {before:.3f} → {after:.3f}[/bold]   "
            f"gain {after - before:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}, "
            f"{result['test_examples']} test examples"
        )
        console.print(verdict(before, after, low, high))
        _by_client(outcome)
    if result["stopped"] in EARLY:
        console.print(early(result))
    _instructions(outcome)
    console.print(
        f"queries   {queries['train']} of {queries['budget']} for training, "
        f"{queries['select']} to select, {queries['evaluation']} to evaluate; "
        f"{queries['paid']} paid, {queries['cached']} answered by the ledger"
        + (f", {queries['dropped']} unanswered" if queries["dropped"] else "")
    )
    if outcome.requests:
        _requests(outcome.requests, result["cost_usd"])
    console.print(
        f"bytes     {size['up_per_client_round']:.0f} up and "
        f"{size['down_per_client_round']:.0f} down per client and round, "
        f"{result['clients']} clients, {result['rounds']} rounds"
    )
    seconds = result["seconds"]
    console.print(
        f"time      {seconds['total']:.1f} s, of which {seconds['search']:.1f} s search"
        + (f" ({_share(seconds):.0%} of it inside the model)" if seconds["box"] else "")
    )
    for sentence in outcome.warnings:
        console.print(f"warning   {sentence}", markup=False)
    _where(outcome)


def _where(outcome: Outcome) -> None:
    """Where everything is, and what to do next."""
    path, example = outcome.path, "examples/sst2.toml"
    lines = [f"run       {path} (stopped by: {outcome.result['stopped']})"]
    if (path / PAGE).is_file():
        lines.append(f"report    {path / PAGE}, a page to read and to forward")
    place = RunDir(path, "")
    strip, file = place.pictures / STRIP, place.prompt / META
    kept = read_json(file) if file.is_file() else {}
    if kept.get("pictures"):
        example = "examples/caltech101.toml"
    if (place.prompt / CANDIDATES).is_file():
        example = "examples/instruction.toml"
    if strip.is_file():
        lines.append(f"pictures  {strip}, and {PROMPT} beside it: private images")
        tuned, size = kept["parameters"], kept["bytes"]
        lines.append(f"prompt    {tuned} numbers were tuned; {size} bytes on disk")
    elif kept.get("side") == "image":
        lines.append("pictures  none: the chosen prompt leaves every image as it is")
    advice = f"tune on your own data: copy {example}, then fedbbpt run YOURS.toml"
    if (path / LOG).is_file() or (path / FLOWER).is_dir():  # of a node, or a server
        advice = f"label new examples: fedbbpt predict {path} --input FILE"
    lines += [
        f"next      {path}/result.json has the numbers, {path}/prompt the tuned prompt;",
        f"          {advice}",
    ]
    console.print("\n".join(lines), markup=False)


def _instructions(outcome: Outcome) -> None:
    """The instruction that was chosen, the user's own, and the best of the pool."""
    file = RunDir(outcome.path, "").prompt / CANDIDATES
    if not file.is_file():
        return
    listed = read_json(file)["candidates"]
    own = next(one for one in listed if not one["author"])
    chosen = next(one for one in listed if one["chosen"])
    lines = [f"chosen    {chosen['instruction']}", f"yours     {own['instruction']}"]
    tried = [one for one in listed if one["loss"] is not None]
    lines.append(
        f"pool      {len(listed)} instructions, {len(tried)} of them tried; the best, by the loss "
        "expected of them"
    )
    for one in tried[:TOP]:
        loss = f"{one['loss']:z.2f} ± {one['error']:.2f}"  # never -0.00
        lines.append(f"          {loss}  {one['instruction']}  ({one['author'] or 'yours'})")
    console.print("\n".join(lines), markup=False)


def _requests(sent: dict[str, Any], usd: float | None) -> None:
    """What went over the wire and what it cost."""
    price = "no price known" if usd is None else f"${usd:.4f}"
    console.print(
        f"requests  {sent['sent']} sent, {sent['failed']} failed, {sent['wasted']} of them billed; "
        f"{sent['prompt_tokens']} tokens sent, {sent['completion_tokens']} received; {price}"
    )
    if sent["unnamed"]:
        console.print(
            f"warning   {sent['unnamed']} replies named no label and count as wrong; say in the "
            "prompt which words to answer with"
        )


def listing(group: str | None) -> None:
    """Methods and plug-ins, a line each."""
    groups = ["methods", *registry.GROUPS]
    if group is not None and group not in groups:
        raise UnknownPart(f"there is no group '{group}'; {closest(group, groups)}")
    for name in [group] if group else groups:
        table = Table(title=name, title_justify="left", box=None, show_header=False)
        if name == "methods":
            for preset in presets():
                table.add_row(f"  {preset}", summary_of_preset(preset))
        else:
            for part in registry.names(name):
                table.add_row(f"  {part}", registry.summary(name, part))
        console.print(table)


def summary_of_preset(name: str) -> str:
    """First comment line of a preset."""
    from importlib.resources import files

    text = (files("fedbbpt.methods") / f"{name}.toml").read_text("utf-8")
    return text.partition("\n")[0].lstrip("# ")


def _by_client(outcome: Outcome) -> None:
    """Before and after for each client that has test examples of its own."""
    clients = outcome.by_client
    if len(clients) < 2:
        return
    cells = [f"{name} {old:.2f} → {new:.2f}" for name, (old, new) in clients.items()]
    console.print("sites     " + ",  ".join(cells))


def _share(seconds: dict[str, float]) -> float:
    return seconds["box"] / seconds["search"] if seconds["search"] else 0.0
