"""What a run says about itself: the four ways in which federated black-box tuning goes wrong.

Each check takes numbers that the server has anyway and returns a :class:`Finding` or ``None``. No
check costs a query. A search that works must not be called broken, so what is compared by chance
alone (the lowest of twenty snapshots, the worst of ten clients) has to clear a higher bar than one
standard error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.agreement import LEAST_ROUNDS, fall, levelled, signal
from fedbbpt.arrays import Array
from fedbbpt.parts import Parts
from fedbbpt.types import Update

CLEAR = 2.0
"""Standard errors from which a difference counts. That the last of twenty snapshots is worse than
the lowest by one is chance in 42 % of the searches that go nowhere, by two in 10 %."""
TRIFLE = 0.01
"""Share of the held-back loss that is neither gain nor harm, however sure the difference is."""
LEAST_ANSWERS = 10
"""Fewer held-back answers may be of one class by chance."""
CONSTANT, MARGIN = 0.95, 0.1
"""Share of answers in one class that is nearly all, and how far above its share of the labels."""
CHANCE = 0.05
"""Chance to blame any client at all where none is harmed."""


@dataclass(frozen=True)
class Finding:
    """One thing that went wrong.

    Attributes:
        kind: ``"no progress"``, ``"harmful merge"``, ``"over-fitting"`` or ``"constant class"``.
        facts: the numbers behind it, as JSON can hold them.
        sentence: what was seen and what to change.
    """

    kind: str
    facts: dict[str, Any]
    sentence: str


class Course(NamedTuple):
    """The search as the events of its merges tell it, R rounds.

    Attributes:
        agreements: (R,) of :func:`fedbbpt.agreement.agreement`, NaN where there is none.
        losses: (R,) of :func:`fedbbpt.agreement.levelled`, NaN where there is none.
    """

    agreements: Array
    losses: Array

    @classmethod
    def of(cls, events: Iterable[Mapping[str, Any]]) -> Course:
        """From all events of a run, gone through twice."""
        merges = [event for event in events if event["event"] == "merge"]
        merges = [merge for merge in merges if merge.get("phase", "search") == "search"]
        rounds = [merge["round"] for merge in merges]
        # None becomes NaN.
        agreements = np.array([merge["agreement"] for merge in merges], np.float64)
        return cls(agreements, levelled(events, max(rounds, default=-1) + 1)[rounds])


class Held(NamedTuple):
    """What a client reports on its held-back examples; S snapshots, the starting prompt first.

    Attributes:
        losses: (S,) means.
        squares: (S,) mean squared distance of each example's loss to that of the last snapshot.
        answers: (S, C) how many examples are answered with each class.
        labels: (C,) how many are of each class.
        examples: how many there are.
    """

    client: str
    losses: Array
    squares: Array
    answers: Array
    labels: Array
    examples: float

    @classmethod
    def of(cls, update: Update) -> Held:
        """From a client's message of the phase ``select``."""
        return cls(client=update.client, examples=update.weight, **update.arrays)

    def error(self, one: int, other: int) -> float:
        """Standard error of the difference between two snapshots' losses.

        Exact where one of them is the last; else the sum of both distances to the last, which
        is never too small.
        """
        gap = self.losses - self.losses[-1]
        spread = np.maximum(0.0, self.squares - gap**2) / max(1.0, self.examples - 1)
        return 0.0 if one == other else float(np.sqrt(spread[[one, other]]).sum())


class Knobs(NamedTuple):
    """What the advice calls the options and the classes of a run."""

    candidates: str = "the candidates per step"
    reach: str = ""
    size: str = "the dimensions of the prompt"
    step: str = "the learning rate"
    told: bool = True
    classes: tuple[str, ...] = ()

    @property
    def better(self) -> str:
        """What makes a signal stand out of the noise."""
        reach = f" and {self.reach}" if self.reach else ""
        return f"raise {self.candidates}{reach}, lower {self.size}, or give more examples"

    @classmethod
    def of(cls, parts: Parts, classes: Sequence[str]) -> Knobs:
        """The options that the parts of a run have."""
        optimizer, real = parts.optimizer, parts.prompt.space.kind == "real"
        counts = [n for n in ("pairs", "samples", "popsize") if hasattr(optimizer, n)]
        steps = [n for n in ("aggregator", "optimizer") if hasattr(getattr(parts, n), "lr")]
        return cls(
            f"method.optimizer.{counts[0]}" if counts else cls().candidates,
            "method.optimizer.sigma" if hasattr(optimizer, "sigma") else "",
            "prompt.dim" if real else "prompt.slots and prompt.candidates",
            f"method.{steps[0]}.lr" if steps else cls().step,
            parts.wire == "replay",
            tuple(classes),
        )


