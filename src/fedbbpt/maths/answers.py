"""How good a written answer is: scores in [0, 1], against the reference that suits it best.

All scores read texts in compatibility form (NFKC) and in small letters. No answer, and an answer of
blanks, scores 0. What a model puts around its answer ("Sure! It is ...") counts: only ``contains``
and ``number`` look past it.
"""

from __future__ import annotations

import importlib
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from traceback import extract_tb
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, Arrays
from fedbbpt.errors import ConfigError, ExampleFault
from fedbbpt.maths.metrics import NORMAL, Metric

ARTICLES = frozenset({"a", "an", "the"})
CLOSE = 1e-9
"""Numbers that differ by less, relative to the larger or absolutely, are rounding and the same."""

# Kept of the punctuation: a decimal point between digits or in front of one, and a minus sign.
_OF_NUMBERS = re.compile(r"(?<=\d)\.(?=\d)|(?<![^\s(-])\.(?=\d)|(?<![^\s(])-(?=\.?\d)")
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
)
_MARKER = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+", re.MULTILINE)
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u9fff])")  # kana and Han: each one a word


# --- reading a text ------------------------------------------------------------------------------


def normalised(text: str) -> str:
    """A text as SQuAD's evaluation compares it (Rajpurkar et al. 2016).

    That is in small letters, without punctuation and articles, with single blanks. Four things
    differ, where SQuAD's rule would call wrong answers right, or leave nothing of right ones:

    * punctuation is Unicode's, not only ASCII's;
    * the point of a decimal and the sign of a number stay: 1.5 is not 15, and -5 not 5;
    * an article stays in front of a single letter and at the end, for letters can be answers:
      ``"a"``, ``"a p p l e"``;
    * a text of nothing but punctuation stays as it is.
    """
    plain = _folded(text)
    kept = {found.start() for found in _OF_NUMBERS.finditer(plain)}
    bare = "".join(c for i, c in enumerate(plain) if i in kept or not _punctuation(c))
    return " ".join(_without_articles(bare.split())) or " ".join(plain.split())


def words(text: str) -> list[str]:
    """The words of a text in small letters, articles too; whatever is no letter, mark or digit
    ends one, but for the point and the sign of a number. Han and kana are words of one character.
    """
    plain = _folded(text)
    kept = {found.start() for found in _OF_NUMBERS.finditer(plain)}
    spaced = "".join(
        c if i in kept or unicodedata.category(c)[0] in "LMN" else " " for i, c in enumerate(plain)
    )
    return _UNSPACED.sub(r" \1 ", spaced).split()


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("\u2212", "-").lower()


