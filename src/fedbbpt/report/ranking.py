"""Tables and curves of several runs: who did best, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from fedbbpt.maths.intervals import mean_interval
from fedbbpt.report.charts import Curve, Scale, bar, chart
from fedbbpt.report.markup import NOTHING, Markup, section, table, tag, together
from fedbbpt.report.sentences import count, duration, interval, signed, size
from fedbbpt.report.summary import Line, mean_curve

CLEAR = 4
"""Most curves whose bands can still be told apart."""


def place(line: Line) -> tuple[str, str, int]:
    """The table in which a line belongs."""
    return line.data, line.setting, line.budget


def where(line: Line) -> str:
    """The same in words."""
    setting = f", {line.setting}" if line.setting else ""
    return f"{line.data}{setting}, {count(line.budget)} queries"


def ranked(group: Sequence[Line]) -> list[Line]:
    """Those with a score, the best first."""
    return sorted((line for line in group if line.scores), key=lambda line: -line.score)


def ranking(group: Sequence[Line], rival: str) -> Markup:
    """One data set and setting: a table for each budget, and curves at the largest."""
    tables = [_table(list(own), rival) for _, own in groupby(group, place)]
    first = group[0]
    title = f"{first.data}, {first.setting}" if first.setting else first.data
    return section(title, *tables, _curves(group))


def _table(group: Sequence[Line], rival: str) -> Markup:
    order = ranked(group)
    gains = [_gain(line) for line in order]
    ends = [x for gain, both in gains for x in (gain, *(both or ()))]
    scale = Scale.over(ends)
    rows = [_cells(line, gain, scale) for line, gain in zip(order, gains, strict=True)]
    rows += [[line.method, line.note or "no score"] for line in group if not line.scores]
    metric = next((r["metric"] for line in order for r in line.rows if "metric" in r), "score")
    head = [
        "method",
        metric,
        "gain over the start",
        "",
        f"against {rival}",
        "p",
        "worse than start",
        "charged / paid",
        "up / down",
        "time",
    ]
    named = sorted({row["seed"] for line in group for row in line.rows})
    seeds = f"seeds {', '.join(map(str, named))}" if len(named) > 1 else f"seed {named[0]}"
    if all(line.change is None for line in group):  # nothing to be held against it
        head, *rows = ([*row[:4], *row[6:]] for row in (head, *rows))
    return table(head, rows, text=(0, 3), caption=f"{where(group[0])}, {seeds}", cls="runs")


def _gain(line: Line) -> tuple[float, tuple[float, float] | None]:
    """Mean gain over the starting prompt and its interval: over seeds, else of the test."""
    rows = [row for row in line.rows if row.get("score") is not None]
    gains = np.array([row["score"] - (row["start"] or 0.0) for row in rows])
    mean, half = mean_interval(gains)
    if len(rows) > 1:
        return mean, (mean - half, mean + half)
    low, high = rows[0]["gain_low"], rows[0]["gain_high"]
    return mean, None if low is None or high is None or low == high else (low, high)


def _cells(line: Line, gain: tuple[float, tuple[float, float] | None], scale: Scale) -> list[str]:
    rows = [row for row in line.rows if row.get("score") is not None]
    mean, ends = gain
    told = f", 95 % interval {interval(*ends)}" if ends else ""
    half = f" ± {line.half:.3f}" if len(rows) > 1 else ""
    note = tag("small", line.note) if line.note else NOTHING
    worse = sum((row["gain_high"] or 0.0) < 0 for row in rows)

    def average(key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    return [
        together(line.method, note),
        f"{line.score:.3f}{half}",
        signed(mean),
        bar(mean, scale, ends, f"gain {signed(mean)}{told}"),
        "" if line.change is None else signed(line.change),
        "" if line.p is None else "< 0.001" if line.p < 5e-4 else f"{line.p:.3f}",
        f"{worse} of {len(rows)}",
        f"{count(round(average('train_queries')))} / {count(round(average('paid_queries')))}",
        f"{size(average('bytes_up'))} / {size(average('bytes_down'))}",
        duration(average("seconds")),
    ]


def _curves(group: Sequence[Line]) -> Markup:
    """Every method at its largest budget; one without a curve is a level line."""
    largest = list({line.method: line for line in group if line.scores}.values())
    shown = sorted(largest, key=lambda line: -line.score)
    drawn = []
    for tone, line in enumerate(shown):
        curve = mean_curve([row["curve"] for row in line.rows])
        if len(curve) < 2:
            drawn.append(Curve(line.method, [(0.0, line.score)], tone=tone, level=True))
            continue
        points = [(queries, score) for queries, score, _ in curve]
        half = [half for _, _, half in curve]
        if line.budget > points[-1][0]:
            points, half = [*points, (float(line.budget), points[-1][1])], [*half, half[-1]]
        drawn.append(Curve(line.method, points, half, tone))
    searched = [curve for curve in drawn if not curve.level]
    if not searched:
        return NOTHING
    if len(searched) > CLEAR:
        drawn = [curve._replace(half=()) for curve in drawn]
    metric = next(row["metric"] for row in shown[0].rows if "metric" in row)
    ends = ", ".join(f"{line.method} {line.score:.3f}" for line in shown)
    bands = "; bands: 95 % over seeds" if any(any(curve.half) for curve in drawn) else ""
    return chart(
        f"{metric} on the test examples, mean over seeds",
        drawn,
        "training queries, all clients together",
        f"Where each ends: {ends}.",
        f"of the prompts kept on the way; dotted: no search, so no curve{bands}",
        steps=True,
        wide=True,
    )
