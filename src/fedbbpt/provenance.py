"""With what a run was begun: versions, commit, machine and date."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("numpy", "scipy", "torch", "transformers", "onnxruntime", "ai_edge_litert", "flwr")
"""What may change a number; named where it is loaded."""
PATIENCE = 5.0
"""Seconds for git, which takes hundredths of one."""


def provenance() -> dict[str, Any]:
    """``versions`` by name, ``commit``, ``machine`` and ``began`` (UTC)."""
    return {
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Of fedbbpt, of Python, and of the libraries that are loaded."""
    loaded = {
        name: str(getattr(sys.modules[name], "__version__", "unknown"))
        for name in LIBRARIES
        if name in sys.modules
    }
    return {"fedbbpt": version("fedbbpt"), "python": platform.python_version(), **loaded}


@lru_cache(maxsize=1)
def commit() -> str:
    """Short id of the checkout that this package is run from, with a plus if its sources differ
    from it; empty where it is none.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        head = _git(root, "rev-parse", "--short", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", "src")
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + "+" * bool(changed)


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=root, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return done.stdout.strip()


def machine() -> str:
    """System, processor and cores, and the accelerator that torch uses; no name of the machine."""
    known = [f"{platform.system()} {platform.machine()}", f"{os.cpu_count()} cores"]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        known.append(str(torch.cuda.get_device_name()))
    return ", ".join(known)
