"""Pages of runs: parses, calls, prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def report(paths: Sequence[Path], out: Path | None, against: str) -> None:
    """Write the page and say where it is."""
    from fedbbpt.report import pages

    print(pages.report(paths, out, against))
