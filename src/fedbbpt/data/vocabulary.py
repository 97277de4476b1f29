"""Candidate words from texts: n-grams whose words belong together, and which of them may be shared.

Pointwise mutual information says which neighbours belong together (as BDPL's ``pmi_ngram.py``,
Diao et al., TMLR 2023; natural logarithm):

    PMI(a, b) = log(T c(ab) / (c(a) c(b)))

with c(.) how often a word or a pair of neighbours is seen and T the number of words. An n-gram of
up to five words is a candidate where each of its pairs of neighbours has a PMI of at least 1; a
single word always is one. The most frequent come first.

When the texts are private, clients first tell keyed hashes of their n-grams, and then only the
n-grams whose hash enough clients told (:func:`hashed`, :func:`quorum`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from fedbbpt.types import digest

LONGEST = 5
"""Most words in an n-gram."""
LEAST = 2
"""An n-gram seen less often is chance: the rarest pairs have the greatest PMI of all."""
THRESHOLD = 1.0
"""Least PMI of two neighbours."""
MOST = 20_000
"""Most n-grams that a client tells hashes of, the most frequent ones: 320 kB."""
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")

Pair = tuple[str, str]


def runs(text: str) -> Iterator[list[str]]:
    """Words of a text without regard to case, in runs that no mark or number breaks.

    Numbers are no words: they make poor prompts and often name a person.
    """
    run: list[str] = []
    end = 0
    for match in _WORD.finditer(text):
        if run and not text[end : match.start()].isspace():
            yield run
            run = []
        run.append(match.group().lower())
        end = match.end()
    if run:
        yield run


def ngrams(
    texts: Iterable[str], longest: int = LONGEST, joined: Collection[Pair] | None = None
) -> Counter[str]:
    """How often each n-gram of one up to ``longest`` words is seen.

    Args:
        texts: the corpus.
        longest: most words.
        joined: count only n-grams all of whose neighbours are such pairs; ``None`` counts all.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        for run in runs(text):
            for start, word in enumerate(run):
                gram = word
                counts[gram] += 1
                for pair in zip(run[start:], run[start + 1 : start + longest], strict=False):
                    if joined is not None and pair not in joined:
                        break
                    gram = f"{gram} {pair[1]}"
                    counts[gram] += 1
    return counts


def words_in(counts: Mapping[str, int]) -> int:
    """T, the number of words behind some counts of n-grams."""
    return sum(count for gram, count in counts.items() if " " not in gram)


def pmi(pair: int, first: int, second: int, total: int) -> float:
    """PMI of two neighbours seen ``pair`` times together, ``first`` and ``second`` times in all."""
    return math.log(total * pair / (first * second))


def pairs(counts: Mapping[str, int], total: int) -> set[Pair]:
    """Pairs of neighbours that belong together.

    Args:
        counts: of words and pairs at least.
        total: T.
    """
    return {
        (a, b)
        for gram, count in counts.items()
        if gram.count(" ") == 1 and count >= LEAST
        for a, b in [gram.split()]
        if pmi(count, counts[a], counts[b], total) >= THRESHOLD
    }


def ranked(counts: Mapping[str, int], total: int) -> list[str]:
    """The candidates among counted n-grams, the most frequent first, then in order of spelling.

    Single letters are left out, as are n-grams seen less than twice.

    Args:
        counts: of n-grams; with an n-gram its words and pairs must be there.
        total: T.
    """
    joined = pairs(counts, total)
    kept = [
        gram
        for gram, count in counts.items()
        if count >= LEAST and len(gram) > 1 and all(pair in joined for pair in _neighbours(gram))
    ]
    return sorted(kept, key=lambda gram: (-counts[gram], gram))


def candidates(texts: Sequence[str]) -> list[str]:
    """The candidates in public texts, the most frequent first."""
    short = ngrams(texts, longest=2)
    total = words_in(short)
    return ranked(ngrams(texts, joined=pairs(short, total)), total)


def _neighbours(gram: str) -> Iterable[Pair]:
    return pairwise(gram.split())


# --- without showing what only one holds ---------------------------------------------------------


def told(counts: Mapping[str, int]) -> list[str]:
    """The n-grams that a client tells hashes of: the most frequent, and of equals the shorter.

    So whoever tells an n-gram tells its words and pairs too.
    """
    order = sorted(counts, key=lambda gram: (-counts[gram], gram.count(" "), gram))
    return order[:MOST]


def hashed(grams: Iterable[str], seed: int, salt: str) -> dict[bytes, str]:
    """The n-grams by keyed 16-byte hash.

    Args:
        grams: n-grams.
        seed: the run's; other runs, other hashes, so that they cannot be joined.
        salt: whatever else the clients agreed on.
    """
    return {digest("vocabulary", str(seed), salt, gram): gram for gram in grams}


def quorum(told: Iterable[Iterable[bytes]], least: int) -> list[bytes]:
    """Hashes that at least ``least`` clients told, sorted; who tells one twice counts once.

    Args:
        told: each client's hashes.
        least: how many clients it takes.
    """
    clients = Counter(key for keys in told for key in set(keys))
    return sorted(key for key, count in clients.items() if count >= least)
