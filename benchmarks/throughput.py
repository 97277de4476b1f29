"""How much of a server's limit the client uses, and whether any 60 s see more than the limit.

    python benchmarks/throughput.py [--seconds 20] [--rpm 1000] [--latency 0.1]

A server in a process of its own answers after its latency, counts, and refuses what is over its
limit in any 60 s. The client asks in calls of 64 requests, as a step of a search does, each of
which waits for the last reply of the one before. Adds a line to results/throughput.csv and makes
results/throughput.md anew.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from label_side import append, commit, read

RESULTS = Path(__file__).parent / "results"
ROWS, TABLE = RESULTS / "throughput.csv", RESULTS / "throughput.md"
CALL = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="from the first request on")
    parser.add_argument("--rpm", type=int, default=1000, help="requests per minute")
    parser.add_argument("--latency", type=float, default=0.1, help="of the server, in seconds")
    parser.add_argument("--concurrency", type=int, default=16, help="of the client")
    options = parser.parse_args()
    row = measure(options)
    append(ROWS, row)
    TABLE.write_text(make_table(read(ROWS)), encoding="utf-8")
    print(*(f"{name}: {value}" for name, value in row.items()), sep="\n")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Ask for the time given and count what the server saw."""
    from fedbbpt.boxes.openai_http import OpenaiHttp
    from fedbbpt.types import RenderedPrompt

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, options.latency, options.rpm))
    server.start()
    try:
        box = OpenaiHttp(
            ours.recv(),
            "toy",
            requests_per_minute=options.rpm,
            max_concurrency=options.concurrency,
        )
        prompt = RenderedPrompt("{text} It was", ("awful", "great"), "text")
        end, calls = time.monotonic() + options.seconds, 0
        while time.monotonic() < end:
            box([prompt], [f"call {calls}, text {i}" for i in range(CALL)])
            calls += 1
        ours.send("done")
        arrivals, refused, peak = ours.recv()
    finally:
        server.join(5)
        server.terminate()
    at = np.array(sorted(arrivals))
    sent = int((at - at[0] < options.seconds).sum())
    allowed = options.rpm * options.seconds / 60
    busiest = int(max(np.searchsorted(at, at + 60, side="right") - np.arange(len(at))))
    return {
        "commit": commit(),
        "seconds": options.seconds,
        "limit per minute": options.rpm,
        "latency s": options.latency,
        "requests": sent,
        "share of the limit": round(sent / allowed, 4),
        "most in any 60 s": busiest,
        "refused": refused,
        "most at once": peak,
        "cores": os.cpu_count(),
    }


def serve(pipe: Connection, latency: float, limit: int) -> None:
    """The server, until it is told that all is done."""
    from fedbbpt.testing.faults import FaultServer

    with FaultServer(
        lambda _: {" great": -0.2, " awful": -1.8}, latency=latency, requests_per_minute=limit
    ) as server:
        pipe.send(server.url)
        pipe.recv()
        pipe.send(([seen.at for seen in server.log], server.refused, server.peak))


def make_table(rows: list[dict[str, str]]) -> str:
    """All rows."""
    head = (
        "`python benchmarks/throughput.py --seconds S`: one client, one server, one machine. The "
        "first burst, 2 % of a minute's worth, makes a short time look better than the limit.\n\n"
    )
    lines = [f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
    lines += [f"| {' | '.join(row.values())} |" for row in rows]
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
