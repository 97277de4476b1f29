"""How merges put one value of many clients back into the state; and Krum's choice among updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.maths import robust
from fedbbpt.maths.merge import stacked
from fedbbpt.types import Update


def merged(state: Any, updates: Sequence[Update], rule: Callable[[str], Array]) -> Any:
    """The state in which every field that was sent is what the rule makes of its name.

    Without any update it stays as it is. A count, which is a field of integers, is rounded up:
    one that not all clients have reached counts as reached.
    """
    sent = updates[0].arrays if updates else {}
    fields = [name for name in sent if name in state._fields]  # besides, there may be a loss
    return state._replace(**{name: _like(getattr(state, name), rule(name)) for name in fields})


def _like(field: Array, value: Array) -> Array:
    if not np.issubdtype(np.asarray(field).dtype, np.integer):
        return value
    return np.asarray(np.ceil(value - 1e-6), np.asarray(field).dtype)


def check_trim(owner: str, trim: float) -> None:
    """Refuse a share that leaves nothing between the ends.

    Raises:
        ConfigError: it does.
    """
    if not 0 <= trim < 0.5:
        raise ConfigError(f"{owner}.trim is {trim}; it must be at least 0 and below 0.5")


def check_krum(owner: str, bad: int, keep: int) -> None:
    """Refuse numbers of clients that are none.

    Raises:
        ConfigError: they are negative.
    """
    for key, value in (("bad", bad), ("keep", keep)):
        if value < 0:
            raise ConfigError(f"{owner}.{key} is {value}; it must be 0 or more")


def trusted(
    updates: Sequence[Update], fields: Iterable[str], bad: int, keep: int, owner: str
) -> list[Update]:
    """The updates that Krum keeps, judged by all fields together, as they are.

    Args:
        updates: at least one.
        fields: what is to be merged.
        bad, keep: of :func:`fedbbpt.maths.robust.krum`; keep 0 for all but ``bad``.
        owner: the plug-in, for the message.

    Raises:
        ConfigError: there are too few updates to tell the hostile ones.
    """
    least = robust.fewest(bad, keep)
    if len(updates) < least:
        raise ConfigError(
            f"{owner} got {len(updates)} updates in this round, and to bear bad = {bad} hostile "
            f"clients and keep = {keep} it needs {least}; set a smaller number, or a merge that "
            "takes fewer clients, such as 'median'"
        )
    ordered = sorted(updates, key=lambda update: update.client)
    rows = [stacked(ordered, name)[0].reshape(len(ordered), -1) for name in fields]
    kept = robust.krum(np.concatenate(rows, axis=1), bad, keep or len(ordered) - bad)
    return [ordered[k] for k in kept.tolist()]
