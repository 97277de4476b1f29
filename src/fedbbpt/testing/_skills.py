"""The skills of the simulated model: what each does to an input, and inputs to try it on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fedbbpt.errors import ConfigError, closest
from fedbbpt.random import stream
from fedbbpt.testing import _simulated_words as words
from fedbbpt.testing._simulated_phrases import PHRASES

Example = tuple[str, list[str]]


@dataclass(frozen=True)
class Skill:
    """Something that the simulated model can do.

    Attributes:
        name: in lower case, with underscores.
        answers: input -> its right answers, the one that is given first; none where the skill can
            do nothing with the input.
        inputs: a generator of random numbers -> inputs, in random order.
        anchors: paraphrases that an instruction is compared with.
        wordings: paraphrases that the writer uses; none of them is an anchor, so that what is
            proposed has to be understood.
    """

    name: str
    answers: Callable[[str], tuple[str, ...]]
    inputs: Callable[[np.random.Generator], Iterator[str]]
    anchors: tuple[str, ...]
    wordings: tuple[str, ...]


def examples(skill: str | Skill, number: int, seed: int = 0) -> list[Example]:
    """Examples of a skill, for demonstrations, benchmarks and tests.

    Args:
        skill: one of :data:`SKILLS` or its name.
        number: how many, 0 or more; their inputs differ.
        seed: other seeds, other examples; the first examples of more are those of fewer.

    Raises:
        ConfigError: there is no such skill, or it has fewer examples.
    """
    if isinstance(skill, str):
        if skill not in SKILLS:
            raise ConfigError(f"there is no skill '{skill}'; {closest(skill, SKILLS)}")
        skill = SKILLS[skill]
    rng = stream(seed, f"examples of {skill.name}")
    found = [(text, list(skill.answers(text))) for text in islice(skill.inputs(rng), number)]
    if len(found) < number:
        raise ConfigError(f"skill '{skill.name}' has {len(found)} examples; {number} are too many")
    return found


def table_skill(
    name: str,
    pairs: Mapping[str, Sequence[str]],
    anchors: Sequence[str],
    wordings: Sequence[str] = (),
) -> Skill:
    """A skill that has learned its answers by heart, for tasks that no function solves.

    Runs against it show that the machinery works end to end on a task's real inputs, references
    and instructions; they say nothing of how well any model does the task.

    Args:
        name: of the skill.
        pairs: input -> its right answers, at least one each.
        anchors: see :class:`Skill`.
        wordings: see :class:`Skill`; without them the writer says what the anchors say.
    """
    table = {text.strip(): tuple(answers) for text, answers in pairs.items()}
    if not anchors or not table or not all(table.values()):
        raise ConfigError(f"skill '{name}' needs an anchor, inputs, and an answer to each of them")
    said = tuple(wordings) or tuple(anchors)
    return Skill(name, lambda text: table.get(text, ()), _shuffled(table), tuple(anchors), said)


# --- inputs --------------------------------------------------------------------------------------


def _shuffled(texts: Mapping[str, object] | Sequence[str]) -> Callable[..., Iterator[str]]:
    listed = list(texts)
    return lambda rng: (listed[i] for i in rng.permutation(len(listed)))


def _number_pairs(rng: np.random.Generator) -> Iterator[str]:
    return (f"{i // 100} {i % 100}" for i in rng.permutation(10_000))


def _sentences(rng: np.random.Generator) -> Iterator[str]:
    lists = (words.NAMES, words.VERBS, words.ADJECTIVES, words.THINGS, words.TIMES)
    sizes = tuple(len(listed) for listed in lists)
    for index in rng.permutation(np.prod(sizes)):
        at = np.unravel_index(index, sizes)
        name, verb, kind, thing, when = (one[i] for one, i in zip(lists, at, strict=True))
        yield f"{name} {verb} the {kind} {thing} {when}"


def _lists_of_words(rng: np.random.Generator) -> Iterator[str]:
    seen = set()
    while True:
        size = int(rng.integers(3, 6))
        text = " ".join(rng.choice(words.NOUNS, size, replace=False))
        if text not in seen:
            seen.add(text)
            yield text


def _sentences_with_a_letter(rng: np.random.Generator) -> Iterator[str]:
    """The letter begins exactly one word."""
    for sentence in _sentences(rng):
        first = [word[0].lower() for word in sentence.split()]
        once = [letter for letter in first if first.count(letter) == 1]
        if once:
            yield f"{sentence} [{once[int(rng.integers(len(once)))]}]"


# --- what is done --------------------------------------------------------------------------------


def _letters(text: str) -> list[str]:
    return [c for c in text if c.isalpha()]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text)


def _from_letters(
    act: Callable[[list[str]], str], least: int = 1
) -> Callable[..., tuple[str, ...]]:
    def answers(text: str) -> tuple[str, ...]:
        letters = _letters(text)
        return (act(letters),) if len(letters) >= least else ()

    return answers


def _from_words(act: Callable[[list[str]], str]) -> Callable[..., tuple[str, ...]]:
    def answers(text: str) -> tuple[str, ...]:
        found = _words(text)
        return (act(found),) if len(found) > 1 else ()

    return answers


def _from_numbers(act: Callable[[int, int], int]) -> Callable[..., tuple[str, ...]]:
    def answers(text: str) -> tuple[str, ...]:
        pair = re.fullmatch(r"(-?\d{1,9})[\s,;]+(?:and\s+)?(-?\d{1,9})", text)
        return (str(act(int(pair[1]), int(pair[2]))),) if pair else ()

    return answers


def _from_table(table: Mapping[str, str]) -> Callable[..., tuple[str, ...]]:
    return lambda text: (table[text.lower()],) if text.lower() in table else ()


def _plural(text: str) -> tuple[str, ...]:
    if not re.fullmatch(r"[A-Za-z]{2,}", text):
        return ()
    low = text.lower()
    if low in words.PLURALS:
        return (words.PLURALS[low],)
    if low in words.TAKES_VES:
        return (re.sub("fe?$", "ves", text),)
    if re.search("[^aeiou]y$", low):
        return (text[:-1] + "ies",)
    sibilant = re.search("(s|x|z|ch|sh)$", low)
    return (text + ("es" if sibilant or low in words.TAKES_OES else "s"),)


def _rhymes(text: str) -> tuple[str, ...]:
    for group in words.RHYMES:
        if text.lower() in group:
            at = group.index(text.lower())
            return (*group[at + 1 :], *group[:at])
    return ()


def _starting(text: str) -> tuple[str, ...]:
    asked = re.fullmatch(r"(.+)\[(\w)\]\.?", text, re.DOTALL)
    found = _words(asked[1]) if asked else []
    return tuple(word for word in found if asked and word[0].lower() == asked[2].lower())


SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def _in_words(number: int) -> str:
    if number < 20:
        return SMALL[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return TENS[tens - 2] + (f"-{SMALL[rest]}" if rest else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    whole, rest = divmod(number, size)
    return f"{_in_words(whole)} {name}" + (f" {_in_words(rest)}" if rest else "")


def _number_words(text: str) -> tuple[str, ...]:
    return (_in_words(int(text)),) if re.fullmatch("[0-9]{1,6}", text) else ()


_NOUNS = _shuffled(words.NOUNS)
_DOING = {
    "letters_list": (_from_letters(" ".join), _NOUNS),
    "first_letter": (_from_letters(lambda letters: letters[0]), _NOUNS),
    "second_letter": (_from_letters(lambda letters: letters[1], 2), _NOUNS),
    "last_letter": (_from_letters(lambda letters: letters[-1]), _NOUNS),
    "count_letters": (_from_letters(lambda letters: str(len(letters))), _NOUNS),
    "uppercase": (lambda text: (text.upper(),) if _letters(text) else (), _NOUNS),
    "reverse": (lambda text: (text[::-1],) if text else (), _NOUNS),
    "plural": (_plural, _NOUNS),
    "antonym": (lambda text: words.OPPOSITES.get(text.lower(), ()), _shuffled(words.OPPOSITES)),
    "rhyme": (_rhymes, _shuffled([word for group in words.RHYMES for word in group])),
    "french": (_from_table(words.FRENCH), _shuffled(words.FRENCH)),
    "german": (_from_table(words.GERMAN), _shuffled(words.GERMAN)),
    "sum": (_from_numbers(lambda a, b: a + b), _number_pairs),
    "difference": (_from_numbers(lambda a, b: a - b), _number_pairs),
    "product": (_from_numbers(lambda a, b: a * b), _number_pairs),
    "larger_number": (_from_numbers(max), _number_pairs),
    "smaller_number": (_from_numbers(min), _number_pairs),
    "number_words": (_number_words, _shuffled([str(number) for number in range(1000)])),
    "first_word": (_from_words(lambda found: found[0]), _sentences),
    "last_word": (_from_words(lambda found: found[-1]), _sentences),
    "count_words": (_from_words(lambda found: str(len(found))), _lists_of_words),
    "sort_words": (_from_words(lambda found: " ".join(sorted(found))), _lists_of_words),
    "starting_with": (_starting, _sentences_with_a_letter),
}

SKILLS: dict[str, Skill] = {
    name: Skill(name, answers, inputs, *PHRASES[name]) for name, (answers, inputs) in _DOING.items()
}
"""All skills, by name."""
