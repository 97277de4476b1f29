import string
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedbbpt.data._common_words import COMMON
from fedbbpt.data.answers import instructions, load
from fedbbpt.data.leaks import REASONS, Private, leak

# --- planted canaries ----------------------------------------------------------------------------

HOSTS = (
    "Write whether the sentence is positive or negative.",
    "You will be given a text. Answer with one word",
    "Summarise the input in a formal tone:",
    "",
)
PLAIN = (
    "The film was far too long and nobody laughed.",
    "A warm and clever story about two sisters.",
    "I would not watch it twice, but the music is lovely.",
    "boring",
)
NATURAL = (
    "garden window copper violet engine castle planet silver bottle thunder carpet fiddle orange "
    "shelter dragon pepper marble pencil rocket tunnel basket candle saddle whistle"
).split()
FUNCTION = "the and with from over under before because through about".split()

NAME = (
    st.text(string.ascii_lowercase, min_size=4, max_size=9)
    .filter(lambda name: name not in COMMON)  # "Will" may be written
    .map(str.capitalize)
)
SENTENCE = st.lists(
    st.tuples(st.sampled_from(NATURAL), st.sampled_from(FUNCTION)), min_size=3, max_size=6
).map(lambda pairs: " ".join(word for pair in pairs for word in pair))
NUMBER = st.text(string.digits, min_size=5, max_size=16)

CONFUSED = str.maketrans("aeopcxAEOPCX", "аеорсхАЕОРСХ")


def spread(between):
    return lambda text: between.join(text)


CHANGES = {
    "none": str,
    "upper": str.upper,
    "lower": str.lower,
    "swapped": str.swapcase,
    "no blanks": lambda text: "".join(text.split()),
    "blanks between all": spread(" "),
    "points between all": spread("."),
    "line ends": lambda text: "\n".join(text.split()),
    "hyphens": lambda text: "-".join(text.split()),
    "underscores": lambda text: "__".join(text.split()),
    "quotes": lambda text: f'"{text}"',
    "zero width": spread("\u200b"),
    "soft hyphens": spread("\u00ad"),
    "joiners": spread("\u2060\ufeff"),
    "accents": spread("\u0301"),
    "full width": lambda text: "".join(
        chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text
    ),
    "bold": lambda text: "".join(
        chr(ord(c) - 97 + 0x1D41A) if "a" <= c <= "z" else c for c in text
    ),
    "look-alikes": lambda text: text.translate(CONFUSED),
    "Arabic digits": lambda text: text.translate({48 + i: 0x660 + i for i in range(10)}),
}
HOW = st.tuples(
    st.sampled_from(sorted(CHANGES)), st.sampled_from(HOSTS), st.sampled_from(HOSTS), st.booleans()
)


def planted(canary, how):
    """An instruction with a canary in it."""
    change, before, behind, glued = how
    gap = "" if glued else " "
    return gap.join([before, CHANGES[change](canary), behind])


def caught(canary, private, how):
    """What an instruction with the canary in it is blocked for, one private text among others."""
    inputs = [*PLAIN[:2], private, *PLAIN[2:]]
    found = leak(planted(canary, how), inputs)
    assert found is not None and found.example == 2, (canary, private, how)
    by_answer = leak(planted(canary, how), PLAIN, [("yes",), ("no",), ("yes",), (private,)])
    assert by_answer is not None and by_answer.example == 3
    assert not any(word.lower() in found.reason.lower() for word in canary.split() if len(word) > 8)


@given(NAME, NAME, HOW)
@example("Zorblat", "Quinby", ("blanks between all", HOSTS[0], HOSTS[1], False))
@settings(max_examples=120)
def test_a_name_never_leaves(first, last, how):
    name = f"{first} {last}"
    caught(name, name, how)
    caught(name, f"Yesterday {name} was seen again.", how)
    caught(name, f"the case of {name.lower()} is open", how)


@given(NUMBER, st.sampled_from(["", " ", "-", ".", "/"]), HOW)
@settings(max_examples=80)
def test_a_number_never_leaves(number, between, how):
    grouped = between.join([number[:3], number[3:]])
    for private in (number, grouped, f"call {grouped} now"):
        caught(number, private, how)
        caught(grouped, private, how)
    caught(number[-5:], f"id{grouped}", how)


@given(SENTENCE, st.data(), HOW)
@settings(max_examples=120)
def test_a_sentence_never_leaves_whole_or_in_part(sentence, data, how):
    words = sentence.split()
    private = sentence.capitalize() + "."
    caught(private, private, how)
    start = data.draw(st.integers(0, len(words) - 4))
    stop = data.draw(st.integers(start + 4, len(words)))
    caught(" ".join(words[start:stop]), private, how)


