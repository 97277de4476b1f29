"""Texts in a form that forgets how they were written: to compare what they say."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_HAN = "\u3040-\u30ff\u3400-\u9fff"  # kana and Han, which put no blanks between words
_WORD = re.compile(f"[{_HAN}]|[^\\W_{_HAN}]+")
_STOP = re.compile(r"[.!?:;\n\"“”„«»]")
_NUMBER = re.compile(r"\d(?:[\W_]*\d)*")
_LOOKS = {
    ord(other): latin
    for others, latins in (
        ("АВЕКМНОРСТУХІЈЅ", "abekmhopctyxijs"),  # Cyrillic capitals
        ("авекмнорстухіјѕԁһԛԝ", "abekmhopctyxijsdhqw"),
        ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "abezhikmnoptyx"),  # Greek capitals
        ("αορνικτυχε", "aopviktuxe"),
        ("ıłøđ", "ilod"),
    )
    for other, latin in zip(others, latins, strict=True)
}
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and signs that show nothing


class Words(NamedTuple):
    """The words of a text.

    Attributes:
        words: small letters and digits, without accents; Han and kana one by one.
        capital: whether each has a capital; ``None`` where a sentence begins, and it says nothing.
    """

    words: tuple[str, ...]
    capital: tuple[bool | None, ...]

    def joined(self) -> Words:
        """The same, where several words of one character in a row are one: "s e c r e t"."""
        words: list[str] = []
        capital: list[bool | None] = []
        single = False
        for word, big in zip(self.words, self.capital, strict=True):
            if single and _letter(word):
                words[-1] += word
            else:
                words.append(word)
                capital.append(big)
            single = _letter(word)
        return Words(tuple(words), tuple(capital))


def split(text: str) -> Words:
    """The words of a text."""
    plain = _visible(text)
    found = list(_WORD.finditer(plain))
    ends = [0, *(one.end() for one in found)]
    gaps = [plain[end : one.start()] for end, one in zip(ends, found, strict=False)]
    inside = tuple(i > 0 and not _STOP.search(gap) for i, gap in enumerate(gaps))
    capital = tuple(one.group()[0].isupper() for one in found)
    both = zip(inside, capital, strict=True)
    return Words(
        tuple(_small(one.group()) for one in found),
        tuple(big if within else None for within, big in both),
    )


def small(text: str) -> str:
    """A text in small letters without accents and what cannot be seen, with its punctuation."""
    return _small(_visible(text))


def digits(text: str) -> list[str]:
    """Its numbers, without what stands between their digits."""
    return [re.sub(r"\D", "", one) for one in _NUMBER.findall(small(text))]


def common_in_order(short: tuple[str, ...], long: tuple[str, ...]) -> int:
    """Length of the longest common subsequence (bit-parallel: Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(short):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(short)) - 1
    left = full
    for word in long:
        hit = left & places.get(word, 0)
        left = ((left + hit) | (left - hit)) & full
    return len(short) - left.bit_count()


def _letter(word: str) -> bool:
    return len(word) == 1 and not re.match(f"[{_HAN}]", word)


def _visible(text: str) -> str:
    """Compatibility forms resolved; without accents and characters that are not seen."""
    whole = unicodedata.normalize("NFKD", text)
    return "".join(c for c in whole if unicodedata.category(c)[0] != "M" and not _hidden(c))


def _hidden(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or character in _BLANK


def _small(text: str) -> str:
    plain = text.translate(_LOOKS).casefold()
    return "".join(str(unicodedata.digit(c)) if c.isdecimal() else c for c in plain)
