"""No federation: every client runs by itself, and the result is the mean over clients.

Each client has a run directory of its own in ``clients/`` and an equal share of the budget. Where
the test examples belong to no site, every client is scored on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedbbpt.black_box import AtomicBox
from fedbbpt.build import build
from fedbbpt.config import Config
from fedbbpt.errors import BudgetTooSmall, Incompatible
from fedbbpt.ledger import Ledger
from fedbbpt.needs import count_needs
from fedbbpt.record import read_lines
from fedbbpt.rundir import CLIENTS, EVENTS
from fedbbpt.sharing import Split, only
from fedbbpt.trees import Tree


def shares(config: Config, split: Split, box: AtomicBox, ledger: Path) -> dict[str, Config]:
    """The config of each client's own run, by name.

    Args:
        config: the whole run's.
        split: all clients' examples.
        box: the model; nothing is asked of it.
        ledger: where all of them record what they paid.

    Raises:
        BudgetTooSmall: some client's share cannot pay for one step.
        UsageError: what else is refused of a run.
    """
    refuse_elsewhere(config)
    if config.stop.when != "never":
        raise Incompatible(
            "stop.when is 'sure', which says when one search is enough, and with method.clients = "
            "'alone' there is one for each client; set stop.when = 'never'"
        )
    count = len(split.clients)
    configs = {name: _own(config, name, count, ledger) for name in split.clients}
    needs = []
    for name, own in configs.items():
        try:
            count_needs(build(own, only(split, name), Ledger(), box))
        except BudgetTooSmall as error:
            needs.append(error.needs)
    if needs:
        raise BudgetTooSmall(config.budget.queries, max(needs) * count)
    return configs


def _own(config: Config, client: str, clients: int, ledger: Path) -> Config:
    whole = config.budget
    changes: dict[str, Tree] = {
        "method": {"clients": "all"},
        "partition": {"only": client},
        # Said aloud, or the preset's number would be back when the config is read again.
        "rounds": {"clients_per_round": 1},
        "budget": {
            "queries": max(1, whole.queries // clients),
            "tokens": whole.tokens and max(1, whole.tokens // clients),
            "usd": whole.usd and whole.usd / clients,
        },
        "run": {"ledger": str(ledger.absolute())},
    }
    return config.model_copy(
        update={k: getattr(config, k).model_copy(update=v) for k, v in changes.items()}
    )


def folder(path: Path, client: str) -> Path:
    """The run directory of one client. Names come from the data and may be anything."""
    return path / CLIENTS / quote(client, safe=" ").replace(".", "%2E")


def folders(path: Path) -> list[Path]:
    """The run directories of all clients, if the run at ``path`` is one of these."""
    return sorted((path / CLIENTS).iterdir()) if (path / CLIENTS).is_dir() else []


def refuse_elsewhere(config: Config) -> None:
    """Incompatible: data can be pooled, and clients kept apart, only where all of them live."""
    if config.method.clients != "all" and config.engine.kind != "local":
        raise Incompatible(
            f"method.clients = '{config.method.clients}' is for simulation: it needs all examples "
            f"in one process, and engine.kind is '{config.engine.kind}'"
        )


def warnings(path: Path, clients: Sequence[str]) -> tuple[str, ...]:
    """What was noted, once for all clients, and what went wrong at which; a sentence each."""
    events = [(name, e) for name in clients for e in read_lines(folder(path, name) / EVENTS)]
    notes = dict.fromkeys(e["sentence"] for _, e in events if e["event"] == "note")
    wrong = (f"{name}: {e['sentence']}" for name, e in events if e["event"] == "diagnosis")
    return (*notes, *wrong)


def by_client(results: Mapping[str, Tree]) -> dict[str, tuple[float, float]]:
    """Metric before and after for each client with test examples."""
    metrics = {name: result["metric"] for name, result in results.items()}
    return {
        name: (results[name]["baseline"][metric], results[name]["tuned"][metric])
        for name, metric in metrics.items()
        if results[name]["tuned"][metric] is not None
    }


def mean_of(results: Mapping[str, Tree], config: Config, split: Split) -> Tree:
    """One result in the place of many: means of what is measured, sums of what is counted.

    The interval's ends are means too: of clients that are scored on the same examples nothing
    better is known without assuming that their errors are unrelated.
    """
    every = list(results.values())
    first = every[0]
    metric = first["metric"]
    tests = {id(batch): batch.size for batch in split.test.values()}
    tested = [result for result in every if result["tuned"][metric] is not None]

    def mean(*path: str | int) -> Any:
        values = [_at(result, path) for result in tested]
        return sum(values) / len(values) if values and None not in values else None

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
        "clients": len(every),
        "test_examples": sum(tests.values()),
        **scores,
        "gain_interval": [mean("gain_interval", end) if tested else 0.0 for end in (0, 1)],
        "queries": {key: total("queries", key) for key in first["queries"]}
        | {"budget": config.budget.queries},
        # Nothing leaves anyone.
        "bytes": dict.fromkeys(first["bytes"], 0.0),
        "cost_usd": None if first["cost_usd"] is None else total("cost_usd"),
        "seconds": {key: round(total("seconds", key), 3) for key in first["seconds"]},
    }


def _at(tree: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        tree = tree[key]
    return tree
