"""A command answers at once, and nothing heavy is loaded before it is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FEDBBPT = str(Path(sys.executable).with_name("fedbbpt"))
STARTS = {
    "import": ([sys.executable, "-c", "import fedbbpt"], 0.3),
    "help": ([FEDBBPT, "--help"], 0.5),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_start_takes_no_time(name):
    """Seconds of CPU, the least of a few starts: a busy machine says nothing of the package."""
    command, limit = STARTS[name]
    took = []
    while len(took) < 3 and min(took, default=limit) >= limit:
        before = os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        user = after.children_user - before.children_user
        took.append(user + after.children_system - before.children_system)
    assert 0 < min(took) < limit


def test_a_run_begins_without_scipy():
    """It takes half a second and 50 MB, and most runs need none of its parts, or few at the end."""
    code = "import sys, fedbbpt.api; print(*[m for m in sys.modules if m.startswith('scipy.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    parts = {"scipy.stats", "scipy.optimize", "scipy.special", "scipy.linalg", "scipy.spatial"}
    assert not parts & set(done.stdout.split())
