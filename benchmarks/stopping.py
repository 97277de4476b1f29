"""How soon a search ends that has surely helped, or not, and what that costs: stop.when = "sure".

    FEDBBPT_DATA=... python benchmarks/stopping.py [--seeds ...]  # runs what is missing, then:
    python benchmarks/stopping.py --table                         # makes the tables anew

Each search is run with and without the rule, on one ledger; nothing is chosen on the test sets,
which say afterwards what stopping early has cost. The default rule: four looks, alpha 0.05 for
either kind, worth 0.02. Held back is a quarter of the training examples.

The second table is a simulation of one look at one prompt: how often it is found to be better if it
has a share of examples right that the start has wrong, and loses another one.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from label_side import append, commit, read

HERE = Path(__file__).parent
ROWS, TABLE = HERE / "results" / "stopping.csv", HERE / "results" / "stopping.md"
SEEDS = (0, 1, 2, 3, 4)
EXAMPLES = HERE.parent / "examples"
WORDS = ("prompt.kind=tokens", "method.name=fed-bbpt-text", "budget.queries=2000")
SEARCHES: dict[str, tuple[str, tuple[str, ...]]] = {
    "help desks": ("demo", ("method.name=fedes",)),
    "SST-2": ("sst2", ()),
    "SST-2, five times the examples": ("sst2", ("partition.shots=400",)),
    "AG News": ("agnews", ()),
    "AG News, five times the examples": ("agnews", ("partition.shots=200",)),
    "help desks, policy gradient": ("demo", WORDS),
    "SST-2, policy gradient": ("sst2", WORDS),
    "AG News, policy gradient": ("agnews", WORDS),
}
LOOKS, ALPHA = 4, 0.05  # the defaults
RUNS = 4000
EFFECTS = ((0.05, 0.0), (0.10, 0.05), (0.15, 0.05), (0.20, 0.05), (0.25, 0.08), (0.30, 0.05))
SIZES = (40, 100, 200, 500, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="only make the tables anew")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--threads", type=int, default=0, help="torch threads")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    table = make_table(read(ROWS))
    TABLE.write_text(table, encoding="utf-8")
    print(table, end="")


def measure(options: argparse.Namespace) -> None:
    """Run what the rows lack."""
    from fedbbpt.boxes.dual_encoder import DualEncoder

    done = {(row["search"], int(row["seed"])) for row in read(ROWS)}
    box = DualEncoder(threads=options.threads)
    for search in SEARCHES:
        for seed in options.seeds:
            if (search, seed) not in done:
                with tempfile.TemporaryDirectory() as folder:
                    append(ROWS, row_of(search, seed, box, Path(folder)))


def row_of(search: str, seed: int, box: Any, folder: Path) -> dict[str, Any]:
    """Both runs as one line."""
    import fedbbpt

    name, changes = SEARCHES[search]
    helpdesk = Path(str(files("fedbbpt.data") / "helpdesk"))
    config = helpdesk / "demo.toml" if name == "demo" else EXAMPLES / f"{name}.toml"
    early, whole = (
        fedbbpt.run(
            config,
            folder / when,
            overrides=[
                *changes,
                f"run.seed={seed}",
                f"run.ledger={folder}/ledger.sqlite",
                f"stop.when={when}",
            ],
            box=box,
        ).result
        for when in ("sure", "never")
    )
    return {
        "commit": commit(),
        "search": search,
        "seed": seed,
        "stopped": early["stopped"],
        "queries": early["queries"]["train"],
        "budget": early["queries"]["budget"],
        "start": round(whole["baseline"]["accuracy"], 5),
        "early": round(early["tuned"]["accuracy"], 5),
        "whole": round(whole["tuned"]["accuracy"], 5),
        "box": whole["box"],
    }


def make_table(rows: list[dict[str, str]]) -> str:
    """How searches ended, and the power of the rule."""
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    seeds = " ".join(sorted({row["seed"] for row in rows}, key=int))
    lines = [
        f'`python benchmarks/stopping.py`: `stop.when = "sure"`; seeds {seeds}; commit {commits}. '
        "fedes unless named, on the label side of all-MiniLM-L6-v2; accuracies on the whole test "
        "split, means over seeds. Rows: [stopping.csv](stopping.csv).",
        "",
        "| search | improved / hopeless / to the end | queries, of | start | stopped early | "
        "not stopped |",
        "|---" * 6 + "|",
    ]
    order = sorted(rows, key=lambda row: [*SEARCHES].index(row["search"]))
    for search, group in groupby(order, lambda row: row["search"]):
        own = list(group)
        ends = [row["stopped"] for row in own]
        counts = [ends.count(end) for end in ("improved", "hopeless")]
        means = {
            key: np.mean([float(row[key]) for row in own])
            for key in ("queries", "budget", "start", "early", "whole")
        }
        lines.append(
            f"| {search} | {counts[0]} / {counts[1]} / {len(own) - sum(counts)} | "
            f"{means['queries']:.0f} of {means['budget']:.0f} | {means['start']:.3f} | "
            f"{means['early']:.3f} | {means['whole']:.3f} |"
        )
    return "\n".join([*lines, "", *power()]) + "\n"


def power() -> list[str]:
    """The share of simulated runs in which a prompt is found to be better."""
    from fedbbpt.maths.signs import chance
    from fedbbpt.random import stream

    lines = [
        "How often one look finds one prompt `improved`, by the number of held-back examples; "
        f"{RUNS} simulated looks each. Gained: the share of examples that it alone has right; "
        "lost: that the start alone has.",
        "",
        f"| gained / lost | {' | '.join(map(str, SIZES))} |",
        "|---" * (len(SIZES) + 1) + "|",
    ]
    for gained, lost in ((0.1, 0.1), *EFFECTS):
        rng, found = stream(0, f"power {gained} {lost}"), []
        for size in SIZES:
            drawn = rng.multinomial(size, [gained, lost, 1 - gained - lost], RUNS)
            hits = [chance(better, worse) <= ALPHA / LOOKS for better, worse, _ in drawn]
            found.append(f"{np.mean(hits):.1%}")
        lines.append(f"| {gained:.2f} / {lost:.2f} | {' | '.join(found)} |")
    return lines


if __name__ == "__main__":
    main()
