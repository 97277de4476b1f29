"""What a writer is asked, and which of the lines of its reply are instructions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import ConfigError
from fedbbpt.testing._simulated_chat import read
from fedbbpt.writing import GAPS, Writing, instructions, proposal, unfit, variation

SHOWN = [("cat", "cats"), ("a long sentence.\nOn two lines", "both: kept"), ("fox", "foxes")]
WRITE, GIVE = "Write the plural.", 'Give the word for "more than one".'
REPLIES = {
    "plain lines": f"{WRITE}\n{GIVE}",
    "numbers": f"1. {WRITE}\n2. {GIVE}",
    "brackets": f"1) {WRITE}\n  2) {GIVE}",
    "colons": f"1: {WRITE}\n2: {GIVE}",
    "bullets": f"- {WRITE}\n* {GIVE}",
    "dots": f"• {WRITE}\n– {GIVE}",
    "names": f"Instruction 1: {WRITE}\ninstruction: {GIVE}",
    "numbers and names": f"1. Instruction: {WRITE}\n2. INSTRUCTION 2: {GIVE}",
    "bold names": f"**Instruction 1:** {WRITE}\n**Instruction 2**: {GIVE}",
    "bold numbers": f"**1.** {WRITE}\n**2.** {GIVE}",
    "quotes": f'"{WRITE}"\n“{GIVE}”',
    "numbers and quotes": f'1. "{WRITE}"\n2. `{GIVE}`',
    "bold": f"**{WRITE}**\n2. **{GIVE}**",
    "an introduction": f"Sure! Here are 2 instructions:\n\n{WRITE}\n\n{GIVE}\n",
    "a bold introduction": f"**Here are 2 instructions:**\n{WRITE}\n{GIVE}",
    "a heading": f"## Instructions\n{WRITE}\n{GIVE}",
    "a fence": f"```\n{WRITE}\n{GIVE}\n```",
    "a fence with a name": f"```text\n1. {WRITE}\n2. {GIVE}\n```\n",
    "line ends of other systems": f"{WRITE}\r\n{GIVE}\r\n",
    "blanks and rules": f"  {WRITE}  \n---\n\t{GIVE}\u00a0\n***",
    "blanks inside": f"Write  the\tplural.\n{GIVE}",
}


@pytest.mark.parametrize("name", REPLIES)
def test_each_line_is_an_instruction_without_what_is_around_it(name):
    assert list(instructions(REPLIES[name])) == [WRITE, GIVE]


@pytest.mark.parametrize("reply", [None, "", "\n \n", "...", "```\n```", "1.\n2.\n", "Sure:", "42"])
def test_no_words_no_instruction(reply):
    assert list(instructions(reply)) == [] == list(instructions(reply, whole=True))


def test_only_the_first_line_can_be_an_introduction():
    assert list(instructions(f"Here are two:\n1. Translate to French:\n{WRITE}")) == [
        "Translate to French:",
        WRITE,
    ]


def test_a_sentence_that_goes_on_is_one_instruction():
    said = ' list the letters of "the word"\nInput: cat\nOutput: c a t'
    assert list(instructions(said, whole=True)) == ['List the letters of "the word"']
    assert list(instructions(f"\n\n{WRITE}\n{GIVE}", whole=True)) == [WRITE]


@pytest.mark.parametrize(
    "text",
    [
        "3 letters are enough: write them.",
        "Write the plural (two words).",
        "Instructions are to be followed.",
        "Add 1.5 to it.",
        "Écris le pluriel.",
        "単語を複数形にする。",
    ],
)
def test_what_looks_like_a_mark_and_is_none_stays(text):
    assert list(instructions(text)) == [text]


@given(st.text(max_size=200), st.booleans())
def test_whatever_is_said_an_instruction_is_one_line_with_a_letter(reply, whole):
    found = list(instructions(reply, whole))
    assert len(found) <= (1 if whole else len(reply.splitlines()))
    for text in found:
        assert text == " ".join(text.split()) and any(map(str.isalpha, text))
        assert len(text.splitlines()) == 1


def test_what_cannot_be_an_instruction():
    assert unfit("x" * 20, 20) == "" and unfit("x" * 21, 20) == "long"
    assert [unfit(f"Say {gap}", 400) for gap in GAPS] == ["gap"] * 4
    assert unfit("Say {this} and {}", 400) == ""


# --- questions -----------------------------------------------------------------------------------


def asked(text):
    """How a model that reads requests as OpenAI's API does understands a question."""
    sent = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return read(json.dumps(sent).encode(), ["m"])


@pytest.mark.parametrize("number", [2, 8, 20])
def test_a_proposal_shows_the_examples_and_asks_for_so_many(number):
    found = asked(proposal(SHOWN[:1] + SHOWN[2:], number))
    assert (found.does, found.lines) == ("propose", number)
    assert found.shown == (SHOWN[0], SHOWN[2])


def test_a_single_one_is_left_open():
    question = proposal(SHOWN, 1)
    found = asked(question)
    assert (found.does, found.lines) == ("propose", 1)
    assert found.shown == tuple(SHOWN) and question.endswith("The instruction was to")


@pytest.mark.parametrize("number", [1, 8])
def test_a_variation_shows_the_instruction(number):
    found = asked(variation(GIVE, number))
    assert (found.does, found.lines, found.instruction) == ("vary", number, GIVE)


def test_demonstrations_are_an_iterator_once():
    assert proposal(iter(SHOWN), 3) == proposal(SHOWN, 3)


# --- options -------------------------------------------------------------------------------------


def test_what_a_client_pays_at_a_time():
    assert (Writing().queries, Writing("soft", proposals=6).queries) == (1, 6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"writer": "pond"}, "prompt.writer is 'pond'; known: pool, soft"),
        ({"proposals": 0}, "prompt.proposals is 0; it must be at least 1"),
        ({"demonstrations": 0}, "prompt.demonstrations is 0; it must be at least 1"),
        ({"again": -1}, "prompt.again is -1; it must be at least 0"),
        ({"longest": 19}, "prompt.longest is 19; it must be at least 20"),
        ({"tokens": 0}, "prompt.tokens is 0; it must be at least 1"),
        ({"dim": 0}, "prompt.latent is 0; it must be at least 1"),
    ],
)
def test_options_out_of_range(options, sentence):
    with pytest.raises(ConfigError) as caught:
        Writing(**options)
    assert str(caught.value) == sentence
