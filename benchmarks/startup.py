"""How long a user waits before anything happens: importing the package, asking it for help.

    python benchmarks/startup.py [--repeats 21]

Writes results/startup.md. Every start is a process of its own, the commands in turns; the time of a
Python that does nothing is in all of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from label_side import commit

HERE = Path(__file__).parent
FEDBBPT = str(Path(sys.executable).with_name("fedbbpt"))
COMMANDS = {
    "a Python that does nothing": ([sys.executable, "-c", "pass"], None),
    "`import fedbbpt`": ([sys.executable, "-c", "import fedbbpt"], 0.3),
    "`from fedbbpt import run`": ([sys.executable, "-c", "from fedbbpt import run"], None),
    "`fedbbpt --help`": ([FEDBBPT, "--help"], 0.5),
    "`fedbbpt run --help`": ([FEDBBPT, "run", "--help"], None),
    "`fedbbpt list`": ([FEDBBPT, "list"], None),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()
    found = defaultdict(list)
    for _ in range(options.repeats + 1):
        for name, (command, _) in COMMANDS.items():
            found[name].append(seconds(command))
    lines = [
        f"`python benchmarks/startup.py --repeats {options.repeats}`, commit {commit()}; Python "
        f"{platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the end. Files are in memory already: the first start of "
        "each does not count.",
        "",
        "| | median s | least | most | to reach |",
        "|---|---|---|---|---|",
    ]
    for name, (_, goal) in COMMANDS.items():
        each = found[name][1:]
        lines.append(
            f"| {name} | {median(each):.3f} | {min(each):.3f} | {max(each):.3f} | {goal or ''} |"
        )
    text = "\n".join(lines) + "\n"
    (HERE / "results" / "startup.md").write_text(text, encoding="utf-8")
    print(text)


def seconds(command: list[str]) -> float:
    """Of one start."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
