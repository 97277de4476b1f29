"""The candidates of a discrete prompt: words that are one token, or any text where text is sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.senses import Vocabulary

Named = Sequence[str] | str
T = TypeVar("T")


def token_candidates(
    vocabulary: Vocabulary, named: Named, offered: Sequence[str] | None, labels: Sequence[str]
) -> Iterator[int]:
    """Ids of single tokens, best first and without repeats.

    Args:
        vocabulary: the box's tokens.
        named: words that a user chose: a list, or the file that holds them.
        offered: words and n-grams from a corpus. An n-gram stands for its words, since a slot
            holds one token; those that are several tokens are passed over.
        labels: without either, the candidates are the words nearest to these.

    Raises:
        ConfigError: a chosen word is no token of its own, or the file cannot be read.
    """
    if named:
        found: Iterable[int] = _listed(vocabulary, _words_of(named))
    elif offered is not None:
        words = (word for text in offered for word in text.split())
        found = (one for word in words if (one := _id(vocabulary, word)) is not None)
    else:
        found = _nearest(vocabulary, labels)
    return _once(found)


def text_candidates(
    vocabulary: Vocabulary | None,
    named: Named,
    offered: Sequence[str] | None,
    labels: Sequence[str],
) -> Iterator[str]:
    """Words and n-grams, best first and without repeats; arguments as :func:`token_candidates`.

    Raises:
        ConfigError: a chosen text has a character with a meaning in templates, or there is
            nothing to choose from.
    """
    if named:
        texts = _words_of(named)
        wrong = [repr(text) for text in texts if not _is_plain(text)]
        if wrong:
            raise ConfigError(
                f"prompt.words has {_some(wrong)}; a candidate for a box that takes text must not "
                "be blank and holds no braces and no NUL"
            )
        return _once(" ".join(text.split()) for text in texts)
    if offered is not None:
        return _once(" ".join(text.split()) for text in offered if _is_plain(text))
    if vocabulary is None:
        raise ConfigError(
            "the box has no vocabulary to take candidates from; give prompt.words, or set "
            "prompt.vocabulary = 'public' or 'clients'"
        )
    near = (vocabulary.decode([i]).strip() for i in _nearest(vocabulary, labels))
    return _once(text for text in near if _is_plain(text))


def _is_plain(text: str) -> bool:
    return bool(text.strip()) and not set(text) & set("{}\0")


def _once(found: Iterable[T]) -> Iterator[T]:
    """Without repeats, one by one: who needs fifty does not make fifty thousand."""
    seen: set[T] = set()
    for one in found:
        if one not in seen:
            seen.add(one)
            yield one


def _some(sayings: Sequence[str]) -> str:
    more = f" and {len(sayings) - 5} more" if len(sayings) > 5 else ""
    return ", ".join(sayings[:5]) + more


def _words_of(named: Named) -> tuple[str, ...]:
    """The list itself, or the lines of a file that are not blank, without blanks around them."""
    if not isinstance(named, str):
        return tuple(named)
    try:
        lines = Path(named).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt.words '{named}' cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def _listed(vocabulary: Vocabulary, words: Sequence[str]) -> list[int]:
    """Ids of words that someone chose, in their order."""
    found, wrong = [], []
    for word in map(str.strip, words):
        one = _id(vocabulary, word)
        if one is None:
            coded = vocabulary.tokenise(word)
            pieces = " ".join(repr(vocabulary.decode([i])) for i in coded) or "nothing"
            wrong.append(f"'{word}', which the box reads as {pieces}")
        else:
            found.append(one)
    if wrong:
        raise ConfigError(
            f"prompt.words has {_some(wrong)}; "
            "a candidate must be one token that decodes to the word itself"
        )
    return found


def _id(vocabulary: Vocabulary, word: str) -> int | None:
    """The one token that a word is, if there is one.

    Byte-level tokens know whether a space stands before them, and between two candidates one
    must; other vocabularies do not care, or need the word bare.
    """
    for text in (f" {word}", word):
        coded = vocabulary.tokenise(text)
        if len(coded) == 1 and vocabulary.decode(coded).strip() == word:
            return coded[0] if _survives(vocabulary, coded[0]) else None
    return None


def _survives(vocabulary: Vocabulary, one: int) -> bool:
    """Whether the text of a token is read as that token, alone and behind another."""
    return all(vocabulary.tokenise(vocabulary.decode(ids)) == ids for ids in ([one], [one, one]))


def _nearest(vocabulary: Vocabulary, labels: Sequence[str]) -> Iterator[int]:
    """Ids of words by their cosine to the labels, which take turns; their own words left out."""
    ids = vocabulary.ordinary()
    own = {word.casefold() for label in labels for word in _spelt(vocabulary, label)}
    coded = filter(None, map(vocabulary.tokenise, dict.fromkeys(labels)))
    labelled = np.array([vocabulary.embed(label).mean(axis=0) for label in coded])
    order = np.argsort(-_cosines(vocabulary, ids, labelled), axis=0, kind="stable")
    rankings = [iter(ids[ranking].tolist()) for ranking in order.T]
    seen: set[int] = set()
    while rankings:
        for ranking in list(rankings):
            fit = (i for i in ranking if i not in seen and _is_word(vocabulary, i, own))
            one = next(fit, None)
            if one is None:
                rankings.remove(ranking)
            else:
                seen.add(one)
                yield one


def _cosines(vocabulary: Vocabulary, ids: Array, targets: Array) -> Array:
    """(len(ids), C) cosines of tokens and C vectors, some thousand tokens at a time."""
    parts = [
        _unit(vocabulary.embed(ids[start : start + 4096].tolist())) @ _unit(targets).T
        for start in range(0, len(ids), 4096)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(targets)))


def _is_word(vocabulary: Vocabulary, one: int, own: set[str]) -> bool:
    """Whether a token is a whole word, set off by spaces, that is none of the labels' own."""
    text = vocabulary.decode([one]).strip()
    apart = vocabulary.decode([one, one]).split() == [text, text]
    return apart and text.casefold() not in own and _survives(vocabulary, one)


def _spelt(vocabulary: Vocabulary, label: str) -> list[str]:
    """A label's words as written and as the box's tokens spell them."""
    return [*label.split(), *(vocabulary.decode([i]).strip() for i in vocabulary.tokenise(label))]


def _unit(rows: Array) -> Array:
    """Rows scaled to length 1 (a row of zeros stays one)."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1.0))
