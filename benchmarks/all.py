"""One command for every table behind the README and the docs.

    FEDBBPT_DATA=... python benchmarks/all.py                # the tables that are missing
    FEDBBPT_DATA=... python benchmarks/all.py NAME ...       # these, whether they are there or not
    FEDBBPT_DATA=... python benchmarks/all.py --all          # all of them: a day on two cores
    python benchmarks/all.py --list

A NAME is that of a file results/NAME.md. Scripts that make many runs keep what is done, so that one
that was cut off goes on where it was when it is asked for again. What cannot be run here, for want
of data or of a package, is named at the end, and the command then fails.

Seconds in a table mean something only on a machine with nothing else to do: those tables are marked
"quiet", and are run one at a time. Minutes are about those of two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
RESULTS, PREPARED = HERE / "results", HERE / "data"
EXTRAS = {
    "torch": "minilm",
    "ai_edge_litert": "vision",
    "flwr": "flower",
    "dp_accounting": "privacy",
}
EXTRAS |= {"uvicorn": "serve", "matplotlib": "plots"}
LOCAL, IMAGES = ("torch",), ("ai_edge_litert",)


class Table(NamedTuple):
    """How results/NAME.md is made.

    Attributes:
        command: script and arguments.
        minutes: about, on two cores; 0 where nobody has noted it.
        data: it reads the local test material.
        prepared: and what ``prepare.py`` makes of it.
        packages: imported beside the core.
        quiet: it holds times.
        after: the name of a table whose runs it reads.
    """

    command: tuple[str, ...]
    minutes: int
    data: bool = True
    prepared: bool = False
    packages: tuple[str, ...] = LOCAL
    quiet: bool = False
    after: str = ""


def compared(name: str, minutes: int) -> Table:
    """A table of ``fedbbpt compare``."""
    config = HERE / "configs" / f"{name}.toml"
    prepared = config.is_file() and "../data/" in config.read_text(encoding="utf-8")
    packages = (*(IMAGES if name.startswith("vision") else LOCAL), "matplotlib")
    return Table(("tables.py", name), minutes, prepared=prepared, packages=packages)


TABLES = {
    # accuracy against queries
    "label_side": Table(("label_side.py",), 60),
    "headline": Table(("headline.py",), 1, data=False, packages=("matplotlib",)),
    "economy-sst2": compared("economy-sst2", 5),
    "economy-cr": compared("economy-cr", 5),
    "economy-yelp": compared("economy-yelp", 5),
    "minilm-sst2": compared("minilm-sst2", 10),
    "minilm-cr": compared("minilm-cr", 10),
    "minilm-agnews": compared("minilm-agnews", 15),
    "minilm-clinc10": compared("minilm-clinc10", 10),
    "compare-sst2": compared("compare-sst2", 20),
    "review-cr": compared("review-cr", 20),
    "review-yelp": compared("review-yelp", 10),
    "skew-dirichlet": compared("skew-dirichlet", 10),
    "skew-pathological": compared("skew-pathological", 10),
    "dev-sst2": compared("dev-sst2", 10),
    "dev-mr": compared("dev-mr", 10),
    "dev-agnews": compared("dev-agnews", 15),
    "dev-work": compared("dev-work", 20),
    "linear": Table(("linear.py",), 0, prepared=True),
    "stopping": Table(("stopping.py",), 0),
    # images
    "vision-clothing": compared("vision-clothing", 40),
    "vision-caltech101": compared("vision-caltech101", 30),
    "vision-sign-digits": compared("vision-sign-digits", 60),
    "box-share": Table(("box_share.py",), 1, False, packages=(), after="vision-sign-digits"),
    "label-mapping": Table(("label_mapping.py",), 0, packages=IMAGES),
    "label-or-image": Table(("label_or_image.py",), 0, packages=(*LOCAL, *IMAGES)),
    # instructions
    "instructions": Table(("instructions.py", "--seeds", "5", "--jobs", "2"), 0, data=False),
    "induction": Table(("induction.py",), 0),
    "server-cpu": Table(("server_cpu.py",), 1, data=False, packages=()),
    # failures, enemies, privacy, many machines
    "faults": Table(("faults.py",), 0),
    "hostile": Table(("hostile.py",), 40),
    "privacy": Table(("privacy.py",), 15, packages=(*LOCAL, "dp_accounting")),
    "over-flower": Table(("over_flower.py", "--seeds", "5"), 0, packages=(*LOCAL, "flwr")),
    "flower-overhead": Table(("flower_overhead.py",), 0, False, packages=("flwr",), quiet=True),
    # time, memory and bytes
    "workload": Table(("workload.py",), 25, quiet=True),
    "overhead": Table(("overhead.py",), 10, quiet=True),
    "scale": Table(("scale.py",), 3, data=False, packages=(), quiet=True),
    "startup": Table(("startup.py",), 1, data=False, packages=(), quiet=True),
    "gateway": Table(("gateway.py",), 2, packages=(*LOCAL, "uvicorn"), quiet=True),
    "throughput": Table(("throughput.py",), 2, data=False, packages=("uvicorn",), quiet=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--all", action="store_true", help="those that are there as well")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in TABLES]:
        parser.error(f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    if options.list:
        print(overview())
        return
    wanted = options.names or [name for name in TABLES if options.all or not there(name)]
    faults = {name: fault for name in wanted if (fault := make(name))}
    for name, fault in faults.items():
        print(f"{name}: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


def there(name: str) -> bool:
    """Whether a table is made already."""
    return (RESULTS / f"{name}.md").is_file()


def overview() -> str:
    """Every table, a line each."""
    lines = ["| table | there | minutes | needs | command |", "|---|---|---|---|---|"]
    for name, table in TABLES.items():
        extras = ",".join(EXTRAS[package] for package in table.packages)
        needs = [f"fedbbpt[{extras}]"] * bool(extras)
        needs += ["FEDBBPT_DATA"] * table.data + ["quiet"] * table.quiet
        needs += [f"the runs of {table.after}"] * bool(table.after)
        lines.append(
            f"| {name} | {'yes' if there(name) else 'no'} | {table.minutes or ''} | "
            f"{', '.join(needs)} | python benchmarks/{' '.join(table.command)} |"
        )
    return "\n".join(lines)


def make(name: str) -> str:
    """Make one table; why it cannot be made, a sentence, or nothing."""
    table = TABLES[name]
    lacking = [package for package in table.packages if find_spec(package) is None]
    if lacking:
        extras = ",".join(EXTRAS[package] for package in lacking)
        return f"{', '.join(lacking)} not installed; pip install 'fedbbpt[{extras}]'"
    if table.data and not Path(os.environ.get("FEDBBPT_DATA", "-")).is_dir():
        return "FEDBBPT_DATA names no folder; it must hold the local test material"
    if table.prepared and not PREPARED.is_dir() and (fault := run("prepare.py")):
        return fault
    if table.after and not (HERE / "runs" / table.after).is_dir():
        return f"the runs of {table.after} are not here; make that table first"
    began = time.monotonic()
    fault = run(*table.command)
    print(f"{name}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return fault


def run(script: str, *arguments: str) -> str:
    """Run a script of this folder; what went wrong, or nothing."""
    code = subprocess.run([sys.executable, str(HERE / script), *arguments]).returncode
    return f"{script} ended with {code}" if code else ""


if __name__ == "__main__":
    main()
