"""Does a text tell of a client's private examples? Asked before an instruction may leave it.

Text and examples are compared in a form that forgets case, accents, punctuation, characters that
are not seen, compatibility forms (NFKC) and which Cyrillic or Greek letters look like Latin ones;
most rules forget where words end as well. A text is blocked that holds, of one example,

* ``words``: four words in a row, one of them rare;
* ``run``: 20 characters in a row, blanks not counted, eight of them of rare words;
* ``most``: 60 % of its words in their order, two of them rare; of an example of four words or more;
* ``near``: 60 % of its character 5-grams; of an example of 20 characters or more, two words of it
  rare (no Jaccard index with a stretch of the text is larger than that share);
* ``pair``: two rare words in a row of three letters or more each, as a full name is;
* ``name``: a rare word of four letters or more that has a capital inside a sentence of the example,
  or digits among its letters;
* ``short``: all of an example of up to three words, one of them rare;
* ``answered``: an input and right behind it its answer, rare or not, as a demonstration shows them;
* ``number``: five digits in a row of a number, however they are grouped;
* ``e-mail``: an address, also as "x (at) y (dot) z", or its part before the @ from six characters.

A word is *rare* unless it is in a list of words of grammar and of instructions
(:mod:`fedbbpt.data._common_words`), is a number of fewer than four digits, or stands in at least
half of the client's inputs, and in three ("Sentence 1: ..."). An answer that at least three
examples and one in twenty share is a label, which an instruction has to name, and is not compared.
Without these exceptions the example "word" would block every instruction about words.

What this is not: a text can tell of an example in other words, and a single rare word in small
letters ("diabetes") passes unless it is a whole example. The list of words is English; in other
languages more is blocked. Where over 30 % of the words inside sentences, and over five, have a
capital (German, headlines) it says nothing, and ``name`` looks only for digits among letters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fedbbpt.data._common_words import COMMON
from fedbbpt.data._folding import Words, common_in_order, digits, small, split

ROW, RUN, GRAM, SHARE, DIGITS, SHORT, CAPITALS = 4, 20, 5, 0.6, 5, 3, 0.3

FREE = 7
"""A piece of fewer characters counts only as whole words: "ant" is in "want"; of an example of one
word one of fewer than ten does, for "mission" is in "permission"."""

REASONS = {
    "words": f"it repeats {ROW} words in a row of example {{}}",
    "run": f"it repeats {RUN} characters in a row of example {{}}",
    "most": "it holds most words of example {} in their order",
    "near": "a part of it is nearly example {}",
    "pair": "it repeats two rare words in a row of example {}",
    "name": "it holds what looks like a name or a code in example {}",
    "short": "it quotes all of example {}",
    "answered": "it shows example {} with its answer",
    "number": f"it repeats {DIGITS} digits in a row of example {{}}",
    "e-mail": "it holds an e-mail address of example {}",
}

_EMAIL = re.compile(r"([\w.+-]+)@([\w-]+(?:\.[\w-]+)+)")


class Leak(NamedTuple):
    """What a text tells.

    Attributes:
        rule: a key of ``REASONS``.
        example: position of the example among the client's.
    """

    rule: str
    example: int

    @property
    def reason(self) -> str:
        """Why the text is blocked, without a word of it; examples are counted from 1."""
        return REASONS[self.rule].format(self.example + 1)


def leak(text: str, inputs: Sequence[str], references: Sequence[Sequence[str]] = ()) -> Leak | None:
    """What one text tells of examples, see :class:`Private`."""
    return Private(inputs, references).leak(text)


class _Own(NamedTuple):
    """One private text: its words, which of them are rare, and whose it is."""

    example: int
    read: Words
    rare: tuple[bool, ...]

    @property
    def squeezed(self) -> str:
        return "".join(self.read.words)


class Private:
    """A client's examples, ready to be compared with many texts.

    Args:
        inputs: N private inputs.
        references: N tuples of right answers, compared as well; or nothing.
    """

    def __init__(self, inputs: Sequence[str], references: Sequence[Sequence[str]] = ()) -> None:
        self._free: dict[str, Leak] = {}  # found anywhere, whatever the blanks
        self._bound: dict[str, Leak] = {}  # found as whole words
        self._digits: dict[str, Leak] = {}
        self._whole: list[_Own] = []  # what "most" and "near" compare
        self._holders: dict[str, list[int]] = {}  # rare words, to positions in it
        self._grams: dict[str, list[int]] = {}
        asked = [split(text).joined() for text in inputs]
        held = Counter(word for read in asked for word in set(read.words))
        self._common = COMMON | {w for w, n in held.items() if n >= max(3, len(inputs) / 2)}
        answers = list(_answers(references))
        times = Counter(text for _, text in answers)
        texts = list(enumerate(inputs))
        texts += [one for one in answers if times[one[1]] < max(3, len(inputs) / 20)]
        owned = [self._own(row, text) for row, text in texts]
        inside = [big for own in owned for big in own.read.capital if big is not None]
        named = sum(inside) <= max(5, CAPITALS * len(inside))
        for (_, text), own in zip(texts, owned, strict=True):
            self._learn(own, named)
            self._learn_numbers(own, text)
        for row, text in answers:
            self._learn_answer(row, asked[row].words, split(text).joined().words)
        self._lengths = sorted({len(piece) for piece in self._free})

    def leak(self, text: str) -> Leak | None:
        """What a text tells, ``None`` if nothing: of all that it tells the first that is found."""
        read = split(text)
        for words in dict.fromkeys((read.words, read.joined().words)):
            for rule in (self._in_pieces, self._in_words, self._in_most, self._in_near):
                for found in rule(words):
                    return found
        return next(self._in_digits(text), None)

    # --- learning what is private ----------------------------------------------------------------

    def _own(self, example: int, text: str) -> _Own:
        read = split(text).joined()
        return _Own(example, read, tuple(self._rare(word) for word in read.words))

    def _rare(self, word: str) -> bool:
        return word not in self._common and not (word.isdecimal() and len(word) < ROW)

    def _add(self, rule: str, example: int, piece: str, free: int = FREE) -> None:
        pieces = self._free if len(piece) >= free else self._bound
        pieces.setdefault(piece, Leak(rule, example))

    def _learn(self, own: _Own, named: bool) -> None:
        (words, capital), rare, row = own.read, own.rare, own.example
        if len(words) <= SHORT and any(rare):
            self._add("short", row, own.squeezed, FREE if len(words) > 1 else 10)
        for i, word in enumerate(words):
            mixed = not word.isdecimal() and any(c.isdecimal() for c in word)
            if rare[i] and len(word) >= 4 and (mixed or (named and capital[i])):
                self._add("name", row, word)
            both = words[i : i + 2]
            if all(rare[i : i + 2]) and len(both) == 2 and all(_lettered(one) for one in both):
                self._add("pair", row, "".join(both))
            if len(words) - i >= ROW and any(rare[i : i + ROW]):
                self._add("words", row, "".join(words[i : i + ROW]))
        marks = [own for word, own in zip(words, rare, strict=True) for _ in word]
        for i in range(len(marks) - RUN + 1):
            if sum(marks[i : i + RUN]) >= 8:
                self._add("run", row, own.squeezed[i : i + RUN])
        distinct = {word for word, own in zip(words, rare, strict=True) if own}
        if len(distinct) >= 2:
            for word in distinct:
                self._holders.setdefault(word, []).append(len(self._whole))
            for gram in _grams(own.squeezed):
                self._grams.setdefault(gram, []).append(len(self._whole))
            self._whole.append(own)

    def _learn_numbers(self, own: _Own, text: str) -> None:
        row = own.example
        for number in digits(text):
            for i in range(len(number) - DIGITS + 1):
                self._digits.setdefault(number[i : i + DIGITS], Leak("number", row))
        for name, host in _EMAIL.findall(small(text)):
            parts = ["".join(split(part).words) for part in (name, *host.split("."))]
            for at, dot in (("", ""), ("at", ""), ("at", "dot")):
                self._add("e-mail", row, parts[0] + at + dot.join(parts[1:]))
            if len(parts[0]) >= 6 and self._rare(parts[0]):
                self._add("e-mail", row, parts[0])

    def _learn_answer(self, row: int, words: tuple[str, ...], answer: tuple[str, ...]) -> None:
        for between in ("", "output", "answer"):
            piece = "".join([*words, between, *answer])
            if words and answer and len(piece) >= GRAM:
                self._bound.setdefault(piece, Leak("answered", row))

    # --- comparing a text ------------------------------------------------------------------------

    def _in_pieces(self, words: tuple[str, ...]) -> Iterator[Leak]:
        squeezed = "".join(words)
        for length in self._lengths:
            for i in range(len(squeezed) - length + 1):
                if squeezed[i : i + length] in self._free:
                    yield self._free[squeezed[i : i + length]]

    def _in_words(self, words: tuple[str, ...]) -> Iterator[Leak]:
        longest = max(map(len, self._bound), default=0)
        for i in range(len(words)):
            piece = ""
            for word in words[i:]:
                piece += word
                if len(piece) > longest:
                    break
                if piece in self._bound:
                    yield self._bound[piece]

    def _in_most(self, words: tuple[str, ...]) -> Iterator[Leak]:
        rare = Counter(i for word in set(words) for i in self._holders.get(word, ()))
        for i, count in sorted(rare.items()):
            own = self._whole[i]
            wanted = own.read.words
            if count >= 2 and len(wanted) >= ROW:
                if common_in_order(wanted, words) >= SHARE * len(wanted):
                    yield Leak("most", own.example)

    def _in_near(self, words: tuple[str, ...]) -> Iterator[Leak]:
        held = _grams("".join(words))
        shared = Counter(i for gram in held for i in self._grams.get(gram, ()))
        for i, count in sorted(shared.items()):
            own = self._whole[i]
            if len(own.squeezed) >= RUN and count >= SHARE * len(_grams(own.squeezed)):
                yield Leak("near", own.example)

    def _in_digits(self, text: str) -> Iterator[Leak]:
        for number in digits(text):
            for i in range(len(number) - DIGITS + 1):
                if number[i : i + DIGITS] in self._digits:
                    yield self._digits[number[i : i + DIGITS]]


def _answers(references: Sequence[Sequence[str]]) -> Iterator[tuple[int, str]]:
    for row, own in enumerate(references):
        for text in dict.fromkeys(own):
            yield row, text


def _lettered(word: str) -> bool:
    return len(word) >= 3 and not word.isdecimal()


def _grams(squeezed: str) -> frozenset[str]:
    return frozenset(squeezed[i : i + GRAM] for i in range(len(squeezed) - GRAM + 1))
