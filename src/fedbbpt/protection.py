"""The shields of a config: made, put in order, and refused where they cannot keep their word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedbbpt import registry
from fedbbpt.config import Config
from fedbbpt.errors import Incompatible
from fedbbpt.parts import Parts
from fedbbpt.secure import summing
from fedbbpt.shielding import Shield, in_order

MUCH = 10.0
"""An epsilon above which a promise is next to none: e**10 is 22,000."""


def shields_of(config: Config) -> tuple[Shield, ...]:
    """Those of the table ``[shields]``, in the order in which updates pass them.

    They follow from the config alone, so that server and nodes make the same ones. How many noises
    are in a sum is known only of a secure sum with a threshold of its own: one less than that, for
    a site can take its own off again.

    Raises:
        ConfigError, UnknownPart: the table is at fault.
        Incompatible: a shield lacks one in front of it, or something else in the config would tell
            of examples what a shield promises to keep back.
        MissingExtra: a library is lacking.
    """
    tables = config.shields.options
    threshold = tables.get("mask", {}).get("threshold", 0)
    given: Mapping[str, Any] = {
        "fields": (),
        "given": None,
        "agreed": None,
        "rounds": config.rounds.max,
        "among": max(1, threshold - 1) if isinstance(threshold, int) else 1,
    }
    made = [
        registry.make("shields", name, options, f"shields.{name}", **given)
        for name, options in tables.items()
    ]
    for shield in made:
        shield.ready()
    _check_promises(config, made)
    return in_order(made)


def _check_promises(config: Config, shields: Sequence[Shield]) -> None:
    """Refuse what would tell of examples in other ways; asked before any client is."""
    if shields and config.method.kind == "baseline":
        raise Incompatible(
            f"[shields] protect what a search sends, and {config.method.name} is none; leave the "
            "table away"
        )
    promising = [_name(shield) for shield in shields if shield.promises]
    if not promising:
        return
    for key, plain, what in (
        ("vocabulary", "clients", "n-grams"),
        ("mapping", "counts", "counts of the model's answers"),
        ("mapping", "learned", "counts of the model's answers"),
    ):
        if getattr(config.prompt, key) == plain:
            raise Incompatible(
                f"prompt.{key} = '{plain}' sends {what} from each client, which the shield "
                f"{promising[0]} does not cover"
            )


def check_shields(parts: Parts, steps: int) -> None:
    """Refuse parts that cannot do with what the shields let through.

    Raises:
        Incompatible: says which.
    """
    shields, aggregator = parts.shields, _name(parts.aggregator)
    if shields and parts.aggregator.loss:
        raise Incompatible(
            f"{aggregator} compares the losses that clients send of their own points, and behind a "
            "shield these say nothing; take an aggregator such as 'mean' or 'adam'"
        )
    bounding = next((_name(shield) for shield in shields if shield.passes), "")
    if bounding:
        _check_bounded(parts, steps, bounding)
    mask = summing(shields)
    if mask is None:
        return
    if not parts.aggregator.sums:
        raise Incompatible(
            f"the shield {_name(mask)} tells the server a sum and nothing else, but {aggregator} "
            "looks at each client's update; take 'mean' or 'adam'"
        )
    if parts.wire == "replay" and parts.directions != "shared":
        raise Incompatible(
            f"the shield {_name(mask)} tells the server the sum of all losses, which it can replay "
            "only where all clients try the same candidates; set method.directions = 'shared' "
            "(with rounds.steps = 1), or method.wire = 'state'"
        )


def _check_bounded(parts: Parts, steps: int, shield: str) -> None:
    optimizer = _name(parts.optimizer)
    if parts.wire == "replay":
        if not parts.optimizer.relative:
            raise Incompatible(
                f"{optimizer} reads more in losses than how those of one step differ, and the "
                f"shield {shield} lets nothing else through"
            )
        if steps > 1:
            raise Incompatible(
                f"rounds.steps is {steps}, but behind the shield {shield} the server cannot replay "
                "a second step, for which the client has seen its own losses as they were; set "
                "rounds.steps = 1, or method.wire = 'state'"
            )
        return
    fixed = sorted({*parts.aggregator.fields(parts.optimizer)} - {*parts.optimizer.free})
    if fixed:
        raise Incompatible(
            f"{optimizer} sends {', '.join(fixed)}, which the shield {shield} cannot change and "
            "leave sound; set method.wire = 'replay', or take an aggregator that reads the mean "
            "alone, such as 'adam'"
        )


def check_sum(shields: Sequence[Shield], clients: int) -> None:
    """Refuse a secure sum of fewer clients than it needs.

    Args:
        shields: among which one may make such sums.
        clients: that take part in a round; nobody where they come later.

    Raises:
        Incompatible: there are too few, or they are too many for the threshold.
    """
    mask = summing(shields)
    if mask is None or not clients:
        return
    needed = mask.needed(clients)
    if needed > clients:
        raise Incompatible(
            f"{clients} clients take part in a round, and the secure sum of the shield "
            f"{_name(mask)} needs {needed}"
        )
    if 2 * needed <= clients:
        raise Incompatible(
            f"shields.{_name(mask)}.threshold is {needed} of {clients} clients; it must be above "
            "half of them"
        )


def notes(config: Config, shields: tuple[Shield, ...]) -> tuple[str, ...]:
    """What a user of noise should know beforehand, a sentence each."""
    spent = [s for s in (shield.spent(config.rounds.max) for shield in shields) if s]
    said = []
    if spent and config.rounds.holdout:
        said.append(
            "behind noise nothing is selected on held-back examples and the last snapshot is "
            "taken; with rounds.holdout = 0 every example can teach"
        )
    for epsilon, delta in spent:
        if epsilon > MUCH:
            said.append(
                f"the shield noise promises next to nothing: epsilon is {epsilon:.3g} at delta "
                f"{delta:g} after rounds.max = {config.rounds.max}; set shields.noise.epsilon, or "
                "fewer rounds"
            )
    return tuple(said)


def _name(part: object) -> str:
    return type(part).__name__.lower()
