"""Methods at equal query budgets on SST-2, AG News, CR and CLINC-10, prompt on the label side.

    FEDBBPT_DATA=... python benchmarks/prepare.py               # once
    FEDBBPT_DATA=... python benchmarks/label_side.py            # runs what is missing, then tables
    FEDBBPT_DATA=... python benchmarks/label_side.py --table    # only makes the tables anew

Every row of results/label_side.csv is one run: commit, data set, method, seed, budget, numbers from
its result.json. Runs of one data set share a ledger, so that test examples are embedded once; all
query counts are what a run was charged and do not depend on that.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROWS = HERE / "results" / "label_side.csv"
TABLE = HERE / "results" / "label_side.md"
CONFIGS = {
    "sst2": HERE.parent / "examples" / "sst2.toml",
    "agnews": HERE.parent / "examples" / "agnews.toml",
    "cr": HERE / "label_side" / "cr.toml",
    "clinc10": HERE / "label_side" / "clinc10.toml",
}
PUBLISHED = ("fedavg-bbt", "fedbpt", "fedbpt-nvflare", "fed-bbpt-text", "fedone")
TOKENS = ("fedwords", "fed-bbpt-text", "fedone")
"""Of words; the configs ask for soft prompts."""
BASELINES = ("linear-probe", "white-box")
METHODS = ("fedlinear", "fedes", "fedwords", *PUBLISHED, *BASELINES)
BUDGETS = (1000, 4000, 16000)
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="only make the tables anew")
    parser.add_argument("--data", nargs="+", default=list(CONFIGS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--set", nargs="+", default=[], help="overrides, for experiments")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--threads", type=int, default=0, help="torch threads")
    options = parser.parse_args()
    if not options.table:
        for name in options.data:
            measure(name, options)
    table = make_table(read(options.rows))
    if options.rows == ROWS:
        TABLE.write_text(table, encoding="utf-8")
    print(table, end="")


def measure(name: str, options: argparse.Namespace) -> None:
    """Run what the rows lack, one model for all runs."""
    import fedbbpt
    from fedbbpt.boxes.dual_encoder import DualEncoder
    from fedbbpt.config import read as read_config

    done = {(r["data"], r["method"], int(r["seed"]), int(r["budget"])) for r in read(options.rows)}
    box = DualEncoder(threads=options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for budget in options.budgets:
            for seed in options.seeds:
                for method in options.methods:
                    # Baselines have no budget.
                    if (name, method, seed, budget) in done or (
                        method in BASELINES and budget != max(BUDGETS)
                    ):
                        continue
                    changes = [
                        f"method.name={method}",
                        f"budget.queries={budget}",
                        f"run.seed={seed}",
                        f"run.ledger={folder}/{name}.sqlite",
                        *(["prompt.kind=tokens"] if method in TOKENS else []),
                        *options.set,
                    ]
                    config = read_config(CONFIGS[name], changes)
                    outcome = fedbbpt.run(config, f"{folder}/run", overwrite=True, box=box)
                    append(options.rows, row(name, outcome))


def row(data: str, outcome: Any) -> dict[str, Any]:
    """One run as one line; ``last`` is the last iterate's accuracy, whatever was selected."""
    result = outcome.result
    events = [json.loads(line) for line in (outcome.path / "events.jsonl").open()]
    curve = [event["test_score"] for event in events if event["event"] == "snapshot"]
    metric, size, seconds = result["metric"], result["bytes"], result["seconds"]
    last = curve[-1] if curve else result["tuned"][metric]
    return {
        "commit": commit(),
        "data": data,
        "method": result["method"],
        "seed": result["seed"],
        "budget": result["queries"]["budget"],
        "train_queries": result["queries"]["train"],
        "select_queries": result["queries"]["select"],
        "rounds": result["rounds"],
        "baseline": round(result["baseline"][metric], 5),
        "tuned": round(result["tuned"][metric], 5),
        "last": round(last, 5),
        "gain_low": round(result["gain_interval"][0], 5),
        "gain_high": round(result["gain_interval"][1], 5),
        "bytes_up": round(size["up_per_client_round"], 1),
        "bytes_down": round(size["down_per_client_round"], 1),
        "search_seconds": seconds["search"],
        "box_seconds": seconds["box"],
        "box": result["box"],
    }


def commit() -> str:
    """Short id of HEAD, with a plus if the tree under src differs from it."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    dirty = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "../src"], cwd=HERE).returncode
    return head + ("+" if dirty else "")


def append(path: Path, fields: dict[str, Any]) -> None:
    """Add one line, with a header in a new file."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(fields))
        if new:
            writer.writeheader()
        writer.writerow(fields)


def read(path: Path) -> list[dict[str, str]]:
    """All rows so far."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def make_table(rows: list[dict[str, str]]) -> str:
    """Mean, standard deviation and 95 % interval over seeds, per data set, method and budget."""
    columns = (
        "data, method, budget, seeds, accuracy (95 % interval), sd, last iterate, zero-shot, "
        "worse than zero-shot, training queries, bytes up / down, search s, commit"
    ).split(", ")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    keys = dict.fromkeys((r["data"], r["method"], int(r["budget"])) for r in rows)
    for data, method, budget in sorted(keys, key=lambda k: (k[0], k[2], METHODS.index(k[1]))):
        group = [
            r for r in rows if (r["data"], r["method"], int(r["budget"])) == (data, method, budget)
        ]
        tuned = np.array([float(r["tuned"]) for r in group])
        n, sd = len(tuned), tuned.std(ddof=1) if len(tuned) > 1 else 0.0
        half = T_975.get(n, 1.96) * sd / np.sqrt(n)
        worse = sum(float(r["gain_high"]) < 0 for r in group)

        def mean(key: str, group: list[dict[str, str]] = group) -> float:
            return float(np.mean([float(r[key]) for r in group]))

        seconds, commits = mean("search_seconds"), ", ".join(sorted({r["commit"] for r in group}))
        lines.append(
            f"| {data} | {method} | {budget} | {n} | {tuned.mean():.3f} ± {half:.3f} | {sd:.3f} | "
            f"{mean('last'):.3f} | {mean('baseline'):.3f} | {worse} of {n} | "
            f"{mean('train_queries'):.0f} | {mean('bytes_up'):.0f} / {mean('bytes_down'):.0f} | "
            f"{seconds:.1f} | {commits} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