def _punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def _without_articles(tokens: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for token in reversed(tokens):
        if not (token in ARTICLES and kept and len(kept[-1]) > 1):
            kept.append(token)
    return kept[::-1]


# --- one answer, one reference -------------------------------------------------------------------


def exact(answer: str, reference: str) -> float:
    """1 if both are the same when :func:`normalised`."""
    return float(normalised(answer) == normalised(reference))


def contains(answer: str, reference: str) -> float:
    """1 if the reference's words stand in a row in the answer, articles counted or left out.

    Words are compared as wholes and not as patterns: "cat" is not in "concatenate", and a
    reference may hold any character.
    """
    said, wanted = words(answer), words(reference)
    if not wanted:
        return float(reference.strip() in answer)
    pairs = ((said, wanted), (_without_articles(said), _without_articles(wanted)))
    return float(any(f" {' '.join(w)} " in f" {' '.join(s)} " for s, w in pairs))


def same_set(answer: str, reference: str) -> float:
    """1 if both are lists of the same words, in any order and however often.

    Separators, numbers and bullets in front of lines, and the word "and" do not count; articles do
    ("exact set" of Honovich et al. 2022).
    """
    return float(_listed(answer) == _listed(reference))


def _listed(text: str) -> set[str]:
    found = set(words(_MARKER.sub("", text)))
    return found - {"and"} or found or {text.strip()}


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the answer's words, as SQuAD's: 2 m / (a + r) for m
    common among a and r words, each as often as it is in both.
    """
    said, wanted = (Counter(normalised(text).split()) for text in (answer, reference))
    common = (said & wanted).total()
    return 2.0 * common / max(1, said.total() + wanted.total())


def number(answer: str, reference: str) -> float:
    """1 if the *last* number of the answer is the reference's last, up to ``CLOSE``.

    Read are digits with a sign, a decimal point, an exponent and commas between thousands: 1,000
    and 1e3 and 1000.0 are the same. Signs of currencies, per cent and units are passed over, and
    words for numbers ("twelve") are none.
    """
    said, wanted = last_number(answer), last_number(reference)
    if said is None or wanted is None:
        return 0.0
    return float(math.isclose(said, wanted, rel_tol=CLOSE, abs_tol=CLOSE))


def last_number(text: str) -> float | None:
    """The last finite number in a text, if there is one."""
    found = [float(one.replace(",", "")) for one in _NUMBER.findall(_folded(text))]
    return found[-1] if found and math.isfinite(found[-1]) else None


MEASURES: dict[str, Callable[[str, str], float]] = {
    "exact": exact,
    "contains": contains,
    "set": same_set,
    "f1": f1,
    "number": number,
}
"""Scores by the names that configs give them."""


# --- many answers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeanScore(Metric):
    """The mean score of all examples.

    Attributes:
        measure: a key of ``MEASURES``, or ``"package.module:function"`` for one of the user's own:
            called with an answer (never blank) and the tuple of its references, it returns a
            number from 0 to 1.

    Raises:
        ConfigError: there is no such measure.
    """

    measure: str = "exact"

    sends = ("scores", "squares")

    def __post_init__(self) -> None:
        own = _imported(self.measure) if ":" in self.measure else None
        if own is None and self.measure not in MEASURES:
            raise ConfigError(
                f"metric is '{self.measure}'; for answers in words it must be one of "
                f"{', '.join(MEASURES)}, or package.module:function"
            )
        object.__setattr__(self, "name", self.measure)
        object.__setattr__(self, "_own", own)

    def scores(self, answers: Array, references: Array) -> Array:
        """(S, B) scores of answers to B examples.

        Args:
            answers: (S, B) texts, ``None`` for no answer.
            references: (B,) tuples of texts.

        Raises:
            ConfigError: the user's function fails, or returns no number from 0 to 1; or a number
                is wanted and a reference has none. Examples are named by their place in
                ``references``, from 1, and never quoted.
        """
        if self.measure == "number":
            _all_numbers(references)
        found = np.zeros(answers.shape)
        for (s, b), answer in np.ndenumerate(answers):
            if answer is not None and answer.strip():
                found[s, b] = self._score(answer, tuple(references[b]), b)
        return found

    def _score(self, answer: str, references: tuple[str, ...], place: int) -> float:
        own: Callable[..., Any] | None = self._own  # type: ignore[attr-defined]
        if own is None:
            one = MEASURES[self.measure]
            return max(one(answer, reference) for reference in references)
        what = f"metric '{self.measure}'"
        try:
            value = own(answer, references)
        except Exception as error:
            # Neither its words nor its trace may be shown: both can quote the example.
            at = extract_tb(error.__traceback__)[-1]
            kind = type(error).__name__
            raise ExampleFault(
                f"{what} raised {kind} in {at.filename}, line {at.lineno}, on {{}}; it must score "
                "any answer",
                place,
            ) from None
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = math.nan
        if not 0 <= score <= 1:
            seen = f"{score:g}" if math.isfinite(score) else f"a value of type {_kind(value)}"
            raise ExampleFault(f"{what} gave {seen} for {{}}; it must be from 0 to 1", place)
        return score

    def tell(self, answers: Array, targets: Array) -> Arrays:
        """Mean scores, and mean squares of their distances to the first row's."""
        scores = self.scores(answers, targets)
        return {
            "scores": scores.mean(axis=1),
            "squares": ((scores - scores[0]) ** 2).mean(axis=1),
        }

    def value(self, told: Arrays) -> Array:
        """The mean of all clients' examples."""
        return told["scores"]

    def interval(self, told: Arrays, which: int, examples: int) -> list[float]:
        """Normal interval of the mean paired difference of scores, which lie in [-1, 1].

        Half an example that is gained whole, half a lost one and one that stays are added, for
        scores of 0 and 1 that is Agresti and Min's, see :func:`.metrics.paired_interval`: without
        them no change at all would be an interval of no width.
        """
        if not examples:
            return [0.0, 0.0]
        gain = float(told["scores"][which] - told["scores"][0])
        size = examples + 2
        middle = gain * examples / size
        square = (float(told["squares"][which]) * examples + 1) / size
        half = NORMAL * math.sqrt(max(0.0, square - middle**2) / size)
        return [max(-1.0, middle - half), min(1.0, middle + half)]


def _kind(value: object) -> str:
    return type(value).__name__


def _all_numbers(references: Array) -> None:
    """ConfigError if a reference holds no number."""
    for place, own in enumerate(references):
        if any(last_number(reference) is None for reference in own):
            raise ExampleFault(
                "metric is 'number', but a reference of {} holds none; take 'exact'", place
            )


def _imported(path: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module may raise anything when it is loaded
        raise ConfigError(
            f"metric '{path}' cannot be imported ({_kind(error)}: {error}); write "
            "package.module:function"
        ) from error
    if not callable(found):
        raise ConfigError(f"metric '{path}' has the type {_kind(found)}; it must be a function")
    own: Callable[..., Any] = found
    return own
