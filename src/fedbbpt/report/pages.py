"""Pages on disk: one for a run, one for several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedbbpt.errors import RunDirError
from fedbbpt.report.rows import is_comparison, members
from fedbbpt.report.run_page import run_page
from fedbbpt.report.side_by_side import side_by_side
from fedbbpt.report.story import read_story

PAGE = "report.html"


def write(path: Path) -> Path:
    """Write the page of a run into its directory; returns the file."""
    file = path / PAGE
    file.write_text(run_page(read_story(path)), encoding="utf-8")
    return file


def report(paths: Sequence[Path], out: Path | None = None, against: str = "") -> Path:
    """Write the page of a run, or of several side by side.

    Args:
        paths: run directories, and directories that ``compare`` has written.
        out: the file; in the directory itself if absent and there is only one.
        against: label of the method that the others are tested against.

    Returns:
        The file.

    Raises:
        RunDirError: a directory holds no run, or the file cannot be written.
        ConfigError: no run is called as ``against`` says.
    """
    if len(paths) == 1 and not is_comparison(paths[0]):
        content = run_page(read_story(paths[0]))
    else:
        title = " and ".join(path.resolve().name for path in paths[:3])
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        content = side_by_side(members(paths), title + more, against)
    file = out or (paths[0] / PAGE if len(paths) == 1 else Path(PAGE))
    try:
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        said = f"{file} cannot be written ({error.strerror}); name another --out"
        raise RunDirError(said) from None
    return file
