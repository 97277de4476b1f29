"""Several sites tune one prompt for a model they can only query, without sharing their data."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedbbpt.api import resume, run
    from fedbbpt.artefact import Tuned
    from fedbbpt.outcome import Outcome
    from fedbbpt.pairs import tune

__all__ = ["Outcome", "Tuned", "resume", "run", "tune"]
__version__ = "0.1.0"

_HOMES = {"Tuned": "fedbbpt.artefact", "Outcome": "fedbbpt.outcome", "tune": "fedbbpt.pairs"}


def __getattr__(name: str) -> Any:
    # Imported on first use: `import fedbbpt` stays quick and pulls in nothing heavy.
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "fedbbpt.api")), name)
    raise AttributeError(f"module 'fedbbpt' has no attribute '{name}'")
