"""Masks that go in the sum over sites, so that the server learns the sum and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from fedbbpt.arrays import Arrays
from fedbbpt.errors import ConfigError, Refused
from fedbbpt.maths.secret import Draws
from fedbbpt.shielding import Layout, Messages, Seat, SecureSum
from fedbbpt.shields import _masking, _unmasking
from fedbbpt.shields._fixed_point import from_words, limit, to_words
from fedbbpt.shields._keys import public
from fedbbpt.shields._masking import Agreement
from fedbbpt.shields._messages import gathered, roster


@dataclass(frozen=True)
class Mask(SecureSum):
    """Pairwise-masked secure sum with dropout recovery (Bonawitz et al., CCS 2017).

    For merges that read only a weighted sum. What leaves is one vector of 64-bit words: the weight
    and all values times the weight, in fixed point, plus masks that make it uniform. Of the sites
    that send it the server learns the sum of weights and of weighted values; with too few left it
    learns nothing.

    This holds against a server that is curious but passes the sites' keys on as they came. To tell
    sites different things about who is left does not help it either, unless at least 2 threshold
    minus n of n sites work together with it. A server that invents sites, or answers for them, has
    to be stopped elsewhere, by keys that sites know each other by. Nor does a mask hide what the
    sum itself tells: of two sites, each knows the other's part.

    Attributes:
        threshold: sites that must stay to the end, above half of those that begin. 0: two thirds
            of those that begin, rounded up, and at least 2. A fixed number also keeps a server
            from beginning with a few sites only.
        bits: behind the binary point; every site's values are rounded to a multiple of 2**-bits.
            With 32 a site's weighted values may reach 2**30 over the number of sites.
        agreed: what the site agreed on with the others in this round; see :meth:`agree`.

    Raises:
        ConfigError: an option is out of range.
    """

    threshold: int = 0
    bits: int = 32
    agreed: Agreement | None = None

    stage = 3

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.threshold != 0 and self.threshold < 2:
            raise ConfigError(
                f"mask.threshold is {self.threshold}; it must be 2 or more, or 0 for two thirds"
            )
        if not 0 <= self.bits <= 52:
            raise ConfigError(f"mask.bits is {self.bits}; it must be from 0 to 52")

    def ready(self) -> None:
        """Raise a MissingExtra without the library ``cryptography``."""
        public(bytes(32))

    def needed(self, clients: int) -> int:
        """How many of the sites that begin must stay to the end."""
        return self.threshold or max(2, math.ceil(2 * clients / 3))

    def gathered(
        self, messages: Iterable[tuple[str, Arrays]], known: Iterable[str]
    ) -> dict[str, Arrays]:
        """One phase's messages by sender.

        Raises:
            Refused: a sender is none of the known, or sent two.
        """
        return gathered(messages, known)

    # --- at the client, in this order ------------------------------------------------------------

    def advertise(self, seat: Seat) -> Arrays:
        """First message: public keys."""
        return _masking.advertise(seat)

    def share(self, seat: Seat, adverts: Messages) -> Arrays:
        """Second message, from the first ones of all: sealed shares for each of them.

        Raises:
            Refused: too few, or a message is wrong.
        """
        return _masking.share(seat, adverts, self.needed(len(adverts)))

    def agree(self, seat: Seat, adverts: Messages, shares: Messages) -> Mask:
        """The shield for this round, from the first and second messages of all.

        Raises:
            Refused: too few, or a message is wrong.
        """
        needed = self.needed(len(adverts))
        return replace(self, agreed=_masking.agreement(seat, adverts, shares, needed))

    def apply(self, arrays: Arrays, weight: float, draws: Draws) -> Arrays:
        """Third message: ``words`` (1 + values,) uint64, in place of every field.

        Raises:
            Refused: no agreement was made, or a value is not finite or too large.
        """
        known = self._agreement
        words = to_words(arrays, weight, self.bits, len(known.senders))
        return {"words": _masking.cover(known, words)}

    def answer(self, summed: Iterable[str], answered: Iterable[str] | None = None) -> Arrays:
        """Last message: shares of what masks are left in the sum over ``summed``.

        Args:
            summed: whose words the server says to have.
            answered: for whom it has answered already in this round, if it has.

        Raises:
            Refused: too few, or another answer was given before.
        """
        return _masking.answer(self._agreement, summed, answered)

    # --- at the server ---------------------------------------------------------------------------

    def mean(
        self,
        round: int,
        adverts: Messages,
        shares: Messages,
        words: Messages,
        answers: Messages,
        layout: Layout,
    ) -> tuple[Arrays, float]:
        """The weighted mean over all sites that sent words, and the sum of their weights.

        Args:
            round: round number.
            adverts, shares, words, answers: the messages of the four phases.
            layout: shape of every field that was sent. With quantise their marked names.

        Returns:
            Means, float64, off by at most 2**-(bits + 1) times the number of sites over the sum of
            weights, if these are whole; zeros where no site has any weight.

        Raises:
            Refused: too few in any phase, or a message is wrong.
        """
        known = roster(adverts, self.needed(len(adverts)), round)
        sums, weight = from_words(
            _unmasking.total(known, shares, words, answers), layout, self.bits
        )
        return {name: sums[name] / weight if weight else sums[name] for name in sums}, weight

    def describe(self) -> str:
        """One sentence."""
        return (
            "mask: all fields and the weight leave as one vector of random-looking numbers, of "
            f"which the server learns only the sum over sites, to {2.0**-self.bits:g} for each; "
            f"a value times the weight may be up to {limit(self.bits, 1):g} over the number of "
            "sites."
        )

    @property
    def _agreement(self) -> Agreement:
        if self.agreed is None:
            raise Refused("the sites have agreed on no masks for this round, so nothing leaves")
        return self.agreed
