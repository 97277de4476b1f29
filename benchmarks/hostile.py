"""What hostile clients cost, and what robust merges bear of it.

    FEDBBPT_DATA=... python benchmarks/hostile.py [--seeds ...] [--minutes M]
    python benchmarks/hostile.py --table          # only makes the table anew

SST-2 over ten clients as in examples/sst2.toml, prompt on the label side of all-MiniLM-L6-v2. Two
of the ten, drawn by the seed, are hostile in every round of the search and in the selection on
held-back examples (fedbbpt.testing.hostile): they *flip* what they send, *push* (flip and ten times
as large), or *scale* it by a million. Under ``fedes`` that is their losses, which the server
replays; under ``fedavg-bbt``, which sends states here, how far they are from the broadcast; in the
selection losses. All of these numbers are possible ones, so admission with its default limits lets
them in; ``times`` is admission.times = 10. Robust merges select by medians over clients. Accuracy
is on the test set, which nobody hostile holds; ``last`` is that of the last snapshot, whatever was
selected.

Runs what results/hostile.csv lacks (one line a run) until the minutes are over, then makes
results/hostile.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import origin
from label_side import T_975, append, commit, read

HERE = Path(__file__).parent
ROWS, TABLE = HERE / "results" / "hostile.csv", HERE / "results" / "hostile.md"
SEEDS = (13, 21, 42, 87, 100)
ATTACKS = ("none", "flip", "push", "scale")
BAD = 2
TIMES = ("admission.times=10",)
MERGES: dict[str, dict[str, tuple[str, ...]]] = {
    "fedes": {
        "adam": (),
        "adam, times": TIMES,
        "adam of the median": ("method.aggregator.robust=median",),
        "adam of the trimmed mean": (
            "method.aggregator.robust=trimmed_mean",
            "method.aggregator.trim=0.3",
        ),
        "adam of Krum's": (
            "method.aggregator.robust=krum",
            f"method.aggregator.bad={BAD}",
            "method.aggregator.keep=0",
        ),
    },
    "fedavg-bbt": {
        "mean": ("method.wire=state",),
        "mean, times": ("method.wire=state", *TIMES),
        "median": ("method.wire=state", "method.aggregator.name=median"),
        "trimmed mean": (
            "method.wire=state",
            "method.aggregator.name=trimmed_mean",
            "method.aggregator.trim=0.3",
        ),
        "Krum": (
            "method.wire=state",
            "method.aggregator.name=krum",
            f"method.aggregator.bad={BAD}",
            "method.aggregator.keep=0",
        ),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="only make the table anew")
    parser.add_argument("--methods", nargs="+", default=list(MERGES))
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--budget", type=int, default=4000, help="training queries")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    table = make_table(read(ROWS))
    TABLE.write_text(table, encoding="utf-8")
    print(table, end="")


def measure(options: argparse.Namespace) -> None:
    """Run what the rows lack: seed by seed, so that what there is can be compared."""
    from fedbbpt.boxes.dual_encoder import DualEncoder

    end, box = time.monotonic() + 60 * options.minutes, DualEncoder(threads=1)
    keys = ("method", "merge", "attack", "seed", "budget")
    done = {tuple(row[key] for key in keys) for row in read(ROWS)}
    with tempfile.TemporaryDirectory() as folder:
        for seed, method, attack in itertools.product(
            options.seeds, options.methods, options.attacks
        ):
            for merge in MERGES[method]:
                case = dict(zip(keys, (method, merge, attack, seed, options.budget), strict=True))
                if tuple(map(str, case.values())) not in done and time.monotonic() < end:
                    append(ROWS, {"commit": commit(), **case, **one(box, case, Path(folder))})


def one(box: Any, case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One run; what its test examples are embedded for once is shared, what is charged is not."""
    import fedbbpt
    from fedbbpt.config import read as read_config
    from fedbbpt.random import stream
    from fedbbpt.sharing import examples
    from fedbbpt.testing.hostile import infiltrated

    changes = [
        f"method.name={case['method']}",
        f"budget.queries={case['budget']}",
        f"run.seed={case['seed']}",
        f"run.ledger={folder}/sst2.sqlite",
        *MERGES[case["method"]][case["merge"]],
    ]
    config = read_config(HERE.parent / "examples" / "sst2.toml", changes)
    split = examples(config)
    names = sorted(split.clients)
    drawn = stream(case["seed"], "hostile").permutation(len(names))[:BAD]
    bad = [names[k] for k in drawn] if case["attack"] != "none" else []
    with infiltrated(dict.fromkeys(bad, case["attack"]), ("search", "select")):
        outcome = fedbbpt.run(config, folder / "run", overwrite=True, box=box, split=split)
    sizes = {name: split.train[name].size for name in names}
    events = [json.loads(line) for line in (outcome.path / "events.jsonl").open()]
    refused = [event["client"] in bad for event in events if event["event"] == "refused"]
    return {
        "start": round(outcome.result["baseline"]["accuracy"], 5),
        "accuracy": round(outcome.result["tuned"]["accuracy"], 5),
        "last": round([e["test_score"] for e in events if e["event"] == "snapshot"][-1], 5),
        "rounds": outcome.result["rounds"],
        "queries": outcome.result["queries"]["train"],
        "share": round(sum(sizes[name] for name in bad) / sum(sizes.values()), 3),
        "refused": sum(refused),
        "honest_refused": len(refused) - sum(refused),
        "seconds": outcome.result["seconds"]["total"],
    }


