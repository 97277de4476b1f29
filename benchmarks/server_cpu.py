"""What the search for instructions costs the server: CPU seconds of a round's merge and plan.

    python benchmarks/server_cpu.py

Writes results/server-cpu.md. Candidates lie at random in 16 dimensions, their losses are random;
five clients have answered each once. Measured are done, plan, merge and best, which a round asks
for, in CPU time, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from statistics import median

import numpy as np

from fedbbpt.aggregators.pool import Pool
from fedbbpt.optimizers.bayes import Bayes
from fedbbpt.random import stream
from fedbbpt.types import Space, Update

HERE = Path(__file__).parent
CLIENTS, DIM, SEEDS = 5, 16, 5


def main() -> None:
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=HERE).stdout.strip()
    lines = [
        "# CPU of the server in a round of the instruction search",
        "",
        f"`python benchmarks/server_cpu.py`, commit {commit}; CPU seconds of done, plan, merge and "
        f"best together, median and most of seeds 0 to {SEEDS - 1}.",
        "",
        "| observations | kernel | median | most |",
        "|---|---|---|---|",
    ]
    for observations in (200, 500, 1000):
        for kernel in ("matern", "coupled"):
            found = [seconds(observations, kernel, seed) for seed in range(SEEDS)]
            lines.append(f"| {observations} | {kernel} | {median(found):.3f} | {max(found):.3f} |")
    text = "\n".join(lines) + "\n"
    (HERE / "results" / "server-cpu.md").write_text(text)
    print(text)


def seconds(observations: int, kernel: str, seed: int) -> float:
    """CPU of a round after so many observations."""
    rng = stream(seed, "server cpu")
    count = observations // CLIENTS
    places = rng.standard_normal((count + 20, DIM))
    places[0] = 0
    search = Bayes(batch=4, initial=16, repeats=True, tolerance=0.005, kernel=kernel)
    pool = Pool()
    state = search.init(Space("pool", (DIM,), points=places))
    memory = pool.init(state)
    every = np.arange(count, dtype=np.float64)[:, None]
    state, memory = pool.merge(state, answers(every, np.zeros(count), rng), memory)
    began = time.process_time()
    search.done(state)
    planned = search.plan(state, rng)
    told = answers(planned.next_points, planned.next_turns, rng)
    merged, memory = pool.merge(planned, told, memory)
    pool.best(search, merged, memory)
    return time.process_time() - began


def answers(rows: np.ndarray, turns: np.ndarray, rng: np.random.Generator) -> list[Update]:
    """All clients' random losses of some candidates."""
    return [
        Update(
            f"client {k}",
            0,
            15.0,
            {
                "new_points": rows,
                "new_losses": rng.random(len(rows)),
                "new_turns": turns.astype(np.int64),
                "answered": np.ones(len(rows), bool),
            },
        )
        for k in range(CLIENTS)
    ]


if __name__ == "__main__":
    main()
