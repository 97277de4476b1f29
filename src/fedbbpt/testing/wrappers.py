"""The laws of a wrapper: ``check_wrapper(lambda box: MyWrapper(box))``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations

from fedbbpt.black_box import AtomicBox, Wrapper
from fedbbpt.budget import Budget
from fedbbpt.errors import BoxError
from fedbbpt.testing._require import bits, require
from fedbbpt.testing.boxes import cases_for
from fedbbpt.testing.toys import CountingBox, MemoryStore, toy_box
from fedbbpt.wrappers.cached import Cached
from fedbbpt.wrappers.metered import Metered
from fedbbpt.wrappers.retrying import Retrying
from fedbbpt.wrappers.timed import Timed

Wrap = Callable[[AtomicBox], AtomicBox]

STANDARD: dict[str, Wrap] = {
    "cached": lambda box: Cached(box, MemoryStore()),
    "metered": lambda box: Metered(box, Budget(1 << 40).open("train", "site")),
    "retrying": lambda box: Retrying(box, sleep=lambda _: None),
    "timed": Timed,
}
"""The wrappers of a run, each with fresh surroundings."""


def check_wrapper(wrap: Wrap) -> None:
    """Try every law.

    Args:
        wrap: puts a fresh wrapper around a box.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    for law in LAWS:
        law(wrap)


def stacks(wraps: Mapping[str, Wrap]) -> Iterator[tuple[str, Wrap]]:
    """Every order of these wrappers, outermost first, as one wrapper each."""
    for order in permutations(wraps):

        def stack(box: AtomicBox, order: tuple[str, ...] = order) -> AtomicBox:
            for name in reversed(order):
                box = wraps[name](box)
            return box

        yield "(".join(order) + "(box" + ")" * len(order), stack


class _Broken(Wrapper):
    """Fails for good."""

    def evaluate(self, atoms: object, wanted: object) -> list[object]:  # type: ignore[override]
        raise BoxError("this box is broken")


# --- the laws ------------------------------------------------------------------------------------


def passes_on(wrap: Wrap) -> None:
    """Attributes and atoms are those of the inner box, to all appearances."""
    box = toy_box()
    wrapped = wrap(box)
    for attribute in ("name", "accepts", "sides", "gives", "vocabulary"):
        one, other = getattr(box, attribute), getattr(wrapped, attribute)
        require(one == other, f"{attribute} is {one!r} inside and {other!r} outside")
    for case in cases_for(box):
        keys = [[atom.key for atom in b.split(*case).atoms] for b in (box, wrapped)]
        require(keys[0] == keys[1], "the wrapper has other atoms than the box")


def changes_no_bit(wrap: Wrap) -> None:
    """Replies are those of the inner box, the first time and again, whole or in part."""
    box = toy_box()
    wrapped = wrap(box)
    for case in cases_for(box):
        plain = bits(box(*case).scores)
        for time in ("first", "second"):
            got = bits(wrapped(*case).scores)
            require(got == plain, f"the {time} reply differs from the inner box's")
        atoms = box.split(*case).atoms
        some = list(range(len(atoms)))[::-2]
        same = bits(wrapped.evaluate(atoms, some)) == bits(box.evaluate(atoms, some))
        require(same, "rows asked for in part differ from the inner box's")


def asks_at_most_once(wrap: Wrap) -> None:
    """A box that answers is asked at most once for an atom of a call, in one call."""
    counting = CountingBox(toy_box())
    case = cases_for(counting)[0]
    wrap(counting)(*case)
    keys = [atom.key for atom in counting.split(*case).atoms]
    require(sorted(counting.asked) == sorted(keys), "the box was not asked once for each atom")
    require(counting.calls == 1, f"one call became {counting.calls}")


def hides_no_failure(wrap: Wrap) -> None:
    """A box that fails for good fails through the wrapper; its NaN comes out as NaN."""
    box = toy_box()
    case = cases_for(box)[0]
    try:
        wrap(_Broken(box))(*case)
    except BoxError:
        pass
    else:
        require(False, "the inner box failed for good and the wrapper answered")
    holes = CountingBox(box, nans=0.3, times=None)
    grid = box.split(*case)
    rows = wrap(holes).evaluate(grid.atoms, range(len(grid.atoms)))
    for atom, row, whole in zip(
        grid.atoms, rows, box.evaluate(grid.atoms, range(len(grid.atoms))), strict=True
    ):
        if holes.chosen("nans", holes.nans, atom.key):
            require(row[0] != row[0], "a row that was never answered came out as a number")
        else:
            require(bits(row) == bits(whole), "a neighbour of an unanswered row changed")


def stacks_in_any_order(wrap: Wrap) -> None:
    """With cache, meter, retry and timer around and within, replies have the same bits.

    So too over a box that fails now and then, for the retry is somewhere in the stack.
    """
    box = toy_box()
    case = cases_for(box)[0]
    plain = bits(box(*case).scores)
    for name, stack in stacks({"this": wrap, **STANDARD}):
        for faulty in (CountingBox(box), CountingBox(box, raises=0.1, nans=0.3, seed=1)):
            stacked = stack(faulty)
            for _ in range(2):
                require(bits(stacked(*case).scores) == plain, f"{name} gives another reply")


LAWS: tuple[Callable[[Wrap], None], ...] = (
    passes_on,
    changes_no_bit,
    asks_at_most_once,
    hides_no_failure,
    stacks_in_any_order,
)
