"""Accuracy against queries, as CSV and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from fedbbpt.errors import MissingExtra
from fedbbpt.grid import file_name
from fedbbpt.report.summary import Line, mean_curve


def write_csv(path: Path, found: Sequence[Line]) -> None:
    """One row per point of every mean curve."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "setting", "budget", "method", "queries", "score", "half_95"])
        for line in found:
            curves = [row["curve"] for row in line.rows]
            for queries, score, half in mean_curve(curves):
                place = [line.data, line.setting, line.budget, line.method]
                width = f"{half:.5f}" if len(line.scores) > 1 else ""
                writer.writerow([*place, f"{queries:.0f}", f"{score:.5f}", width])


def draw(folder: Path, found: Sequence[Line]) -> list[Path]:
    """One picture for each data set and setting, every method at its largest budget; their paths.

    Methods without a curve are level lines.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "plots") from None
    paths = []
    for (data, setting), group in groupby(found, lambda line: (line.data, line.setting)):
        # Budgets ascend, so that the largest is the one that stays.
        shown = list({line.method: line for line in group if line.scores}.values())
        if not shown:
            continue
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        budget = max(line.budget for line in shown)
        for number, line in enumerate(shown):
            _add(axes, line, f"C{number % 10}", ("-", "--", ":")[number // 10 % 3], budget)
        axes.set_xlabel("training queries, all clients together")
        axes.set_ylabel(next(row["metric"] for row in shown[0].rows if "metric" in row))
        axes.set_title(f"{data}{', ' + setting if setting else ''}, mean over seeds")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        name = "-".join(filter(None, ["curves", data, file_name(setting)]))
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths


def _add(axes: Any, line: Line, colour: str, style: str, budget: int) -> None:
    curve = mean_curve([row["curve"] for row in line.rows])
    label = f"{line.method} {line.score:.3f}"
    if len(curve) < 2:
        axes.axhline(line.score, color=colour, linestyle=style, alpha=0.7, label=label)
        return
    label += f" at {line.budget}" if line.budget < budget else ""
    x, y, half = (list(values) for values in zip(*curve, strict=True))
    x.append(float(line.budget))
    y.append(y[-1])
    half.append(half[-1])
    low, high = ([m + sign * h for m, h in zip(y, half, strict=True)] for sign in (-1, 1))
    axes.step(x, y, where="post", color=colour, linestyle=style, label=label)
    axes.fill_between(x, low, high, step="post", color=colour, alpha=0.12, linewidth=0)