@given(SENTENCE, st.data(), st.sampled_from(["none", "upper", "zero width", "hyphens", "bold"]))
@settings(max_examples=80)
def test_most_words_of_a_sentence_in_order_never_leave(sentence, data, change):
    words = sentence.split()
    least = -(-6 * len(words) // 10)
    rows = data.draw(st.sets(st.integers(0, len(words) - 1), min_size=least))
    some = " so ".join(words[i] for i in sorted(rows))
    if len({words[i] for i in rows} & set(NATURAL)) >= 2:
        caught(some, sentence, (change, HOSTS[0], HOSTS[1], False))


@given(NAME, st.sampled_from(["none", "upper", "zero width", "full width", "no blanks"]))
def test_an_address_never_leaves(name, change):
    address = f"{name.lower()}.bee@mail.example.org"
    private = f"Write to {address}, please."
    for written in (address, f"{name} bee (at) mail (dot) example (dot) org", f"{name}.bee"):
        caught(written, private, (change, HOSTS[0], HOSTS[1], False))


def test_words_with_letters_changed_are_still_near():
    private = "Everything she bought at the flower market withered overnight"
    assert leak("e.g. everythin she boght at a flower-market witherred overnight", [private])


# --- what each rule finds, and what it leaves ----------------------------------------------------


@pytest.mark.parametrize(
    ("text", "inputs", "references", "rule"),
    [
        # one word: blocked where it is rare
        ("What is an alligator?", ["alligator"], (), "short"),
        ("What is an al-li-gator?", ["alligator"], (), "short"),
        ("Write a word", ["word"], (), None),
        ("Which animals want more?", ["ant"], (), None),
        ("Ask for permission", ["mission"], (), None),
        ("Name the mission", ["mission"], (), "short"),
        ("Spell a b o u t", ["about"], (), None),
        ("Spell p l a c e b o", ["placebo"], (), "short"),
        ("List 12 numbers", ["12"], (), None),
        # names and codes inside sentences
        ("Ask Quinby", ["I met Quinby there."], (), "name"),
        ("Ask quinby", ["Quinby was there."], (), None),
        ("Ask AB12C", ["order ab12c came"], (), "name"),
        ("the garden", ["The Big Garden Of The Old House"], (), None),  # a headline
        # words in a row
        ("Rate how it was at the bakery", ["it was at the bakery on Main Street"], (), "words"),
        ("Say if it is the first of the two", ["This is the first of the two."], (), None),
        # with the answer
        ("22 10 -> 32", ["22 10", "4 5"], [("32",), ("9",)], "answered"),
        ("Input: 22 10 Output: 32", ["22 10", "4 5"], [("32",), ("9",)], "answered"),
        ("22 10 -> 33", ["22 10", "4 5"], [("32",), ("9",)], None),
        ("Add up to 32 or 10", ["22 10", "4 5"], [("32",), ("9",)], None),
        # answers: labels may be named, others not
        ("Say superb or dire", ["a", "b", "c", "d", "e", "f"], [("superb",)] * 3 + [("dire",)] * 3,
         None),
        ("Say superb or dire", ["a", "b", "c", "d"], [("superb",)] * 3 + [("dire",)], "short"),
        # what most inputs have in common is a frame
        ("Copy the Kommentar", [f"Kommentar {n}" for n in ("eins", "zwei", "drei")], (), None),
        ("Copy the Kommentar", ["Kommentar", "other"], (), "short"),
        ("", ["anything rare"], (), None),
        ("\u200b \u0301 !?", ["!?", "", " "], [("",), (".",), ("",)], None),
        ("输入是苹果派很好", ["苹果派很好吃"], (), "words"),
    ],
)  # fmt: skip
def test_rules(text, inputs, references, rule):
    found = leak(text, inputs, references)
    assert (found.rule if found else None) == rule


@given(st.lists(st.text(max_size=30), max_size=4), st.text(max_size=40))
def test_any_text_can_be_compared(inputs, text):
    private = Private(inputs, [(one, text) for one in inputs])
    assert private.leak(text) == private.leak(unicodedata.normalize("NFD", text))


def test_every_rule_gives_a_reason_with_the_example_and_nothing_else():
    found = leak("Ask Quinby", ["nothing", "I met Quinby there."])
    assert found.reason == "it holds what looks like a name or a code in example 2"
    assert all("{}" in reason for reason in REASONS.values())


# --- on real data --------------------------------------------------------------------------------


def test_instructions_written_by_people_pass_and_demonstrations_do_not(data_folder):
    """Of 125 instructions for 16 tasks, each with 100 examples of its own task."""
    folder = data_folder / "induction"
    blocked = total = 0
    for path in sorted((folder / "annotations").glob("*.json")):
        (source,) = (folder / "raw" / "induce").glob(f"{path.stem}.json*")
        table = load(source)
        rows = np.random.default_rng(0).permutation(len(table.inputs))[:100]
        inputs = [table.inputs[i] for i in rows]
        references = [table.references[i] for i in rows]
        private = Private(inputs, references)
        texts = instructions(path)
        total += len(texts)
        blocked += sum(private.leak(text) is not None for text in texts)
        for text, own in zip(inputs[:10], references, strict=False):
            shown = f"{texts[0]}\n\nInput: {text}\nOutput: {own[0]}"
            assert private.leak(shown) or len(text) + len(own[0]) < 5, shown
    assert total == 125 and blocked / total < 0.05
