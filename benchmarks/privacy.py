"""What a promise of privacy costs: accuracy against epsilon on SST-2, over 10 and over 100 sites.

    FEDBBPT_DATA=... python benchmarks/privacy.py            # runs what is missing, then the table
    FEDBBPT_DATA=... python benchmarks/privacy.py --dev [--set KEY=VALUE ...]  # on training data
    python benchmarks/privacy.py --table                     # only makes the table anew

fedes, prompt on the label side of all-MiniLM-L6-v2, some 16 examples a site (Dirichlet 1.0), all
of which train: behind noise nothing is selected, and the last iterate counts. Epsilon is of a whole
run, for a site with all its examples, at delta 1e-5; "infinity" is the shield clip alone.

Noise is each site's own. Who sees *each update* sees the noise of one site; who sees *sums only*
(the shield mask with a threshold of two thirds t) sees t - 1 of them that a site cannot take off,
so each site adds that much less. Ten sites mask for good; of a hundred the masks, which change
nothing but the last bits of a sum, are left out for time, and the noise is that of a masked run.

Norm, rounds, pairs and learning rate are one for all rows. They were chosen with ``--dev``, where
half of the training pool is scored on and no test example is read (benchmarks/prepare.py), for sums
over 100 sites at epsilon 3, seeds 0 to 3, among 5 and 50 pairs in 20 rounds and 100 in 10, norms of
0.1 to 0.5, and learning rates of 0.05 to 0.8. A norm below nearly all that is clipped makes every
site count alike, and more pairs cost queries but no epsilon.
Noise is drawn from a secret of each run, so a repetition gives other rows of the same law.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from label_side import T_975, append, commit, read

HERE = Path(__file__).parent
ROWS, TABLE = HERE / "results" / "privacy.csv", HERE / "results" / "privacy.md"
SEEDS = (13, 21, 42, 87, 100)
EPSILONS = (math.inf, 8.0, 3.0, 1.0)
DELTA = 1e-5
SITES = (10, 100)
VIEWS = ("each update", "sums only")
ROUNDS, PAIRS, NORM, LR = 10, 100, 0.1, 0.8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="only make the table anew")
    parser.add_argument("--dev", action="store_true", help="score on training data, print alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--epsilons", nargs="+", type=float, default=list(EPSILONS))
    parser.add_argument("--sites", nargs="+", type=int, default=list(SITES))
    parser.add_argument("--views", nargs="+", default=list(VIEWS))
    parser.add_argument("--set", nargs="+", default=[], help="overrides, for experiments")
    parser.add_argument("--threads", type=int, default=0, help="torch threads")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    if not options.dev:
        table = make_table(read(ROWS))
        TABLE.write_text(table, encoding="utf-8")
        print(table, end="")


def measure(options: argparse.Namespace) -> None:
    """Run what the rows lack; examples are embedded once for all."""
    from fedbbpt.boxes.dual_encoder import DualEncoder

    done = {(int(r["sites"]), r["view"], float(r["epsilon"]), int(r["seed"])) for r in read(ROWS)}
    box = DualEncoder(threads=options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for sites in options.sites:
            for view in options.views:
                for epsilon in options.epsilons:
                    if epsilon == math.inf and view != VIEWS[0]:
                        continue  # the same run
                    scores = []
                    for seed in options.seeds:
                        if not options.dev and (sites, view, epsilon, seed) in done:
                            continue
                        row = run(sites, view, epsilon, seed, options, box, Path(folder))
                        scores.append(float(row["tuned"]))
                        if not options.dev:
                            append(ROWS, row)
                    if options.dev:
                        mean, sd = np.mean(scores), np.std(scores, ddof=1)
                        print(sites, view, epsilon, *options.set, f"{mean:.4f} sd {sd:.4f}")


def run(
    sites: int,
    view: str,
    epsilon: float,
    seed: int,
    options: argparse.Namespace,
    box: Any,
    folder: Path,
) -> dict[str, Any]:
    """One run as one line."""
    import fedbbpt
    from fedbbpt.config import read as read_config

    data = HERE / "data"
    dev = [f"data.train='{data}/dev-sst2.train.csv'", f"data.test='{data}/dev-sst2.test.csv'"]
    changes = [
        f"partition.clients={sites}",
        f"partition.shots={8 * sites}",
        f"rounds.max={ROUNDS}",
        "rounds.holdout=0",
        "budget.queries=1000000",
        f"method.optimizer.pairs={PAIRS}",
        f"method.aggregator.lr={LR}",
        "method.snapshots=1",
        f"shields.clip.norm={NORM}",
        f"run.seed={seed}",
        f"run.ledger={folder}/ledger.sqlite",
        *(dev if options.dev else ()),
        *options.set,
    ]
    config = read_config(HERE.parent / "examples" / "sst2.toml", changes)
    if epsilon < math.inf:
        tree = config.tree()
        tree["shields"] |= noise(sites, view, epsilon, config.rounds.max)
        config = type(config).model_validate(tree)
    outcome = fedbbpt.run(config, folder / "run", overwrite=True, box=box)
    spent = [
        event
        for event in map(json.loads, (outcome.path / "events.jsonl").read_text().splitlines())
        if event["event"] == "privacy"
    ]
    result = outcome.result
    return {
        "commit": commit(),
        "sites": sites,
        "view": view,
        "epsilon": epsilon,
        "seed": seed,
        "rounds": result["rounds"],
        "spent": round(spent[-1]["epsilon"], 4) if spent else math.inf,
        "std": round(deviation(config), 5),
        "baseline": round(result["baseline"]["accuracy"], 5),
        "tuned": round(result["tuned"]["accuracy"], 5),
        "train_queries": result["queries"]["train"],
        "bytes_up": round(result["bytes"]["up_per_client_round"], 1),
        "seconds": result["seconds"]["search"],
        "box": result["box"],
    }


def noise(sites: int, view: str, epsilon: float, rounds: int) -> dict[str, Any]:
    """The shields that keep to an epsilon."""
    from fedbbpt.maths.accounting import multiplier_for

    alone = {"noise": {"epsilon": epsilon, "delta": DELTA}}
    if view == VIEWS[0]:
        return alone
    threshold = math.ceil(2 * sites / 3)
    if sites <= 10:
        return {**alone, "mask": {"threshold": threshold}}
    multiplier = multiplier_for(epsilon, rounds, DELTA) / math.sqrt(threshold - 1)
    return {"noise": {"multiplier": multiplier, "delta": DELTA}}


def deviation(config: Any) -> float:
    """Standard deviation of each site's own noise on each loss."""
    from fedbbpt.protection import shields_of

    return sum(getattr(shield, "std", 0.0) for shield in shields_of(config))


