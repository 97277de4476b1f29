"""The comparisons whose tables are in results/: runs what is missing, then writes the tables anew.

    FEDBBPT_DATA=... python benchmarks/prepare.py                      # once
    FEDBBPT_DATA=... python benchmarks/tables.py [NAME ...] [--jobs J]

A NAME is a config in benchmarks/configs, or compare-sst2 (examples/compare-sst2.toml). Each has its
run directories in benchmarks/runs/NAME; results/NAME.md is its table with commit and machine,
results/NAME.csv its rows (one run each), results/NAME.png its curves.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RUNS, RESULTS = HERE / "runs", HERE / "results"
CONFIGS = {path.stem: path for path in sorted((HERE / "configs").glob("*.toml"))}
CONFIGS["compare-sst2"] = HERE.parent / "examples" / "compare-sst2.toml"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(CONFIGS))
    parser.add_argument("--jobs", default="1", help="processes at once")
    options = parser.parse_args()
    if unknown := set(options.names) - CONFIGS.keys():
        parser.error(f"no comparison {', '.join(sorted(unknown))}; there are {', '.join(CONFIGS)}")
    for name in options.names:
        measure(name, options.jobs)
        publish(name)


def measure(name: str, jobs: str) -> None:
    """Run what is missing and note the commit; finished runs of earlier commits are kept."""
    out = RUNS / name
    command = ["fedbbpt", "compare", str(CONFIGS[name]), "--out", str(out), "--jobs", jobs]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", *command], check=True, env=environment)
    commit = subprocess.check_output(
        ["git", "describe", "--always", "--dirty"], text=True, cwd=HERE
    ).strip()
    noted = out / "commits"
    commits = noted.read_text(encoding="utf-8").split() if noted.exists() else []
    if commit not in commits:
        noted.write_text(" ".join([*commits, commit]) + "\n", encoding="utf-8")


def publish(name: str) -> None:
    """Copy table, rows and curves to the results, with where they come from."""
    out = RUNS / name
    commits = (out / "commits").read_text(encoding="utf-8").split()
    config = CONFIGS[name].relative_to(HERE.parent)
    head = (
        f"`python benchmarks/tables.py {name}`: [{config}](../../{config}); "
        f"commit{'s' * (len(commits) > 1)} {', '.join(commits)}; "
        f"{platform.machine()}, {os.cpu_count()} cores, no GPU. Rows: [{name}.csv]({name}.csv), "
        f"curves: [{name}.png]({name}.png).\n\n"
    )
    table = (out / "table.md").read_text(encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(head + table, encoding="utf-8")
    shutil.copyfile(out / "rows.csv", RESULTS / f"{name}.csv")
    for picture in out.glob("curves-*.png"):
        shutil.copyfile(picture, RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
