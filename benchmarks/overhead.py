"""Where a run's time goes: share inside the box during the search, by stage, and peak memory.

    FEDBBPT_DATA=... python benchmarks/overhead.py [--repeats 3]

Writes results/overhead.md. Each run is in a process of its own, with a fresh ledger, the cases in
turns; given is the median of the repeats, of the share also least and most. The stages are from one
more run of each case, in which a clock is put around them: what a stage calls that is a stage too
counts there alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from label_side import commit

HERE = Path(__file__).parent
TEXT_SIDE = [
    "prompt.side=text",
    "prompt.template=Review: {text}",
    'prompt.labels={negative = "It was terrible.", positive = "It was great."}',
]
CASES = {
    "SST-2, label side, bfloat16": ("sst2.toml", []),
    "SST-2, label side, float32": ("sst2.toml", ["box.dtype=float32"]),
    "AG News, label side, bfloat16": ("agnews.toml", []),
    "AG News, label side, float32": ("agnews.toml", ["box.dtype=float32"]),
    "SST-2, text side, bfloat16": ("sst2.toml", TEXT_SIDE),
    "SST-2, text side, float32": ("sst2.toml", [*TEXT_SIDE, "box.dtype=float32"]),
}
STAGES = {
    "in the box": ["wrappers.timed:Timed.evaluate"],
    "candidates": ["parts:Parts.candidates"],
    "prompts": ["prompts.soft:Soft.render"],
    "atoms and keys": ["boxes._two_sided:TwoSided.split"],
    "ledger, reading": ["ledger:Ledger.find", "ledger:Ledger.claim"],
    "ledger, writing": ["ledger:Ledger.record"],
    "meter, rows to scores": ["black_box:AtomicBox.__call__"],
    "losses": ["tasks._guarded:Guarded.loss"],
    "clients, the rest": ["round:work"],
    "admission": ["runner:admitted"],
    "replay": ["round:taken"],
    "merge": ["aggregators.adam:Adam.merge"],
    "agreement": ["runner:agreement"],
    "events": ["books:Books.record", "books:Books.settle"],
    "checkpoint": ["books:Books.save"],
    "rounds, the rest": ["runner:Run.search"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--stages", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], options.one[1:], options.stages)))
        return
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(options.repeats):
        for name in CASES:
            runs[name].append(process(name))
            print(name, json.dumps(runs[name][-1]), flush=True)
    stages = {name: process(name, stages=True)["stages"] for name in CASES}
    head = (
        f"`python benchmarks/overhead.py --repeats {options.repeats}` (what is measured: its first "
        f"lines), commit {commit()}, seed 0, {os.cpu_count()} cores, no GPU, load "
        f"{os.getloadavg()[0]:.1f} at the end.\n\n"
    )
    text = head + "\n".join([*shares(runs), "", *by_stage(stages)]) + "\n"
    (HERE / "results" / "overhead.md").write_text(text, encoding="utf-8")
    print(text)


def shares(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """One row for each case."""
    columns = (
        "case, rounds, ms a round, of it outside the box, inside the box (least to most), "
        "peak memory MB, bytes up / down"
    ).split(", ")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, each in runs.items():
        rounds = each[0]["rounds"]
        search = 1000 * median(facts["search"] for facts in each) / rounds
        outside = 1000 * median(facts["search"] - facts["box"] for facts in each) / rounds
        share = sorted(facts["box"] / facts["search"] for facts in each)
        lines.append(
            f"| {name} | {rounds} | {search:.1f} | {outside:.1f} | {median(share):.1%} "
            f"({share[0]:.1%} to {share[-1]:.1%}) | {max(f['memory'] for f in each):.0f} | "
            f"{each[0]['up']:.0f} / {each[0]['down']:.0f} |"
        )
    return lines


def by_stage(stages: dict[str, dict[str, float]]) -> list[str]:
    """Milliseconds of a round by stage; a column for each case."""
    lines = [f"| ms a round | {' | '.join(stages)} |", "|---" * (1 + len(stages)) + "|"]
    for stage in STAGES:
        cells = " | ".join(f"{found.get(stage, 0):.2f}" for found in stages.values())
        lines.append(f"| {stage} | {cells} |")
    return lines


def process(name: str, stages: bool = False) -> dict[str, Any]:
    """One run's figures."""
    config, changes = CASES[name]
    command = [sys.executable, __file__, *["--stages"] * stages, "--one", config, *changes]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    facts: dict[str, Any] = json.loads(output.splitlines()[-1])
    return facts


def one(config: str, changes: list[str], staged: bool) -> dict[str, Any]:
    """One run, in this process."""
    import fedbbpt

    clocks = Clocks()
    if staged:
        for stage, places in STAGES.items():
            for place in places:
                clocks.put(stage, place)
    with tempfile.TemporaryDirectory() as folder:
        path = HERE.parent / "examples" / config
        result = fedbbpt.run(path, Path(folder) / "run", overrides=changes).result
    seconds, size = result["seconds"], result["bytes"]
    return {
        "rounds": result["rounds"],
        "search": seconds["search"],
        "box": seconds["box"],
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "up": size["up_per_client_round"],
        "down": size["down_per_client_round"],
        "stages": {k: 1000 * v / result["rounds"] for k, v in clocks.seconds.items()},
    }


class Clocks:
    """Seconds of stages while the search runs, without those of stages within them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def put(self, stage: str, place: str) -> None:
        """Around a function or method, named as "module:name"."""
        module, _, path = place.partition(":")
        owner: Any = import_module(f"fedbbpt.{module}")
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        setattr(owner, name, self._timed(stage, getattr(owner, name)))

    def _timed(self, stage: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            if not self._open and stage != "rounds, the rest":
                return inner(*args, **named)  # before the search, or after it
            self._turn()
            self._open.append(stage)
            try:
                return inner(*args, **named)
            finally:
                self._turn()
                self._open.pop()

        return timed

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


if __name__ == "__main__":
    main()
