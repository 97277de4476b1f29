"""No federation: every client runs by itself, and the result is the mean over clients.

Each client has a run directory of its own in ``clients/`` and an equal share of the budget. Where
the test examples belong to no site, every client is scored on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fedbbpt.config import Config
from fedbbpt.errors import BudgetTooSmall, Incompatible
from fedbbpt.trees import Tree

FOLDER = "clients"

T = TypeVar("T")


def each(config: Config, client: str, clients: int, ledger: Path) -> Config:
    """The config of one client's own run.

    Args:
        config: the whole comparison's.
        client: its name.
        clients: how many share the budget.
        ledger: where all of them record what they paid.
    """
    changes: dict[str, Tree] = {
        "method": {"clients": "all"},
        "partition": {"only": client},
        "rounds": {"clients_per_round": None},
        "budget": {"queries": config.budget.queries // clients},
        "run": {"ledger": str(ledger.absolute())},
    }
    return config.model_copy(
        update={k: getattr(config, k).model_copy(update=v) for k, v in changes.items()}
    )


def of_each(clients: Sequence[str], do: Callable[[str], T], budget: int) -> dict[str, T]:
    """What is done for each client, by name.

    Raises:
        BudgetTooSmall: some client's share cannot pay for a step of its own.
    """
    done: dict[str, T] = {}
    for name in clients:
        try:
            done[name] = do(name)
        except BudgetTooSmall as error:
            raise BudgetTooSmall(budget, error.needs * len(clients)) from None
    return done


def refuse_elsewhere(config: Config) -> None:
    """Incompatible: data can be pooled, and clients kept apart, only where all of them live."""
    if config.method.clients != "all" and config.engine.kind != "local":
        raise Incompatible(
            f"method.clients = '{config.method.clients}' is for simulation: it needs all examples "
            f"in one process, and engine.kind is '{config.engine.kind}'"
        )


def mean_of(results: dict[str, Tree], config: Config) -> Tree:
    """One result in the place of many: means of what is measured, sums of what is counted.

    The interval's ends are means too: of clients that are scored on the same examples nothing
    better is known without assuming that their errors are unrelated.
    """
    every = list(results.values())
    first, count = every[0], len(every)
    metric = first["metric"]

    def mean(*path: str | int) -> Any:
        values = [_at(result, path) for result in every]
        return None if None in values else sum(values) / count

    def total(*path: str) -> Any:
        return sum(_at(result, path) for result in every)

    scores = {
        which: {key: mean(which, key) for key in (metric, "loss")}
        for which in ("baseline", "tuned")
    }
    return {
        **first,
        "method": config.method.name,
        "rounds": max(result["rounds"] for result in every),
        "clients": count,
        **scores,
        "gain_interval": [mean("gain_interval", end) for end in (0, 1)],
        "queries": {key: total("queries", key) for key in first["queries"]}
        | {"budget": config.budget.queries},
        # Nothing leaves anyone.
        "bytes": dict.fromkeys(first["bytes"], 0.0),
        "seconds": {key: round(total("seconds", key), 3) for key in first["seconds"]},
    }


def _at(tree: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        tree = tree[key]
    return tree
