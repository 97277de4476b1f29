"""How the simulated model writes instructions: some good, some bad, as a real one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from fedbbpt.testing._simulated_mind import Mind
from fedbbpt.testing._simulated_phrases import FRAMES, VAGUE
from fedbbpt.testing._skills import Skill
from fedbbpt.types import digest

Demonstration = tuple[str, str]
Pick = Callable[[str], float]
T = TypeVar("T")

GOOD, WRONG, NARROW = 0.5, 0.2, 0.15
"""Shares of proposals; the rest are vague."""


class Writer:
    """What proposes instructions, from demonstrations or from another instruction.

    A proposal is good (a wording of a skill that answers every demonstration right), wrong (of one
    that could answer them, and answers at least one otherwise), too narrow (of one that is right
    in some of them only, or a rule for the input of one demonstration, which quotes it) or vague
    (nothing that tells what to do). Wordings vary, and none is an anchor of the skill, so a good
    proposal may be understood less well than another.

    Args:
        mind: its skills are those that the writer knows.
    """

    def __init__(self, mind: Mind) -> None:
        self.skills, self.dice, self.mind = mind.skills, mind.dice, mind

    def propose(self, shown: Sequence[Demonstration], salt: str = "") -> str:
        """An instruction that the demonstrations may have followed.

        Args:
            shown: inputs and outputs, at least one.
            salt: other salts, other proposals.
        """
        key = digest("propose", repr(list(shown)), salt)
        pick = partial(self.dice.fixed, key=key)
        able = [skill for skill in self.skills if all(skill.answers(text) for text, _ in shown)]
        right = {skill.name: _right(skill, shown) for skill in able}
        good = [skill for skill in able if right[skill.name] == len(shown)]
        wrong = [skill for skill in able if right[skill.name] < len(shown)]
        partly = [skill for skill in wrong if right[skill.name]]
        kind = pick("kind")
        if kind < GOOD and good:
            return _worded(_one(good, pick("skill")), pick)
        if GOOD <= kind < GOOD + WRONG and wrong:
            return _worded(_one(wrong, pick("skill")), pick)
        if GOOD + WRONG <= kind < GOOD + WRONG + NARROW:
            if partly and pick("narrow") < 0.5:
                return _worded(_one(partly, pick("skill")), pick)
            text, answer = _one(shown, pick("shown"))
            return f'If the input is "{text}", write "{answer}".'
        return _one(VAGUE, pick("vague"))

    def vary(self, instruction: str, salt: str = "") -> str:
        """The instruction in other words, as they would be for the skill that it is nearest to; one
        that is near to none stays as it is, in another frame.

        Args:
            instruction: any text.
            salt: other salts, other words.
        """
        pick = partial(self.dice.fixed, key=digest("vary", instruction, salt))
        seen = self.mind.understand(instruction.strip())
        if seen.refused == 1:
            return _framed(instruction.strip(), pick("frame"))
        return _worded(seen.skills[0], pick)


def _right(skill: Skill, shown: Sequence[Demonstration]) -> int:
    """How many demonstrations a skill answers as they are answered."""
    return sum(answer in skill.answers(text) for text, answer in shown)


def _worded(skill: Skill, pick: Pick) -> str:
    return _framed(_one(skill.wordings, pick("wording")), pick("frame"))


def _framed(wording: str, thrown: float) -> str:
    return _one(FRAMES, thrown).format(wording, lower=wording[:1].lower() + wording[1:])


def _one(listed: Sequence[T], thrown: float) -> T:
    """The element at a place in [0, 1)."""
    return listed[int(thrown * len(listed))]