def together(reports: Sequence[Held]) -> Held:
    """All clients' held-back examples as one report."""
    weights = np.array([report.examples for report in reports])
    losses, squares = (
        np.tensordot(weights / weights.sum(), np.array(column), axes=1)
        for column in ([r.losses for r in reports], [r.squares for r in reports])
    )
    answers, labels = sum(r.answers for r in reports), sum(r.labels for r in reports)
    return Held("", losses, squares, np.asarray(answers), np.asarray(labels), float(weights.sum()))


def findings(course: Course, reports: Sequence[Held], chosen: int, knobs: Knobs) -> list[Finding]:
    """All that went wrong in a search.

    Args:
        course: its rounds.
        reports: of all clients with held-back examples.
        chosen: the snapshot that the run ends with.
        knobs: names for the advice.
    """
    held = together(reports) if reports else None
    checks = [no_progress(course, held, chosen, knobs)]
    if held is not None:
        checks += [
            harmful_merge(reports, chosen),
            over_fitting(course.losses, held, knobs),
            constant_class(held, chosen, knobs),
        ]
    return [finding for finding in checks if finding is not None]


def fifths(losses: Array) -> tuple[float, float]:
    """Mean of the first fifth of the rounds with a loss, and of the last."""
    heard = losses[np.isfinite(losses)]
    size = max(1, len(heard) // 5)
    return float(heard[:size].mean()), float(heard[-size:].mean())


def no_progress(course: Course, held: Held | None, chosen: int, knobs: Knobs) -> Finding | None:
    """Neither the training loss falls nor is the held-back loss lower than at the start.

    That a weak signal does not show in few rounds is not enough: where clients send losses,
    :func:`fedbbpt.agreement.signal` has to say that there is none, or that it is not used.
    """
    rounds, falls, z = len(course.losses), fall(course.losses), signal(course.agreements)
    if rounds < LEAST_ROUNDS or (falls is None and held is None):
        return None
    change = _change(z, falls, knobs)
    if change is None:
        return None
    facts: dict[str, Any] = {"rounds": rounds, "signal": z, "fall": falls}
    seen = []
    if falls is not None:
        facts["first"], facts["last"] = first, last = fifths(course.losses)
        seen.append(f"the training loss went from {first:.3f} to {last:.3f}")
    if held is not None:
        start, tuned, error = held.losses[0], held.losses[chosen], held.error(0, chosen)
        # By itself it is all there is to go by, so less of it counts.
        if start - tuned > max((CLEAR if seen else 1.0) * error, TRIFLE * start):
            return None
        facts |= {"start": float(start), "tuned": float(tuned), "error": error}
        seen.append(f"the held-back loss from {start:.3f} to {tuned:.3f} (±{error:.3f})")
    sentence = f"no progress: over {rounds} rounds {' and '.join(seen)}; {change}"
    return Finding("no progress", facts, sentence)


def _change(z: float | None, falls: float | None, knobs: Knobs) -> str | None:
    """Why a search stands still and what to change, or ``None`` if it may well get somewhere.

    Args:
        z: standard score of the agreement between rounds, where clients send losses that differ.
        falls: that of the fall of the training loss, where one is known.
        knobs: names of the options.
    """
    if falls is not None and falls <= -CLEAR:
        return f"the loss rises, the steps are too long: lower {knobs.step}, or {knobs.better}"
    if falls is None or (z is None and not knobs.told and falls <= 1):
        return f"clients send no losses that tell why: {knobs.better}"
    if z is None:
        # Enough rounds for a fall, but none in which candidates differed.
        flat = f"candidates do not differ in loss: raise {knobs.reach or knobs.candidates}"
        return flat if knobs.told and falls <= 1 else None
    # Two weak hints are one strong one; each has a standard deviation of 1.
    if z < CLEAR and falls < CLEAR and (z + falls) / np.sqrt(2) < CLEAR:
        return f"what a round learns is noise to the next (z = {z:.1f}): {knobs.better}"
    if z - falls > 2 * CLEAR and falls < CLEAR:
        return f"rounds agree (z = {z:.1f}), but their steps are too short: raise {knobs.step}"
    return None


def harmful_merge(reports: Sequence[Held], chosen: int) -> Finding | None:
    """Clients for whom the prompt is surely worse than the starting prompt and worse than the
    best snapshot of their own.

    Against the start the bar is that of a one-sided t-test which, over all clients together, errs
    with a chance of ``CHANCE``: clients hold back a handful of examples each, and of ten that
    nothing was done to, one is nearly always worse by a standard error.
    """
    from scipy.special import stdtrit  # a quarter of a second to load

    harmed = []
    judged = [report for report in reports if report.examples > 1]
    for report in judged:
        losses, best = report.losses, int(np.argmin(report.losses))
        bar = float(stdtrit(report.examples - 1, 1 - CHANCE / len(judged)))
        bar = max(bar * report.error(0, chosen), TRIFLE * losses[0])
        worse = losses[chosen] - losses[0] > bar
        if worse and losses[chosen] - losses[best] > report.error(best, chosen):
            harmed.append(report)
    if not harmed:
        return None
    facts = {
        r.client: {"start": float(r.losses[0]), "tuned": float(r.losses[chosen])} for r in harmed
    }
    names = ", ".join(f"{r.client} ({r.losses[0]:.3f} to {r.losses[chosen]:.3f})" for r in harmed)
    return Finding(
        "harmful merge",
        {"clients": facts},
        f"harmful merge: the held-back loss is above that of the starting prompt at {names}; tune "
        "a prompt there without the others, or merge more often (more rounds with fewer "
        "rounds.steps) and more clients (rounds.clients_per_round)",
    )


def over_fitting(losses: Array, held: Held, knobs: Knobs) -> Finding | None:
    """The training loss falls, but the held-back loss rises again from its lowest snapshot."""
    falls, last = fall(losses), len(held.losses) - 1
    lowest = int(np.argmin(held.losses))
    rise, error = float(held.losses[last] - held.losses[lowest]), held.error(lowest, last)
    bar = max(CLEAR * error, TRIFLE * held.losses[lowest])
    if falls is None or falls < CLEAR or rise <= bar:
        return None
    first, final = fifths(losses)
    return Finding(
        "over-fitting",
        {"first": first, "last": final, "lowest": lowest, "rise": rise, "error": error},
        f"over-fitting: the training loss fell from {first:.3f} to {final:.3f}, but from "
        f"snapshot {lowest} of {last} on the held-back loss rose by {rise:.3f} (±{error:.3f}); "
        f"stop earlier (budget.queries, rounds.max), lower {knobs.size}, or give more examples "
        "and hold more of them back (rounds.holdout)",
    )


def constant_class(held: Held, chosen: int, knobs: Knobs) -> Finding | None:
    """The prompt gives nearly all held-back examples one class, which the labels do not."""
    answers, total = held.answers[chosen], held.answers[chosen].sum()
    if total < LEAST_ANSWERS:
        return None
    share, labels = answers.max() / total, held.labels.max() / held.labels.sum()
    if share <= CONSTANT or share - labels <= MARGIN:
        return None
    start = held.answers[0].max() / max(1, held.answers[0].sum())
    if start > CONSTANT:
        change = "so does the starting prompt: try other prompt.labels or another prompt.template"
    else:
        change = "the starting prompt does not: try method.guard, prompt.per_class or fewer queries"
    which = knobs.classes[int(answers.argmax())]
    return Finding(
        "constant class",
        {"class": which, "share": float(share), "labels": float(labels), "start": float(start)},
        f"constant class: {share:.0%} of the held-back examples are answered '{which}', "
        f"and no class has more than {labels:.0%} of them; {change}",
    )
