"""Labelled examples as they come from files, before they are coded and shared out.

An image that cannot be read is named, left out and counted, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from fedbbpt.errors import DataError

NAMED = 5
"""Most files that a sentence names."""


class Table(NamedTuple):
    """N labelled examples, in the order of their file; images in the order of their paths.

    Attributes:
        inputs: N texts, exactly as they stand in the file, or pictures.
        labels: N label names.
        sites: N site names, or ``None`` where the file has no ``site`` column or an empty one.
        skipped: images that could not be read, ``"path: reason"`` each, in order.
        references: of examples with answers in words the right ones, one or more each; their
            labels are the firsts.
    """

    inputs: tuple[Any, ...]
    labels: tuple[str, ...]
    sites: tuple[str, ...] | None
    skipped: tuple[str, ...] = ()
    references: tuple[tuple[str, ...], ...] | None = None


class Example(NamedTuple):
    """One labelled input, or why there is none.

    Attributes:
        name: its file.
        label: a name, or nothing if it has none.
        site: a name, or ``None`` where there are no sites.
        input: the picture; a text is left as it is.
        fault: why it could not be read.
    """

    name: str
    label: str
    site: str | None
    input: Any = None
    fault: str = ""


def tabled(
    examples: Sequence[Example],
    where: str,
    corrupt: str = "skip",
    whole: tuple[AbstractSet[str], AbstractSet[str]] | None = None,
) -> Table:
    """Examples as a table without those that could not be read.

    Args:
        examples: at least one.
        where: what they come from, for messages.
        corrupt: ``"refuse"`` what could not be read, or ``"skip"`` it.
        whole: classes and sites that must have an example, besides those that examples name;
            ``None`` if none must.

    Raises:
        DataError: there is none left, or none of a class or a site.
    """
    faults = [example for example in examples if example.fault]
    if faults and corrupt == "refuse":
        raise DataError(
            f"{where}: {faults[0].name} cannot be read ({faults[0].fault}); repair or remove it, "
            "or write data.corrupt = 'skip'"
        )
    kept = [example for example in examples if not example.fault]
    skipped = tuple(f"{example.name}: {example.fault}" for example in faults)
    if not kept:
        raise DataError(f"{where} holds no image that can be read: {_some(skipped)}")
    if whole is not None:
        _missing(where, "class", {*whole[0], *(e.label for e in faults)} - {e.label for e in kept})
        _missing(
            where, "site", {*whole[1], *(e.site or "" for e in faults)} - {e.site for e in kept}
        )
    sites = tuple(example.site for example in kept if example.site is not None)
    return Table(
        tuple(example.input for example in kept),
        tuple(example.label for example in kept),
        sites if len(sites) == len(kept) else None,
        skipped,
    )


def left_out(skipped: Sequence[str], total: int, what: str, fate: str = "were left out") -> str:
    """A sentence about images that could not be read.

    Args:
        skipped: as in a table, at least one.
        total: how many there are with them.
        what: which images.
        fate: what became of them.
    """
    count = f"{len(skipped)} of {total} {what} images"
    return f"{count} could not be read and {fate}: {_some(skipped)}"


def _some(skipped: Sequence[str]) -> str:
    """The first of them, each with its reason."""
    split = [one.rpartition(": ") for one in skipped[:NAMED]]
    more = ", ..." if len(skipped) > NAMED else ""
    return ", ".join(f"{name} ({reason})" for name, _, reason in split) + more


def _missing(where: str, what: str, lost: AbstractSet[str | None]) -> None:
    """DataError if a class or site has nothing left."""
    for name in sorted(filter(None, lost)):
        raise DataError(
            f"{where}: the {what} '{name}' has no image that can be read; give it one, or remove it"
        )
