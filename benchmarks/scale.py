"""What many clients cost in one process: seconds outside the box, and memory.

    python benchmarks/scale.py [--profile CLIENTS ACTIVE]

Writes results/scale.md. One run of ``fedes`` in a process of its own for each case: 16 examples a
client, of which 4 are held back, a soft prompt of 200 dimensions on the label side, 20 rounds. The
box is the toy dual encoder of fedbbpt.testing.toys (hashed words, 8 numbers a text), since a real
encoder would embed 160,000 texts for hours and its time is not what is asked for here. ``data`` is
the memory once the examples are there, before a federation is built, ``search`` the most while it
searched, and ``peak`` the most of the whole run; ``setup`` asks every client what a step costs,
``final`` every client about its held-back examples, and judges and writes the run up.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from label_side import commit

HERE = Path(__file__).parent
ROUNDS, EXAMPLES, DIM = 20, 16, 200
CASES = ((100, 100), (1000, 100), (1000, 1000), (10000, 100), (10000, 1000))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--profile", nargs=2, type=int, help="only show where one case's time goes")
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    if options.profile:
        profile = cProfile.Profile()
        print(profile.runcall(one, *options.profile))
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
        return
    columns = (
        "clients, active, rounds, setup s, s a round, of it outside the box, ms outside the box "
        "per active client, final s, data MB, search MB, peak MB, commit"
    ).split(", ")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for clients, active in CASES:
        command = [sys.executable, __file__, "--one", str(clients), str(active)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        facts = json.loads(output.splitlines()[-1])
        outside = facts["search"] - facts["box"]
        lines.append(
            f"| {clients} | {active} | {facts['rounds']} | {facts['setup']:.1f} | "
            f"{facts['search'] / facts['rounds']:.3f} | {outside / facts['rounds']:.3f} | "
            f"{1000 * outside / facts['rounds'] / active:.2f} | {facts['final']:.1f} | "
            f"{facts['data']:.0f} | {facts['searched']:.0f} | {facts['peak']:.0f} | {commit()} |"
        )
        print(lines[-1], flush=True)
    head = (
        "`python benchmarks/scale.py` (what is measured: its first lines), one run each, seed 0; "
        f"{os.cpu_count()} cores of which one is used, no GPU, load {os.getloadavg()[0]:.1f} at "
        "the end.\n\n"
    )
    (HERE / "results" / "scale.md").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def one(clients: int, active: int) -> dict[str, float]:
    """One run's figures; memory in MB."""
    import fedbbpt
    from fedbbpt.config import resolve
    from fedbbpt.sharing import share_out, tables
    from fedbbpt.testing.toys import ToyEncoder, toy_batch

    words = ("bad", "good")

    def pairs(size: int, seed: int) -> list[tuple[str, str]]:
        batch = toy_batch(size, 2, seed)
        texts = (f"{text} {seed} {k}" for k, text in enumerate(batch.inputs))
        return [(text, words[target]) for text, target in zip(texts, batch.targets, strict=True)]

    tree = {
        "data": {"train": ""},
        "prompt": {"template": "It was {label} .", "dim": DIM},
        "method": {"name": "fedes"},
        "rounds": {"max": ROUNDS, "clients_per_round": active},
        "budget": {"queries": 10**7},
    }
    config = resolve(tree, Path.cwd())
    began = time.perf_counter()
    owned = {f"client {k:05}": pairs(EXAMPLES, k + 1) for k in range(clients)}
    split = share_out(config, *tables(owned, pairs(200, 0), config.data))
    del owned
    data, shared = _peak(), time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        place, peaks = Path(folder) / "run", [0.0]
        told = partial(_note, peaks)
        result = fedbbpt.run(config, place, box=ToyEncoder(), split=split, progress=told).result
    seconds = result["seconds"]
    return {
        **{name: seconds[name] for name in ("setup", "search", "box")},
        "final": seconds["total"] - seconds["setup"] - seconds["search"],
        "rounds": result["rounds"],
        "share": shared,
        "data": data,
        "searched": max(peaks),
        "peak": _peak(),
    }


def _note(peaks: list[float], event: str, facts: Any) -> None:
    """Told of every round."""
    if event == "round":
        peaks.append(_peak())


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
