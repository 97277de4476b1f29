"""What a person asks before a run: what it will cost, and whether this model can do it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedbbpt.config import read
from fedbbpt.doctor import Report
from fedbbpt.doctor import doctor as examine
from fedbbpt.plan import Cap, Plan, Share
from fedbbpt.plan import plan as make_plan

ALL = "(for all)"
UNKNOWN = "—"
console = Console(highlight=False, soft_wrap=True)


# --- plan ----------------------------------------------------------------------------------------


def plan(path: Path, overrides: Sequence[str], latency: float, as_json: bool) -> None:
    """What a run will take, before anything is paid."""
    config = read(path, overrides)
    with Console(stderr=True).status("rehearsing the run; the model is asked nothing"):
        found = make_plan(config, latency)
    if as_json:
        _json(found.tree())
        return
    _say(f"{found.method} on {found.box}: {found.clients} clients, {found.rounds} rounds")
    for name, line in _lines(found):
        _say(f"{name:<10}{line}")
    for cap in found.caps:
        _say(f"{'cap':<10}{_cap(cap)}")
    console.print(_by_client(found))
    if found.stopped == "rounds" and found.rounds < config.rounds.max:
        _say(f"{'note':<10}the rehearsed search ran out of ideas early; a real one may go on")
    if config.run.ledger and Path(config.run.ledger).exists():
        _say(f"{'note':<10}what {config.run.ledger} holds of this is not paid again")


def _lines(found: Plan) -> list[tuple[str, str]]:
    queries = found.queries
    local = "this model sends no bill"
    return [
        (
            "queries",
            f"{queries['train']} for training, {queries['select']} to select, "
            f"{queries['evaluation']} to evaluate; {queries['asked']} of these "
            f"{queries['total']} reach the model",
        ),
        ("calls", f"{found.calls}" + ("" if found.requests is None else _requests(found))),
        ("tokens", local if found.tokens is None else _tokens(found.tokens)),
        ("dollars", UNKNOWN if found.usd is None else f"{found.usd:.4f}"),
        (
            "hours",
            UNKNOWN
            if found.hours is None
            else f"{found.hours:.2f}, at {found.latency:g} s a request and by the box's limits",
        ),
    ]


def _requests(found: Plan) -> str:
    return f", which make {found.requests} requests"


def _tokens(tokens: dict[str, int]) -> str:
    return f"{tokens['prompt']} of prompts, {tokens['completion']} of replies"


def _cap(cap: Cap) -> str:
    after = "ends the search" if cap.binds else "does not bind"
    return f"{cap.key} = {cap.limit:g}: {cap.expected:.6g} will be spent; {after}"


def _by_client(found: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    wired = found.requests is not None
    heads = ["client", "training", "select", "evaluate"]
    for head in [*heads, *(["requests", "tokens", "dollars"] if wired else [])]:
        table.add_column(head, justify="left" if head == "client" else "right")
    for share in found.shares:
        table.add_row(*_cells(share, found, wired))
    return table


def _cells(share: Share, found: Plan, wired: bool) -> list[str]:
    own = [share.client or ALL, *map(str, (share.train, share.select, share.evaluation))]
    if not wired:
        return own
    usd = UNKNOWN if found.usd is None else f"{share.usd:.4f}"
    return [*own, str(share.requests), str(share.tokens), usd]


# --- doctor --------------------------------------------------------------------------------------


def doctor(path: Path, overrides: Sequence[str], as_json: bool) -> None:
    """What a box can do; exit code 1 where the config cannot be run."""
    with Console(stderr=True).status("asking the model"):
        report = examine(path, overrides)
    if as_json:
        _json(report.tree())
    else:
        _tell(report)
    if not report.possible:
        raise SystemExit(1)


def _tell(report: Report) -> None:
    _say(report.box)
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")  # else a long name would lose its end
    for finding in report.findings:
        mark = {True: "yes", False: "no", None: "-"}[finding.ok]
        seen = f"{finding.seen}; {finding.advice}" if finding.advice else finding.seen
        table.add_row(Text(finding.check), Text(mark), Text(seen))
    console.print(table)
    bill = f", {report.tokens} tokens, ${report.usd:.4f}" if report.tokens else ""
    _say(f"asked     {report.requests} times{bill}")
    found = report.recommended
    if found is None:
        _say("advice    nothing can be tuned on this box as it is")
    else:
        _say(f"advice    {found.method}: {found.prompt} prompt, {found.side} side, {found.loss}")
        for reason in found.reasons:
            _say(f"          {reason}")
    _say("verdict   " + ("a run is possible" if report.possible else "a run is not possible"))


# --- both ----------------------------------------------------------------------------------------


def _json(tree: dict[str, Any]) -> None:
    print(json.dumps(tree, indent=2, ensure_ascii=False))


def _say(line: str) -> None:
    console.print(line, markup=False)
