"""What failures and noise cost: accuracy against failure rate and label noise, all methods.

    FEDBBPT_DATA=... python benchmarks/faults.py [--methods ...] [--seeds ...] [--minutes M]
    python benchmarks/faults.py --table           # only makes the table anew

SST-2 over ten clients as in examples/sst2.toml, prompt on the label side of all-MiniLM-L6-v2. A
*failure* is a query whose row comes back as NaN; it is tried ``--attempts`` times (3, as in a run),
after which its candidates have no loss in that step; whoever needs it next asks for it again.
*Noise* is a pair of prompt and example for which the two classes change their scores, the same
whenever it is asked: no client can tell. Accuracy is that of the tuned prompt on a box without
either; ``start`` and ``measured`` are what the run itself says of the starting and the tuned
prompt, through its failures and noise.

Runs what results/faults.csv lacks (one line a run) until the minutes are over, then makes
results/faults.md.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import origin
from label_side import T_975, append, commit, read

HERE = Path(__file__).parent
ROWS, TABLE = HERE / "results" / "faults.csv", HERE / "results" / "faults.md"
METHODS = {
    "fedes": "soft",
    "fedwords": "tokens",
    "fedbpt": "soft",
    "fed-bbpt-text": "tokens",
    "fedavg-bbt": "soft",
}
FAILURES, NOISE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5), (0.1, 0.2, 0.3)
LEVELS = [(failures, 0.0) for failures in FAILURES] + [(0.0, noise) for noise in NOISE]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="only make the table anew")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=int, default=4000, help="training queries")
    parser.add_argument("--attempts", nargs="+", type=int, default=[3])
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    table = make_table(read(ROWS))
    TABLE.write_text(table, encoding="utf-8")
    print(table, end="")


def measure(options: argparse.Namespace) -> None:
    """Run what the rows lack. One model for all, which computes every row once."""
    from fedbbpt.boxes.dual_encoder import DualEncoder
    from fedbbpt.testing.toys import MemoryStore
    from fedbbpt.wrappers.cached import Cached

    end = time.monotonic() + 60 * options.minutes
    keys = ("method", "failures", "noise", "attempts", "seed", "budget")
    done = {tuple(row[key] for key in keys) for row in read(ROWS)}
    box = Cached(DualEncoder(threads=1), MemoryStore())
    for seed, method, (failures, noise), attempts in itertools.product(
        options.seeds, options.methods, LEVELS, options.attempts
    ):
        if not failures and attempts != options.attempts[0]:
            continue  # nothing to repeat
        case = dict(
            zip(keys, (method, failures, noise, attempts, seed, options.budget), strict=True)
        )
        if tuple(map(str, case.values())) not in done and time.monotonic() < end:
            append(ROWS, {"commit": commit(), **case, **one(box, case)})


def one(box: Any, case: dict[str, Any]) -> dict[str, Any]:
    """One run, and the accuracy of its prompt without faults."""
    import fedbbpt
    from fedbbpt.config import read as read_config
    from fedbbpt.sharing import examples
    from fedbbpt.testing.faults import Faulty
    from fedbbpt.wrappers.retrying import Retrying

    faulty = Faulty(box, nans=case["failures"], label_noise=case["noise"], seed=case["seed"])
    # Without the waits between tries, which a real box needs.
    patient = Retrying(faulty, case["attempts"], sleep=lambda _: None)
    changes = [
        f"method.name={case['method']}",
        f"prompt.kind={METHODS[case['method']]}",
        f"budget.queries={case['budget']}",
        f"run.seed={case['seed']}",
        "box.attempts=1",
    ]
    config = read_config(HERE.parent / "examples" / "sst2.toml", changes)
    split = examples(config)
    with tempfile.TemporaryDirectory() as folder:
        outcome = fedbbpt.run(config, Path(folder) / "run", box=patient, split=split)
    (test,) = split.test.values()
    chosen = box([outcome.tuned.prompt], test.inputs).scores[0].argmax(axis=1)
    return {
        "start": round(outcome.result["baseline"]["accuracy"], 5),
        "accuracy": round(float((chosen == test.targets).mean()), 5),
        "measured": round(outcome.result["tuned"]["accuracy"], 5),
        "rounds": outcome.result["rounds"],
        "queries": outcome.result["queries"]["train"],
        "dropped": outcome.result["queries"]["dropped"],
    }


def make_table(rows: list[dict[str, str]]) -> str:
    """Mean accuracy over seeds with its 95 % interval: a table for each number of tries."""
    text = (
        "`python benchmarks/faults.py` (what is measured: its first lines), "
        f"{origin.of(rows)}; every run is a line of [faults.csv](faults.csv).\n"
    )
    groups = {}
    for row in rows:
        place = (row["budget"], row["attempts"])
        level = (float(row["failures"]), float(row["noise"]))
        groups.setdefault(place, {}).setdefault((row["method"], level), []).append(row)
    for (budget, attempts), cells in groups.items():
        levels = sorted({level for _, level in cells}, key=lambda level: level[::-1])
        heads = [f"noise {n:.0%}" if n else f"failures {f:.0%}" for f, n in levels]
        clean = [
            float(r["start"]) for (_, level), cell in cells.items() if not any(level) for r in cell
        ]
        text += f"\n{budget} training queries, each tried {attempts} times at most"
        text += f"; the starting prompt has {np.mean(clean):.3f}.\n\n" if clean else ".\n\n"
        text += f"| method | {' | '.join(heads)} |\n" + "|---" * (len(heads) + 1) + "|\n"
        for method in dict.fromkeys(method for method, _ in cells):
            values = [_cell(cells.get((method, level), [])) for level in levels]
            text += f"| {method} | {' | '.join(values)} |\n"
    commits = sorted({row["commit"] for row in rows})
    return f"{text}\nCommits: {', '.join(commits)}.\n"


def _cell(rows: list[dict[str, str]]) -> str:
    scores = np.array([float(row["accuracy"]) for row in rows])
    n = len(scores)
    if n < 2:
        return "".join(f"{score:.3f}" for score in scores)
    half = T_975.get(n, 1.96) * scores.std(ddof=1) / np.sqrt(n)
    return f"{scores.mean():.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
