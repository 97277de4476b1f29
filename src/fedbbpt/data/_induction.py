"""Rows of instruction-induction JSON (Honovich et al. 2022), whose fields differ by task.

A file is ``{"examples": {"1": {...}, "2": {...}}}``, as ``raw/induce`` and ``raw/execute`` have it;
the examples may also be a list, and such a list may be the whole file. What an example holds
decides how it is read, never the file's name:

=========================================  =====================================================
tasks                                      fields and how they are read
=========================================  =====================================================
active_to_passive, antonyms, diff,         ``input``, ``output``. Others (``x``, ``template``,
first_word_letter, informal_to_formal,     ``input_count``, ``word_letters_list``, ``orig_id``,
larger_animal, letters_list, negation,     ``words``, ``category_items``, ...) say how the example
num_to_verbal, orthography_starts_with,    was made and are passed over.
second_word_letter, sentence_similarity,
sentiment, singular_to_plural, sum,
synonyms, taxonomy_animal
translation_en-de, -en-es, -en-fr          besides, ``possible_translations``: right as well (an
                                           empty one, which there is, is passed over)
word_in_context                            besides, ``possible_outputs``: right as well
rhymes                                     besides, ``other_rhymes``: right as well, but for the
                                           input, which is in the list: to repeat it would score
cause_and_effect                           ``cause``, ``effect``: the input is "Sentence 1: ...
                                           Sentence 2: ..." and the cause is the answer; it comes
                                           first in every other example. (The published evaluation
                                           asks in both orders, which doubles the examples, and
                                           others toss a coin.)
common_concept                             ``items``: the input, all of them with commas between;
                                           ``concept``, ``all_common_concepts``: right answers
=========================================  =====================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbbpt.data._readers import Columns, Row, chosen, decode
from fedbbpt.errors import DataError

OTHERS = ("possible_translations", "possible_outputs", "other_rhymes", "all_common_concepts")


def rows(path: Path, data: bytes, columns: Columns) -> Iterator[Row]:
    """Rows with a text and a column of answers; DataError if the file is not of that form."""
    content = parsed(path, data)
    examples = content.get("examples") if isinstance(content, dict) else content
    if not isinstance(examples, dict | list) or not examples:
        raise DataError(
            f'{path}: no examples in it; write {{"examples": {{"1": {{"input": "...", '
            '"output": "..."}}} or a list of such objects'
        )
    pairs = examples.items() if isinstance(examples, dict) else enumerate(examples, start=1)
    for place, (name, cells) in enumerate(pairs, start=1):
        where = f"{path}, example {name}"
        if not isinstance(cells, dict):
            kind = type(cells).__name__
            raise DataError(f"{where}: JSON of type {kind}, no object; write one for each example")
        yield _row(where, place, cells, columns)


def parsed(path: Path, data: bytes) -> Any:
    """A JSON file's one value; DataError if it is none."""
    try:
        return json.loads(decode(path, data))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}, column {error.colno}); "
            "objects of one line each are JSON Lines, with the suffix .jsonl"
        ) from None
    except (ValueError, RecursionError):  # a number of 5000 digits, or 10000 brackets
        raise DataError(f"{path} holds a JSON value too large to read; shorten it") from None


def _row(where: str, place: int, cells: Mapping[str, Any], columns: Columns) -> Row:
    made = dict(cells)
    if {"cause", "effect"} <= cells.keys():
        both = [cells["cause"], cells["effect"]][:: 1 if place % 2 else -1]
        whole = all(isinstance(one, str) and one.strip() for one in both)
        made["input"] = f"Sentence 1: {both[0]} Sentence 2: {both[1]}" if whole else ""
        made["output"] = cells["cause"]
    elif {"items", "concept"} <= cells.keys():
        made["input"] = ", ".join(map(str, _listed(cells["items"])))
        made["output"] = cells["concept"]
    text, label = chosen(where, list(made), columns)
    # Some lists of the published files hold an empty text.
    others = [one for name in OTHERS for one in _listed(cells.get(name)) if one != ""]
    echo = made.get("input") if "other_rhymes" in cells else None
    answers = [one for one in [*_listed(made[label]), *others] if one != echo]
    return Row(where, {**made, label: answers}, text, label)


def _listed(value: Any) -> Sequence[Any]:
    """A list as it is; anything else as the only one, None as none."""
    return value if isinstance(value, list) else [] if value is None else [value]
