"""From the last round to ``result.json``: selection, the final pass, and what they amount to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fedbbpt.arrays import Arrays
from fedbbpt.artefact import write_arrays
from fedbbpt.baselines import Baseline
from fedbbpt.diagnose import Course, Finding, Held, Knobs, findings
from fedbbpt.errors import BoxError
from fedbbpt.maths import robust
from fedbbpt.maths.choose import choose
from fedbbpt.maths.merge import stacked, weighted_mean
from fedbbpt.record import write_json
from fedbbpt.rundir import CANDIDATES
from fedbbpt.runner import Run
from fedbbpt.stopping import IMPROVED
from fedbbpt.types import Update

Tree = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Which snapshot was chosen and what the test says about all of them.

    Attributes:
        chosen: position among the snapshots; 0 is the starting prompt.
        test: evaluation means by name and the metric as ``score``, each with S rows; ``None``
            without test examples.
        examples: number of test examples.
        by_client: metric before and after for each client with test examples.
        warnings: what the run found wrong with itself.
    """

    chosen: int
    test: Arrays | None
    examples: int
    by_client: dict[str, tuple[float, float]]
    warnings: tuple[Finding, ...] = ()


def judge(run: Run) -> Verdict:
    """Select on held-back examples, then read the test split once, for every snapshot."""
    federation = run.federation
    if federation.baseline is not None:
        return _judge_baseline(run, federation.baseline)
    run.progress("phase", {"name": "select"})
    heard = run.ask_all("select", federation.holders("holdout"))
    held, examples = (_borne if run.parts.aggregator.bears else _held)(heard)
    chosen = len(run.books.snapshots.points) - 1
    # What was found to be better is handed out, and nothing else.
    if held is not None and run.books.counts.stopped != IMPROVED:
        chosen = choose(held["losses"], held["squares"], examples)
    kept = run.books.snapshots
    if kept.maps[chosen] == kept.maps[0] and (kept.points[chosen] == kept.points[0]).all():
        chosen = 0  # the search came back to where it had begun
    run.refit()
    run.progress("phase", {"name": "evaluate"})
    tested = run.ask_all("evaluate", federation.holders("test"))
    verdict = _verdict(run, chosen, tested)
    test = verdict.test
    for i, (queries, number) in enumerate(
        zip(run.books.snapshots.queries, run.books.snapshots.rounds, strict=True)
    ):
        run.books.events.write(
            "snapshot",
            round=number,
            queries=queries,
            chosen=i == chosen,
            holdout_loss=None if held is None else float(held["losses"][i]),
            test_loss=None if test is None else float(test["losses"][i]),
            test_score=None if test is None else float(test["score"][i]),
        )
    if run.pool is not None:
        point = run.books.snapshots.points[chosen]
        candidates = run.pool.table(run.books.server.state, point)
        run.directory.prompt.mkdir(exist_ok=True)
        write_json(run.directory.prompt / CANDIDATES, {"candidates": candidates})
    return replace(verdict, warnings=_diagnose(run, heard, chosen))


def _diagnose(run: Run, heard: Sequence[Update], chosen: int) -> tuple[Finding, ...]:
    """What went wrong in the search, one event each."""
    events, knobs = run.books.events, Knobs.of(run.parts, run.federation.split.classes)
    reports = [Held.of(update) for update in heard if update.weight]
    # Of a pool the losses go up and down with what is tried.
    nothing = Course(np.zeros(0), np.zeros(0))
    course = Course.of(events) if run.pool is None else nothing
    found = findings(course, reports, chosen, knobs)
    for finding in found:
        events.write("diagnosis", **asdict(finding))
    return tuple(found)


def _judge_baseline(run: Run, baseline: Baseline) -> Verdict:
    """Fit the rival and compare it with the starting prompt."""
    fitted = baseline.fit(run)
    run.books.counts.stopped = "rounds"
    write_arrays(run.directory.prompt, fitted)
    run.progress("phase", {"name": "evaluate"})
    tested = run.ask_all(baseline.evaluate, run.federation.holders("test"), fitted)
    verdict = _verdict(run, 1, tested)
    return replace(verdict, examples=run.federation.test_examples)


