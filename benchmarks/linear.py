"""What each part of fedlinear is worth: variants on four development splits at 1,000 queries.

    FEDBBPT_DATA=... python benchmarks/prepare.py           # once
    FEDBBPT_DATA=... python benchmarks/linear.py [--table]

Ten clients, Dirichlet 1.0, 160 examples, seeds 0-3; scored on the development splits that
benchmarks/prepare.py cuts out of training pools, so that no choice is made on a test split of
another table. Rows are kept in results/linear.csv; what is there is not run again.
"""

from __future__ import annotations

import argparse
import csv
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from label_side import append, commit

HERE = Path(__file__).parent
ROWS, TABLE = HERE / "results" / "linear.csv", HERE / "results" / "linear.md"
DATA, EXAMPLES = HERE / "data", HERE.parent / "examples"
SETS = {
    "dev-sst2": ("sst2.toml", []),
    "dev-mr": ("sst2.toml", []),
    "dev-agnews": ("agnews.toml", []),
    "dev-work": ("agnews.toml", ["partition.shots=16", "prompt.template=It is about {label}."]),
}
OPTION = "method.optimizer."
VARIANTS: dict[str, list[str]] = {
    "fedlinear": [],
    "forgets (memory 1)": [OPTION + "memory=1"],
    "4 rounds": ["rounds.max=4"],
    "8 rounds": ["rounds.max=8"],
    "32 rounds": ["rounds.max=32"],
    "prox .001": [OPTION + "prox=0.001"],
    "prox .01": [OPTION + "prox=0.01"],
    "sigma .1": [OPTION + "sigma=0.1"],
    "sigma 1": [OPTION + "sigma=1.0"],
    "ridge .01": [OPTION + "ridge=0.01"],
    "ridge 1": [OPTION + "ridge=1.0"],
    "decay 0": [OPTION + "decay=0.0"],
    "decay .001": [OPTION + "decay=0.001"],
    "dim 50": ["prompt.dim=50"],
    "dim 500": ["prompt.dim=500"],
    "one prompt for all classes": ["prompt.per_class=false"],
    "fedes": ["method.name=fedes"],
}
SEEDS, QUERIES = range(4), 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="only make the table anew")
    if not parser.parse_args().table:
        measure()
    table = make_table(list(csv.DictReader(ROWS.open(newline="", encoding="utf-8"))))
    TABLE.write_text(table, encoding="utf-8")
    print(table, end="")


def measure() -> None:
    """Run what the rows lack."""
    import fedbbpt
    from fedbbpt.boxes.dual_encoder import DualEncoder
    from fedbbpt.config import read

    rows = list(csv.DictReader(ROWS.open(newline="", encoding="utf-8"))) if ROWS.exists() else []
    done = {(row["data"], row["variant"], int(row["seed"])) for row in rows}
    box = DualEncoder(threads=1)
    with tempfile.TemporaryDirectory() as folder:
        for data, (config, own) in SETS.items():
            files = [f"data.{k}={DATA / f'{data}.{k}.csv'}" for k in ("train", "test")]
            for variant, changes in VARIANTS.items():
                for seed in SEEDS:
                    if (data, variant, seed) in done:
                        continue
                    more = [f"run.seed={seed}", f"run.ledger={folder}/{data}.sqlite"]
                    keys = ["method.name=fedlinear", f"budget.queries={QUERIES}", *more]
                    made = read(EXAMPLES / config, [*files, *own, *keys, *changes])
                    run = fedbbpt.run(made, f"{folder}/run", overwrite=True, box=box)
                    append(ROWS, row(data, variant, seed, run.result))


def row(data: str, variant: str, seed: int, result: dict[str, Any]) -> dict[str, Any]:
    """One run as one line."""
    return {
        "commit": commit(),
        "data": data,
        "variant": variant,
        "seed": seed,
        "accuracy": round(result["tuned"]["accuracy"], 5),
        "queries": result["queries"]["train"],
        "rounds": result["rounds"],
        "bytes_up": round(result["bytes"]["up_per_client_round"]),
        "bytes_down": round(result["bytes"]["down_per_client_round"]),
    }


def make_table(rows: list[dict[str, str]]) -> str:
    """Mean accuracy by variant, and how much the mean over the four sets differs from fedlinear's,
    with a 95 % interval over seeds.
    """
    commits = ", ".join(sorted({r["commit"] for r in rows}))
    head = (
        f"`python benchmarks/linear.py`: {QUERIES:,} queries, seeds 0-{max(SEEDS)}; commit "
        f"{commits}; {platform.machine()}, no GPU. Development splits, not tests.\n\n"
        f"| variant | {' | '.join(SETS)} | mean | against fedlinear (95 %) | rounds | "
        "bytes up / down |\n" + "|---" * (len(SETS) + 5) + "|\n"
    )
    scores = {
        v: np.array(
            [
                [float(r["accuracy"]) for r in rows if (r["data"], r["variant"]) == (data, v)]
                for data in SETS
            ]
        )
        for v in VARIANTS
    }
    for variant, table in scores.items():
        gap = (table - scores["fedlinear"]).mean(axis=0)
        half = 3.182 * gap.std(ddof=1) / np.sqrt(len(gap))  # Student's t with three degrees
        own = [r for r in rows if r["variant"] == variant]
        up, down, rounds = (
            np.mean([float(r[key]) for r in own]) for key in ("bytes_up", "bytes_down", "rounds")
        )
        each = " | ".join(f"{x:.3f}" for x in table.mean(axis=1))
        beside = "" if variant == "fedlinear" else f"{gap.mean():+.3f} ± {half:.3f}"
        head += (
            f"| {variant} | {each} | {table.mean():.3f} | {beside} | {rounds:.0f} | "
            f"{up:.0f} / {down:.0f} |\n"
        )
    return head


if __name__ == "__main__":
    main()
