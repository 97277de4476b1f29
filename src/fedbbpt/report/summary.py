"""Rows of a comparison as a table: one line per method, mean over seeds with a 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.maths.intervals import mean_interval, paired_p

Row = dict[str, Any]

LOCAL, WHITE = "local-only", "white-box"
"""Methods (as labelled) that the remarks below a table look for."""


class Line(NamedTuple):
    """One method at one budget in one setting.

    Attributes:
        data, setting, budget, method: which.
        scores: by seed.
        score: mean, ``half`` half the width of its interval; ``nan`` without any score.
        change: mean difference from the baseline over the seeds that both have.
        p: of the paired test against it.
        rows: behind it.
        note: why there is no score, or which seeds are missing.
    """

    data: str
    setting: str
    budget: int
    method: str
    scores: dict[int, float]
    score: float
    half: float
    change: float | None
    p: float | None
    rows: tuple[Row, ...]
    note: str


def lines(rows: Sequence[Row], baseline: str) -> list[Line]:
    """Lines in the order in which data, settings, budgets and methods first appear."""
    found = [_line(list(group)) for group in _grouped(rows)]
    rivals = {_where(line): line for line in found if line.method == baseline}
    return [_against(line, rivals.get(_where(line))) for line in found]


def _grouped(rows: Sequence[Row]) -> list[list[Row]]:
    places: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row["data"], row["setting"], row["budget"], row["method"])
        places.setdefault(key, []).append(row)
    order = {key: i for i, key in enumerate(places)}
    settings = {key[:2]: i for key, i in reversed(order.items())}
    methods = {key[3]: i for key, i in reversed(order.items())}
    return [
        places[key] for key in sorted(places, key=lambda k: (settings[k[:2]], k[2], methods[k[3]]))
    ]


def _line(group: list[Row]) -> Line:
    first = group[0]
    scores = {row["seed"]: row["score"] for row in group if row.get("score") is not None}
    score, half = mean_interval(np.array([*scores.values()])) if scores else (np.nan, 0.0)
    missing = [row for row in group if row["seed"] not in scores]
    note = missing[0]["note"] if missing else ""
    if missing and scores:
        note = f"{len(scores)} of {len(group)} seeds; {note}"
    place = (first["data"], first["setting"], first["budget"], first["method"])
    return Line(*place, scores, score, half, None, None, tuple(group), note)


def _where(line: Line) -> tuple[Any, ...]:
    return line.data, line.setting, line.budget


def _against(line: Line, rival: Line | None) -> Line:
    if rival is None or line.method == rival.method:
        return line
    both = [seed for seed in line.scores if seed in rival.scores]
    if not both:
        return line
    one, other = (np.array([x.scores[seed] for seed in both]) for x in (line, rival))
    return line._replace(change=float(np.mean(one - other)), p=paired_p(one, other))


# --- as text -------------------------------------------------------------------------------------

HEADER = (
    "method",
    "score ± 95 %",
    "against {}",
    "p",
    "worse than start",
    "train queries",
    "bytes up / down",
    "seconds",
)


def cells(line: Line) -> list[str]:
    """The line as the columns of ``HEADER``."""
    if not line.scores:
        short = f"-, {line.note}" if line.note.startswith("needs") else "-"
        return [line.method, short, *[""] * (len(HEADER) - 2)]
    rows = [row for row in line.rows if row.get("score") is not None]
    worse = sum((row["gain_high"] or 0.0) < 0 for row in rows)

    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    half = f" ± {line.half:.3f}" if len(rows) > 1 else ""
    note = f" ({line.note})" if line.note else ""
    return [
        line.method,
        f"{line.score:.3f}{half}{note}",
        "" if line.change is None else f"{line.change:+.3f}",
        "" if line.p is None else f"{line.p:.3f}",
        f"{worse} of {len(rows)}",
        f"{mean('train_queries'):.0f}",
        f"{mean('bytes_up'):.0f} / {mean('bytes_down'):.0f}",
        f"{mean('seconds'):.1f}",
    ]


def title(line: Line) -> str:
    """Which table a line belongs to."""
    seeds = ", ".join(str(row["seed"]) for row in line.rows)
    setting = f", {line.setting}" if line.setting else ""
    return f"{line.data}{setting}, {line.budget} queries, seeds {seeds}"


def tables(found: Sequence[Line]) -> list[tuple[str, list[list[str]]]]:
    """(title, rows of cells) of each data set, setting and budget."""
    grouped = [list(group) for _, group in groupby(found, _where)]
    return [(title(group[0]), [cells(line) for line in group]) for group in grouped]


def markdown(found: Sequence[Line], baseline: str) -> str:
    """All tables and remarks."""
    head = [name.format(baseline) for name in HEADER]
    parts = []
    for name, rows in tables(found):
        body = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
        parts.append("\n".join([f"### {name}", "", *body]))
    said = [f"- {remark}" for remark in remarks(found)]
    return "\n\n".join([*parts, *(["\n".join(said)] if said else [])]) + "\n"


# --- remarks -------------------------------------------------------------------------------------


def remarks(found: Sequence[Line]) -> list[str]:
    """What the tables say about federation and about the price of black-box access."""
    said = []
    for _, group in groupby(found, _where):
        listed = list(group)
        said += [*_federation(listed), *_price(listed)]
    refused = {line.method: line.note for line in found if line.note and not line.scores}
    said += [f"{method}: {note}" for method, note in refused.items() if note[:5] != "needs"]
    return said


def _searches(group: Sequence[Line]) -> list[Line]:
    """Lines of the federated black-box searches."""
    others = (LOCAL, "centralised", "random-search")
    return [
        line
        for line in group
        if line.scores
        and not line.method.startswith((*others, WHITE))
        and any(len(row["curve"]) > 1 for row in line.rows)
    ]


def _federation(group: Sequence[Line]) -> list[str]:
    """Whether federation still helps over everyone tuning alone."""
    alone = next((line for line in group if line.method == LOCAL and line.scores), None)
    rivals = _searches(group)
    if alone is None or not rivals:
        return []
    best = max(rivals, key=lambda line: line.score)
    change = best.score - alone.score
    where = f"{best.data}{', ' + best.setting if best.setting else ''} at {best.budget}"
    verb = "helps" if change > 0 else "stops helping"
    return [f"{where}: federation {verb} ({best.method} {change:+.3f} against {LOCAL})"]


def _price(group: Sequence[Line]) -> list[str]:
    """White-box tuning against the best search, and when the search got there."""
    white = next((line for line in group if line.method == WHITE and line.scores), None)
    rivals = _searches(group)
    if white is None or not rivals:
        return []
    best = max(rivals, key=lambda line: line.score)
    reached = {line.method: reaches(line, white.score) for line in rivals}
    first = (
        min((q, name) for name, q in reached.items() if q is not None)
        if any(q is not None for q in reached.values())
        else None
    )
    when = (
        f"{first[1]} reached it after {first[0]:.0f} queries" if first else "no search reached it"
    )
    return [
        f"{best.data}{', ' + best.setting if best.setting else ''} at {best.budget}: {WHITE} minus "
        f"the best black-box method ({best.method}) is {white.score - best.score:+.3f}; {when}"
    ]


def reaches(line: Line, level: float) -> float | None:
    """Queries after which the mean curve over seeds is first at ``level``."""
    for queries, score, _ in mean_curve([row["curve"] for row in line.rows]):
        # What the start can do already, no query reaches.
        if score >= level and queries:
            return queries
    return None


def mean_curve(
    curves: Sequence[Sequence[tuple[float, float]]],
) -> list[tuple[float, float, float]]:
    """(queries, mean score, half of its interval) over curves of (queries, score).

    Every curve is a staircase: between two snapshots the earlier one counts. The mean is given
    where all have a snapshot behind them.
    """
    steps = [np.array(curve, float) for curve in curves if curve]
    steps = [curve for curve in steps if np.isfinite(curve).all()]
    found = []
    for queries in sorted({q for curve in steps for q in curve[:, 0]}):
        at = [np.searchsorted(curve[:, 0], queries, side="right") - 1 for curve in steps]
        if min(at) >= 0:
            now = np.array([curve[i, 1] for curve, i in zip(steps, at, strict=True)])
            found.append((float(queries), *mean_interval(now)))
    return found