def _verdict(run: Run, chosen: int, tested: Sequence[Update]) -> Verdict:
    value = run.parts.task.metric.value
    scores = {update.client: value(update.arrays) for update in tested}
    by_client = {name: (float(s[0]), float(s[chosen])) for name, s in scores.items()}
    test = _mean(tested)
    if test is not None:
        test["score"] = value(test)
    return Verdict(chosen, test, sum(int(u.weight) for u in tested), by_client)


def _held(heard: Sequence[Update]) -> tuple[Arrays | None, float]:
    """Means over all held-back examples, and how many there are."""
    return _mean(heard), sum(update.weight for update in heard)


def _borne(heard: Sequence[Update]) -> tuple[Arrays | None, float]:
    """The same where less than half of the clients may be hostile: medians over clients, each of
    which has one vote, for how many examples it held back is its own word. Losses are compared
    with those of the last snapshot client by client, since they differ more between clients.
    """
    heard = [update for update in heard if update.weight]
    if not heard:
        return None, 0.0
    (losses, weights), (squares, _) = (stacked(heard, name) for name in ("losses", "squares"))
    votes = np.ones(len(heard))
    gains = robust.median(losses - losses[:, -1:], votes)
    middle = {
        "losses": robust.median(losses[:, -1], votes) + gains,
        "squares": robust.median(squares, votes),
    }
    return middle, len(heard) * float(np.median(weights))


def _mean(updates: Sequence[Update]) -> Arrays | None:
    """Mean over all clients' examples of every field, or ``None`` without examples."""
    updates = [update for update in updates if update.weight]
    if not updates:
        return None
    return {name: weighted_mean(updates, name) for name in updates[0].arrays}


def result(run: Run, verdict: Verdict) -> Tree:
    """The content of ``result.json``; its keys are a contract."""
    config, counts, budget = run.config, run.books.counts, run.federation.budget
    rounds, requests = max(1, counts.client_rounds), run.ledger.requests()
    spent = {purse: budget.spent(purse) for purse in ("train", "select", "evaluation")}
    paid, keys, away = run.ledger.paid(), budget.keys(), budget.away.values()
    answered = run.ledger.known(keys)
    dropped = sum(key not in answered for key in keys)
    if keys and not away and dropped == len(keys) - _written(run):
        raise BoxError(f"{run.federation.box.name} answered none of {dropped} queries")
    paid += sum(one.paid for one in away)
    dropped += sum(one.dropped for one in away)
    return {
        "schema": 1,
        "method": config.method.name,
        "task": config.task,
        "box": run.federation.box.name,
        "seed": config.run.seed,
        "rounds": run.books.server.round,
        "clients": len(run.federation.clients),
        "metric": run.parts.task.metric.name,
        "test_examples": verdict.examples,
        "baseline": _scores(run, verdict, 0),
        "tuned": _scores(run, verdict, verdict.chosen),
        "gain_interval": _interval(run, verdict),
        "queries": {
            "budget": budget.limit,
            **spent,
            "paid": paid,
            # A row that failed is asked again by each client that needs it, and charged once.
            "cached": max(0, sum(spent.values()) - paid - dropped),
            "dropped": dropped,
        },
        "bytes": {
            "up_per_client_round": counts.up / rounds,
            "down_per_client_round": counts.down / rounds,
        },
        "seconds": {
            "setup": round(counts.setup, 3),
            "search": round(counts.search, 3),
            "box": round(counts.box, 3),
            "total": round(counts.total, 3),
        },
        "cost_usd": requests["usd"] if requests and run.federation.doors.priced else None,
        "stopped": counts.stopped,
    }


def _written(run: Run) -> int:
    """Queries that a writer answered, which say nothing of the model that is to follow."""
    if run.pool is None:
        return 0
    told = (event for event in run.books.events if event["event"] == "client")
    return sum(e["queries"] - e["dropped"] for e in told if e["phase"] == "propose")


def _scores(run: Run, verdict: Verdict, which: int) -> Tree:
    name = run.parts.task.metric.name
    if verdict.test is None:
        return {name: None, "loss": None}
    score, losses = verdict.test["score"], verdict.test["losses"]
    return {name: float(score[which]), "loss": float(losses[which])}


def _interval(run: Run, verdict: Verdict) -> list[float]:
    if verdict.test is None or verdict.chosen == 0:
        return [0.0, 0.0]
    return run.parts.task.metric.interval(verdict.test, verdict.chosen, verdict.examples)
