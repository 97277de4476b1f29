"""Where rows come from, for the heading of a table: commits, seeds and machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence


def of(rows: Sequence[dict[str, str]]) -> str:
    """Commits and seeds of rows that name theirs, wherever they were run."""
    commits = sorted({row["commit"] for row in rows})
    seeds = sorted({int(row["seed"]) for row in rows})
    return (
        f"commit{'s' * (len(commits) > 1)} {', '.join(commits)}, seeds {' '.join(map(str, seeds))}"
    )


def machine() -> str:
    """Where this runs; only for a table of which every row was made in the same go."""
    return f"{platform.machine()}, {os.cpu_count()} cores, no GPU"
