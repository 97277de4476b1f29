"""The plot and the table at the top of the README, from the rows of label_side.csv.

    python benchmarks/headline.py     # needs matplotlib: pip install 'fedbbpt[plots]'

Accuracy against paid training queries, mean over SST-2, AG News, CR and CLINC-10; the interval is
Student's over the five seeds' means.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from label_side import BUDGETS, CONFIGS, PUBLISHED, ROWS, T_975, read
from matplotlib.figure import Figure

OUT = Path(__file__).parent / "results"
OURS = ("fedlinear", "fedes", "fedwords")
NAMES = {
    "fedlinear": "fedlinear, the default",
    "fedbpt": "FedBPT (ICML 2024)",
    "fedbpt-nvflare": "FedBPT, public code",
    "fedavg-bbt": "FedAvg-BBT",
    "fed-bbpt-text": "Fed-BBPT, policy gradient",
    "fedone": "FedOne",
}
# Wong's palette (Nature Methods 2011), which colour-blind readers can tell apart; greys behind.
COLOURS = {"fedlinear": "#D55E00", "fedes": "#0072B2", "fedwords": "#009E73"}
GREYS = ("#444444", "#666666", "#888888", "#777777", "#999999")
MARKS = dict(zip((*OURS, *PUBLISHED), "oosDv^sx", strict=True))
LEVEL = "white-box"

Point = tuple[float, float, float]


def main() -> None:
    rows = read(ROWS)
    found = {name: curve(rows, name) for name in (*OURS, *PUBLISHED)}
    start = float(np.mean([_start(rows, data) for data in CONFIGS]))
    level = curve(rows, LEVEL)[-1]
    draw(found, start, level)
    (OUT / "headline.md").write_text(table(rows, found, start, level), encoding="utf-8")


def _start(rows: list[dict[str, str]], data: str) -> float:
    return float(next(r["baseline"] for r in rows if r["data"] == data))


def curve(rows: list[dict[str, str]], method: str) -> list[Point]:
    """(budget, mean, half an interval) where all sets and the same seeds are there."""
    points = []
    for budget in BUDGETS:
        own = [r for r in rows if r["method"] == method and int(r["budget"]) == budget]
        by_seed: dict[str, list[float]] = {}
        for row in own:
            by_seed.setdefault(row["seed"], []).append(float(row["tuned"]))
        means = np.array([np.mean(v) for v in by_seed.values() if len(v) == len(CONFIGS)])
        if len(means) > 1:
            half = T_975[len(means)] * means.std(ddof=1) / np.sqrt(len(means))
            points.append((float(budget), float(means.mean()), float(half)))
    return points


def draw(found: dict[str, list[Point]], start: float, level: Point) -> None:
    """headline.svg; text stays text."""
    import matplotlib

    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "fedbbpt", "font.size": 10}
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes: Any = figure.add_subplot()
    axes.axhspan(level[1] - level[2], level[1] + level[2], color="#EEEEEE", lw=0)
    axes.axhline(level[1], color="#444444", lw=1, ls=(0, (6, 3)))
    axes.text(
        900,
        level[1] + level[2] + 0.0015,
        "gradients through the open model (white box)",
        fontsize=9,
    )
    axes.axhline(start, color="#444444", lw=1, ls=":")
    greys = iter(GREYS)
    labels = [[start, "manual prompt, nothing learned", "#444444", False]]
    for name, points in found.items():
        if not points:
            continue
        x, y, half = np.array(points).T
        colour = COLOURS.get(name) or next(greys)
        ours = name in COLOURS
        style = {"lw": 2.4 if ours else 1.2, "marker": MARKS[name], "ms": 6 if ours else 4.5}
        axes.plot(x, y, color=colour, zorder=3 if ours else 2, **style)
        if name == "fedlinear":
            axes.fill_between(x, y - half, y + half, color=colour, alpha=0.15, lw=0)
        labels.append([y[-1], NAMES.get(name, name), colour, ours])
    place = -1.0
    for y, text, colour, ours in sorted(labels, key=lambda label: label[0]):
        place = max(y, place + 0.0066)
        weight = "bold" if ours else "normal"
        axes.text(17600, place, text, color=colour, va="center", fontsize=9, fontweight=weight)
    axes.set_xscale("log")
    axes.set_xticks(BUDGETS, [f"{b:,}" for b in BUDGETS])
    axes.minorticks_off()
    axes.set_xlim(850, 16500)
    axes.set_xlabel("paid training queries, all ten clients together")
    axes.set_ylabel("accuracy, mean of four tasks")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(OUT / "headline.svg", metadata={"Date": None})


def table(
    rows: list[dict[str, str]], found: dict[str, list[Point]], start: float, level: Point
) -> str:
    """Means over the four sets, and their commits."""
    named = {*found, LEVEL}
    commits = ", ".join(sorted({r["commit"] for r in rows if r["method"] in named}))
    head = (
        f"`python benchmarks/headline.py`, from label_side.csv: commits {commits}; seeds 0-4; mean "
        f"of {', '.join(CONFIGS)} with a 95 % interval over seeds. Manual prompt: {start:.3f}.\n\n"
        f"| method | {' | '.join(f'{b:,} queries' for b in BUDGETS)} |\n|---|---|---|---|\n"
    )
    for name, points in (*found.items(), (LEVEL, [level])):
        at = {int(b): f"{y:.3f} ± {half:.3f}" for b, y, half in points}
        head += f"| {name} | {' | '.join(at.get(b, '') for b in BUDGETS)} |\n"
    return head


if __name__ == "__main__":
    main()
