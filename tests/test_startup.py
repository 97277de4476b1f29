"""A command answers at once, and nothing heavy is loaded before it is needed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

FEDBBPT = str(Path(sys.executable).with_name("fedbbpt"))
STARTS = {
    "import": ([sys.executable, "-c", "import fedbbpt"], 0.3),
    "help": ([FEDBBPT, "--help"], 0.5),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_start_takes_no_time(name):
    """The quickest of a few: a busy machine says nothing of the package."""
    command, limit = STARTS[name]
    took = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - began)
        if took[-1] < limit:
            return
    raise AssertionError(f"{name} took {min(took):.2f} s; it must be below {limit}")


def test_a_run_begins_without_scipy():
    """It takes half a second and 50 MB, and most runs need none of its parts, or few at the end."""
    code = "import sys, fedbbpt.api; print(*[m for m in sys.modules if m.startswith('scipy.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    parts = {"scipy.stats", "scipy.optimize", "scipy.special", "scipy.linalg", "scipy.spatial"}
    assert not parts & set(done.stdout.split())
