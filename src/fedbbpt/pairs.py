"""Tuning on lists in memory: :func:`tune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbbpt.api import run
from fedbbpt.auto import settle
from fedbbpt.black_box import AtomicBox
from fedbbpt.config import resolve
from fedbbpt.errors import ConfigError
from fedbbpt.outcome import Outcome
from fedbbpt.sections import AUTO
from fedbbpt.sharing import share_out, tables


def tune(
    clients: Mapping[str, Sequence[tuple[Any, Any]]],
    template: str,
    out: str | Path,
    *,
    test: Sequence[tuple[Any, Any]] = (),
    labels: Mapping[str, str] | None = None,
    method: str = AUTO,
    queries: int = 4000,
    seed: int = 0,
    box: AtomicBox | None = None,
    **sections: Mapping[str, Any] | str,
) -> Outcome:
    """Tune one prompt over clients that are lists of (text, label) or (image, label) pairs; for
    ``task="generate"`` of (text, answer) or (text, [answer, ...]).

    An image is a Pillow image, an array (H, W, 3) of uint8, or a ``pathlib.Path``.

    Args:
        clients: private examples by client name.
        template: the manual prompt with ``{label}``, or with ``{text}`` for the text side.
        out: the run directory, replaced if it holds a run.
        test: examples for the final pass.
        labels: optional words for the labels.
        method: a preset; left out, what fits the model, the data and the budget.
        queries: budget of training queries.
        seed: of everything.
        box: the model; all-MiniLM-L6-v2 if not given.
        sections: further tables and keys of the config, e.g. ``rounds={"max": 50}``.

    Raises:
        UsageError: the request is at fault.
    """
    side = "text" if "{text}" in template else "label"
    tree: dict[str, Any] = {
        "data": {"train": ""},
        "prompt": {"template": template, "side": side, "labels": dict(labels or {})},
        "method": {"name": method},
        "budget": {"queries": queries},
        "run": {"seed": seed},
    }
    for name, section in sections.items():
        tree[name] = section if isinstance(section, str) else {**tree.get(name, {}), **section}
    config = resolve(tree, Path.cwd())
    if config.partition.kind != "column":
        raise ConfigError("tune() takes the clients as they are; leave partition.kind = 'column'")
    given = tables(clients, test, config.data, config.task)
    config, box, why = settle(config, box, share_out(config, *given))
    split = share_out(config, *given)  # a method may hold other examples back
    return run(config, out, overwrite=True, box=box, split=split, why=why)