def make_table(rows: list[dict[str, str]]) -> str:
    """Accuracies over seeds, and what was lost of the method's plain merge of honest clients."""
    text = (
        "`python benchmarks/hostile.py` (what is measured: its first lines), "
        f"{origin.of(rows)}; every run is a line of [hostile.csv](hostile.csv).\n"
    )
    cells: dict[tuple[str, str, str], dict[str, dict[str, str]]] = {}
    for row in rows:
        cells.setdefault((row["method"], row["merge"], row["attack"]), {})[row["seed"]] = row
    for method, merges in MERGES.items():
        own = {place: cell for place, cell in cells.items() if place[0] == method}
        honest = own.get((method, next(iter(merges)), "none"))
        if not honest:
            continue
        start = np.mean([float(row["start"]) for row in honest.values()])
        shares = [float(r["share"]) for cell in own.values() for r in cell.values()]
        share = np.mean([one for one in shares if one] or [0.0])
        text += (
            f"\n`{method}`: accuracy of the chosen prompt and, below, points lost against the "
            f"first row without hostile clients, by seed (mean ± half a 95 % interval over "
            f"{len(honest)} seeds: {', '.join(honest)}). The starting prompt has {start:.3f}; "
            f"hostile clients hold {share:.0%} of the examples on average.\n\n"
        )
        text += f"| merge | {' | '.join(ATTACKS)} |\n" + "|---" * (len(ATTACKS) + 1) + "|\n"
        for merge in merges:
            found = [own.get((method, merge, attack), {}) for attack in ATTACKS]
            text += f"| {merge} | {' | '.join(map(_accuracy, found))} |\n"
            text += f"| points lost | {' | '.join(_lost(cell, honest) for cell in found)} |\n"
        stopped = [
            f"{merge}, {attack}: {sum(int(r['refused']) for r in cell.values())} hostile and "
            f"{sum(int(r['honest_refused']) for r in cell.values())} honest"
            for (_, merge, attack), cell in own.items()
            if any(int(r["refused"]) + int(r["honest_refused"]) for r in cell.values())
        ]
        if stopped:
            text += f"\nUpdates refused: {'; '.join(stopped)}.\n"
    commits = sorted({row["commit"] for row in rows})
    return f"{text}\nCommits: {', '.join(commits)} (a plus: with changes under src).\n"


def _accuracy(cell: dict[str, dict[str, str]]) -> str:
    return _interval([float(row["accuracy"]) for row in cell.values()], 3)


def _lost(cell: dict[str, dict[str, str]], honest: dict[str, dict[str, str]]) -> str:
    """Paired by seed."""
    both = [seed for seed in cell if seed in honest]
    lost = [100 * (float(honest[s]["accuracy"]) - float(cell[s]["accuracy"])) for s in both]
    return _interval(lost, 1)


def _interval(values: list[float], digits: int) -> str:
    n = len(values)
    if n < 2:
        return "".join(f"{value:.{digits}f}" for value in values)
    half = T_975.get(n, 1.96) * np.std(values, ddof=1) / np.sqrt(n)
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


if __name__ == "__main__":
    main()