def make_table(rows: list[dict[str, str]]) -> str:
    """Mean accuracy with its 95 % interval over seeds, by sites, view and epsilon."""
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    seeds = " ".join(sorted({row["seed"] for row in rows}, key=int))
    lines = [
        "`python benchmarks/privacy.py`: accuracy on SST-2 (1,821 test examples) against epsilon "
        f"of a whole run, delta 1e-5; seeds {seeds}; commit {commits}. fedes on the label side of "
        f"all-MiniLM-L6-v2, {ROUNDS} rounds of {PAIRS} pairs, clip norm {NORM:g}, learning rate "
        f"{LR:g}; ± is half of a 95 % interval of the mean over seeds. Of "
        "100 sites the masks, with their bytes, are left out, and the noise is that of a masked "
        "run. Behind noise nothing is selected on held-back examples, so that nothing stops a "
        "search that noise leads astray: below zero-shot there is more noise than signal. Rows: "
        "[privacy.csv](privacy.csv).",
        "",
        "| sites | the server sees | epsilon | seeds | accuracy | zero-shot | "
        "gain (95 % interval) | noise on a loss | bytes up |",
        "|---" * 9 + "|",
    ]
    keys = dict.fromkeys((int(r["sites"]), r["view"], float(r["epsilon"])) for r in rows)
    for sites, view, epsilon in sorted(keys, key=lambda k: (k[0], VIEWS.index(k[1]), -k[2])):
        group = [
            r
            for r in rows
            if (int(r["sites"]), r["view"], float(r["epsilon"])) == (sites, view, epsilon)
        ]
        tuned, start, std, up = (
            np.array([float(row[key]) for row in group])
            for key in ("tuned", "baseline", "std", "bytes_up")
        )
        gain = (tuned - start).mean()
        half = [
            T_975.get(len(group), 1.96) * values.std(ddof=1) / math.sqrt(len(group))
            for values in (tuned, tuned - start)
        ]
        said = "infinity" if epsilon == math.inf else f"{epsilon:g}"
        lines.append(
            f"| {sites} | {view} | {said} | {len(group)} | {tuned.mean():.3f} ± {half[0]:.3f} | "
            f"{start.mean():.3f} | {gain:+.3f} ± {half[1]:.3f} | {std.mean():.3g} | "
            f"{up.mean():.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
