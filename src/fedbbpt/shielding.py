"""What a shield is, what comes of several, and how the server reads what left."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from fedbbpt.arrays import Array, Arrays, encode
from fedbbpt.errors import Incompatible
from fedbbpt.maths.secret import Draws, secret_stream


class Bound(NamedTuple):
    """What is known of the values that a shield passes on.

    Attributes:
        fields: of which; empty for every floating field.
        norm: L2 norm of all of them together, at most.
        span: magnitude of each, at most.
    """

    fields: tuple[str, ...]
    norm: float
    span: float


class Spent(NamedTuple):
    """What can be told of one client, at most: see :mod:`fedbbpt.maths.accounting`."""

    epsilon: float
    delta: float


class Shield(ABC):
    """Options, and a pure function of an update's arrays.

    Attributes:
        stage: its place: what bounds (0), what blurs (1), what rounds (2), what hides (3).
        covers: guards of the phases (:class:`fedbbpt.parts.Phase`) whose fields pass through it.
        promises: something about all that a client says, so that what it does not cover must not
            leave.
        levels: behind it all clients weigh the same.
    """

    stage: ClassVar[int]
    covers: ClassVar[frozenset[str]] = frozenset({"all"})
    promises: ClassVar[bool] = False
    levels: ClassVar[bool] = False

    def behind(self, before: Sequence[Shield]) -> Shield:
        """The same shield, knowing those in front of it.

        Raises:
            Incompatible: it makes no sense behind them.
        """
        return self

    @property
    def passes(self) -> Bound | None:
        """What is known of the values that it passes on."""
        return None

    def ready(self) -> None:  # noqa: B027 - most need nothing
        """Raise a MissingExtra if a library is lacking; asked before anything is paid."""

    def spent(self, rounds: int) -> Spent | None:
        """What a client gives away in so many rounds, if this shield bounds it."""
        return None

    @abstractmethod
    def apply(self, arrays: Arrays, weight: float, draws: Draws) -> Arrays:
        """What leaves instead of these arrays; touches none of its arguments.

        Args:
            arrays: declared fields as they would leave.
            weight: examples behind them, which the server multiplies them by.
            draws: numbers from a secret of the node; the same again if the task is run again.

        Raises:
            Refused: there is a value that it cannot shield.
        """

    def open(self, arrays: Arrays) -> Arrays:
        """At the server: values as the aggregator reads them, or their mean, from what left."""
        return arrays

    @abstractmethod
    def describe(self) -> str:
        """One sentence for the egress statement."""


class Seat(NamedTuple):
    """A client in one round of a secure sum.

    Attributes:
        name: of the client.
        round: round number.
        secret: of the client for this run; see :func:`fedbbpt.maths.secret.secret_stream`.
    """

    name: str
    round: int
    secret: bytes


Messages = Mapping[str, Arrays]
"""One phase's, by sender."""

Layout = dict[str, tuple[int, ...]]
"""Shapes of the fields that a vector of words stands for, by name."""


class SecureSum(Shield):
    """A shield behind which the server learns the sum over clients and nothing else.

    Three messages besides the update, in the order of its methods; each client is told all that
    the others have said, and remembers nothing but its secret.
    """

    covers = frozenset({"all", "mask"})
    promises = True

    @abstractmethod
    def needed(self, clients: int) -> int:
        """How many of the clients that begin must stay to the end."""

    @abstractmethod
    def gathered(
        self, messages: Iterable[tuple[str, Arrays]], known: Iterable[str]
    ) -> dict[str, Arrays]:
        """One phase's messages by sender; Refused if one is strange or sent two."""

    @abstractmethod
    def advertise(self, seat: Seat) -> Arrays:
        """First message."""

    @abstractmethod
    def share(self, seat: Seat, adverts: Messages) -> Arrays:
        """Second message, from the first ones of all."""

    @abstractmethod
    def agree(self, seat: Seat, adverts: Messages, shares: Messages) -> SecureSum:
        """The shield for this round: its ``apply`` gives ``words`` in place of all fields."""

    @abstractmethod
    def answer(self, summed: Iterable[str], answered: Iterable[str] | None = None) -> Arrays:
        """Last message of a shield that is agreed: for a sum over ``summed``, once a round."""

    @abstractmethod
    def mean(
        self,
        round: int,
        adverts: Messages,
        shares: Messages,
        words: Messages,
        answers: Messages,
        layout: Layout,
    ) -> tuple[Arrays, float]:
        """At the server: the weighted mean over all clients that sent words, and their weight."""


def in_order(shields: Sequence[Shield]) -> tuple[Shield, ...]:
    """Shields as they are applied, each knowing those in front of it.

    Raises:
        Incompatible: one comes twice, or makes no sense behind those in front of it.
    """
    ordered: list[Shield] = []
    for shield in sorted(shields, key=lambda shield: shield.stage):
        if any(other.stage == shield.stage for other in ordered):
            raise Incompatible(f"there are two shields {called(shield)}; one is enough")
        ordered.append(shield.behind(tuple(ordered)))
    return tuple(ordered)


def protect(
    shields: Sequence[Shield], arrays: Arrays, weight: float, secret: bytes, round: int
) -> Arrays:
    """What leaves a client: its update behind all shields, which come :func:`in_order`.

    The same arrays and weight in the same round give the same again; any others get numbers of
    their own, so that no two updates are ever hidden by the same noise.
    """
    content = struct.pack(">d", weight) + encode(arrays)
    for shield in shields:
        draws = secret_stream(secret, round, f"shield {called(shield)}", content)
        arrays = shield.apply(arrays, weight, draws)
    return arrays


def revealed(shields: Sequence[Shield], arrays: Arrays) -> Arrays:
    """At the server: what the aggregator reads, from what left or a mean of it."""
    for shield in reversed(shields):
        arrays = shield.open(arrays)
    return arrays


def moved(arrays: Arrays, base: Arrays) -> Arrays:
    """An update with what a client moved in place of where it is, which is what a norm bounds.

    Args:
        arrays: fields as they would be sent.
        base: the broadcast. Floating fields that are also there, of the same shape, become
            differences in their own type; others stay.
    """
    return {
        name: array - base[name] if _moves(array, name, base) else array
        for name, array in arrays.items()
    }


def placed(arrays: Arrays, base: Arrays) -> Arrays:
    """Inverse of :func:`moved` at the server; of a mean of differences, the mean."""
    return {
        name: array + base[name] if _moves(array, name, base) else array
        for name, array in arrays.items()
    }


def _moves(array: Array, name: str, base: Arrays) -> bool:
    there = base.get(name)
    if there is None or there.shape != array.shape:
        return False
    return bool(np.issubdtype(there.dtype, np.floating))


def called(shield: Shield) -> str:
    """A shield's name, as in a config."""
    return type(shield).__name__.lower()


def covered(arrays: Arrays, fields: tuple[str, ...]) -> list[str]:
    """The fields of an update that a shield changes, by name."""
    return sorted(
        name
        for name, array in arrays.items()
        if np.issubdtype(array.dtype, np.floating) and (not fields or name in fields)
    )


def listed(fields: tuple[str, ...]) -> str:
    """Fields in a sentence."""
    return ", ".join(fields) or "all fields with a fraction"


def nearest_bound(before: Sequence[Shield], who: str, why: str) -> Bound:
    """What the last shield that bounds anything passes on.

    Raises:
        Incompatible: none does.
    """
    for shield in reversed(before):
        if shield.passes:
            return shield.passes
    raise Incompatible(f"the shield {who} needs the shield clip before it: {why}")
