"""Every registered wrapper keeps the laws, and the laws catch those that do not."""

import numpy as np
import pytest

from fedbbpt import registry
from fedbbpt.black_box import Wrapper
from fedbbpt.errors import BoxError
from fedbbpt.testing.toys import toy_box
from fedbbpt.testing.wrappers import LAWS, STANDARD, check_wrapper, stacks


def wrap(name):
    """As a run makes it; one that the kit does not know is made with the box alone."""
    return STANDARD.get(name) or registry.find("wrappers", name)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", registry.names("wrappers"))
def test_registered(name, law):
    law(wrap(name))


def test_all_stacking_orders_are_tried():
    names = [name for name, _ in stacks(STANDARD)]
    assert len(set(names)) == 24
    assert "metered(cached(retrying(timed(box))))" in names
    for name, stack in stacks(STANDARD):
        box, found = stack(toy_box()), []
        while isinstance(box, Wrapper):
            found.append(type(box).__name__.lower())
            box = box.inner
        assert name.startswith("(".join(found))


# --- each law catches one that breaks it ---------------------------------------------------------


class Plain(Wrapper):
    """A wrapper to be spoilt in one place."""

    def evaluate(self, atoms, wanted):
        return self.inner.evaluate(atoms, wanted)


class Renames(Plain):
    def __init__(self, inner):
        super().__init__(inner)
        self.name = f"renamed {inner.name}"


class Rounds(Plain):
    def evaluate(self, atoms, wanted):
        return [row.astype(np.float32).astype(row.dtype) for row in super().evaluate(atoms, wanted)]


class AsksOneByOne(Plain):
    def evaluate(self, atoms, wanted):
        return [self.inner.evaluate(atoms, [i])[0] for i in wanted]


class AsksForAll(Plain):
    def evaluate(self, atoms, wanted):
        rows = self.inner.evaluate(atoms, range(len(atoms)))
        return [rows[i] for i in reversed(list(wanted))]


class Hides(Plain):
    def evaluate(self, atoms, wanted):
        try:
            return super().evaluate(atoms, wanted)
        except BoxError:
            return [np.zeros(3) for _ in wanted]


class FillsIn(Plain):
    def evaluate(self, atoms, wanted):
        return [np.nan_to_num(row) for row in super().evaluate(atoms, wanted)]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Renames, "name is"),
        (Rounds, "reply differs"),
        (AsksOneByOne, "one call became"),
        (AsksForAll, "reply differs"),
        (Hides, "failed for good and the wrapper answered"),
        (FillsIn, "came out as a number"),
    ],
)
def test_the_kit_catches(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_wrapper(broken)


def test_check_wrapper_tries_everything():
    check_wrapper(Plain)
