"""What a round over Flower costs beside the model: seconds of it with 1, 3 and 5 nodes.

    python benchmarks/flower_overhead.py

Writes results/flower-overhead.md. Server and nodes are the commands a user starts, over TLS on this
machine; the box is the toy of the tests, whose answers take no time, so all is overhead. Flower by
itself takes 6 to 10 s: its node sleeps 3 s between two looks and starts a process for each letter.
"""

from __future__ import annotations

import os
import tempfile
import time
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from types import ModuleType

from label_side import commit

HERE = Path(__file__).parent
NAMES = ("ash", "birch", "cedar", "date", "elm")
ROUNDS = 6
FLOOR = "6 to 10"


def main() -> None:
    spec = spec_from_file_location("machines", HERE.parent / "tests" / "sites" / "machines.py")
    machines = module_from_spec(spec)
    spec.loader.exec_module(machines)
    lines = [
        "# Seconds of a round over Flower, without a model",
        "",
        f"`python benchmarks/flower_overhead.py`, commit {commit()}; flwr {version('flwr')}, "
        f"{os.cpu_count()} cores without a GPU, one run each of {ROUNDS} rounds. Load is that of "
        "the machine in the last minute before, 0 if nothing else ran. Start is from the server's "
        "command to its first round, end from the last round to the result at every node. Floor "
        "is what Flower takes by itself, for 2 MB each way and 2 to 5 nodes on two cores.",
        "",
        "| nodes | start s | a round, median s | least | most | end s | floor s | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for nodes in (1, 3, 5):
        load = os.getloadavg()[0]
        start, rounds, end = one(machines, NAMES[:nodes])
        lines.append(
            f"| {nodes} | {start:.1f} | {median(rounds):.1f} | {min(rounds):.1f} | "
            f"{max(rounds):.1f} | {end:.1f} | {FLOOR} | {load:.1f} |"
        )
        print(lines[-1], flush=True)
    (HERE / "results" / "flower-overhead.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def one(machines: ModuleType, names: tuple[str, ...]) -> tuple[float, list[float], float]:
    """(start, each round, end) of one federation, in seconds."""
    changes = {"engine.kind": "flower", "engine.quorum": 1.0, "rounds.max": ROUNDS}
    with tempfile.TemporaryDirectory() as folder:
        federation = machines.Federation(Path(folder), names, changes)
        try:
            federation.certs()
            began = time.monotonic()
            server = federation.server()
            nodes = [federation.node(name) for name in names]
            machines.until(lambda: federation.merged(0), "the first round", 300)
            first = time.monotonic()
            machines.until(lambda: federation.merged(ROUNDS - 1), "the last round", 500)
            last = time.monotonic()
            if any([server.ended(120), *(node.ended(60) for node in nodes)]):
                raise SystemExit(server.said)
            rounds = [event["seconds"] for event in federation.events("merge")]
            return first - began - rounds[0], rounds, time.monotonic() - last
        finally:
            federation.close()


if __name__ == "__main__":
    main()
