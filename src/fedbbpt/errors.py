"""Every error a user can meet.

FedbbptError
├── UsageError            what was asked cannot be done: exit code 2, nothing is written
│   ├── ConfigError       a key, value or combination in the config
│   │   └── BudgetTooSmall    it cannot pay for one round
│   ├── DataError         a file that is missing, unreadable or badly shaped
│   ├── UnknownPart       no plug-in of that name
│   ├── Incompatible      two parts that do not fit
│   ├── MissingExtra      an optional dependency is not installed
│   ├── RunDirError       a run directory that may not be used
│   └── Unreachable       a server that is not there, or may not be trusted
├── BoxError              the model behind the box failed for good
│   └── TransientError    the model failed, and asking again may work
├── TooFewNodes           fewer nodes than the quorum answered in time
├── Refused               what came, or would leave, is not what the shields allow
├── ExportError           an exported prompt is not the one that was tuned
└── BudgetSpent           not a failure: the budget cannot pay for the next step
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class FedbbptError(Exception):
    """Root of the tree: ``str(error)`` is one sentence fit for a terminal."""


class UsageError(FedbbptError):
    """The request itself is at fault; nothing was paid or written."""


class ConfigError(UsageError):
    """A key, value or combination in the config is wrong."""


class BudgetTooSmall(ConfigError):
    """The budget cannot pay for one step of one round.

    Attributes:
        needs: queries that would be enough.
    """

    def __init__(self, budget: int, needs: int, what: str = "one step of one round costs") -> None:
        super().__init__(f"budget.queries is {budget}, but {what} {needs} queries")
        self.needs = needs


class DataError(UsageError):
    """A data file is missing, unreadable or badly shaped."""


class UnknownPart(UsageError):
    """No plug-in of that name; the closest name is in the message."""


class Incompatible(UsageError):
    """Two parts do not fit, judged from the capabilities that they declare."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'fedbbpt[{extra}]'")


class RunDirError(UsageError):
    """A run directory holds something that this command may not touch."""


class Unreachable(UsageError):
    """The federation's server cannot be reached, or what answers may not be trusted."""


class ExampleFault(ConfigError):
    """Something of the user's fails on one example, which is named by its place and never quoted.

    Attributes:
        what: a sentence with ``{}`` where the example is named.
        place: among those that were scored together, from 0.
        input: of the example, if the one who raises it knows; never shown.
    """

    def __init__(self, what: str, place: int, input: object = None) -> None:
        super().__init__(what.replace("{}", f"example {place + 1}"))
        self.what, self.place, self.input = what, place, input


class BoxError(FedbbptError):
    """The model behind the box failed and asking again would not help."""


class TransientError(BoxError):
    """The model failed in a way that may pass: ``Retrying`` asks again."""


class TooFewNodes(FedbbptError):
    """Fewer nodes than the quorum answered a job in time; the run can be resumed."""

    def __init__(
        self, phase: str, round: int, found: int, lacking: Mapping[str, str], least: int
    ) -> None:
        silent = "; ".join(f"{name}: {why or 'no answer'}" for name, why in lacking.items())
        super().__init__(
            f"{found} of {found + len(lacking)} nodes answered in time (phase {phase}, round "
            f"{round}), and engine.quorum asks for {least}. Missing are {silent or 'all nodes'}"
        )


class Refused(FedbbptError):
    """What came, or would leave, is not what the shields allow; nothing leaves."""


class ExportError(FedbbptError):
    """What an export would write does not ask what was asked in tuning; nothing is written."""


class BudgetSpent(FedbbptError):
    """The budget cannot pay for the next step; the run ends with its best prompt so far."""

    def __init__(
        self, spent: float, limit: float, asked: float, key: str = "budget.queries"
    ) -> None:
        super().__init__(
            f"{key} is {limit:g}, of which {spent:g} is spent; the next request may take {asked:g}"
        )
        self.spent, self.limit, self.asked, self.key = spent, limit, asked, key


def closest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, and what there is.

    Args:
        name: what the user wrote.
        known: the names that exist.

    Returns:
        ``"did you mean 'cmaes'? known: cmaes, es"``, without the question when nothing is near.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}known: {', '.join(names) or 'none'}"
