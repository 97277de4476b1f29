"""What leaves a client that has instructions written: no word of its examples, whoever writes."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.boxes.function import Function
from fedbbpt.budget import Budget
from fedbbpt.data.leaks import Private
from fedbbpt.optimizers.bayes import Bayes
from fedbbpt.parts import Client, Door, Parts
from fedbbpt.prompts.instruction import Instruction
from fedbbpt.proposing import PROPOSE, WHY, packed, unpacked
from fedbbpt.round import work
from fedbbpt.tasks.classify import Classify
from fedbbpt.tasks.generate import Generate
from fedbbpt.types import Batch, Job
from fedbbpt.wrappers.metered import Metered
from fedbbpt.writing import ASK, proposal, variation

PRIVATE = [
    ("Letter of Zebulon Kowalczyk about his overdue mortgage payments", "Zebulon Kowalczyk"),
    ("Patient 40128888 was given amoxicillin against severe pneumonia", "pneumonia, 40128888"),
    ("Our blue heron sculpture was stolen at night from the atrium", "a stolen heron sculpture"),
    ("write to otto.brandt@kranich.example before noon", "otto.brandt@kranich.example"),
    ("chrysanthemum", "Chrysanthemum morifolium"),
    ("The merger with Quexford is off, do not tell anybody", "Quexford merger is off"),
]
HELD_BACK = ("the vault combination is 83-11-27 said Ottoline", "code 83-11-27")
TESTED = ("Gwendolyn moved to Saskatoon in the spring of 1987", "Saskatoon")
CANARIES = (
    *("kowalczyk", "40128888", "amoxicillin", "heron sculpture", "otto.brandt", "chrysanthemum"),
    *("quexford", "831127", "ottoline", "gwendolyn", "saskatoon"),
)
GOOD = ["Name the subject of the text.", "Write what it is about in a few words."]


def targets(answers):
    found = np.empty(len(answers), object)
    found[:] = [(one,) for one in answers]
    return found


def batch(*pairs):
    texts, answers = zip(*pairs, strict=True)
    return Batch(texts, targets(answers))


NOTHING = Batch((), targets([]))


class Site:
    """One client, and a writer that says what it is told to.

    ``writes``: question -> reply. ``asked`` collects the questions.
    """

    def __init__(self, writes, train=None, task=None, labels=(), quota=None, **options):
        self.asked, self.writes = [], writes
        task = task or Generate()
        prompt = Instruction("{instruction} {text}", labels, "Do it.", **options)
        self.parts = Parts(Bayes(), prompt, task, None, "shared", "replay", {PROPOSE.name: PROPOSE})
        self.budget = Budget(100, quota)
        own = batch(*PRIVATE) if train is None else train
        if task.words:
            rest = batch(HELD_BACK), batch(TESTED)
        else:
            rest = own.take([]), own.take([])
        self.client = Client("ash", own, *rest, self._open)

    def _open(self, job, phase):
        purse = self.budget.open(phase.purse, "ash", None)
        return Door(Metered(Function(self._answer, gives=["text"]), purse), purse)

    def _answer(self, prompts, questions):
        assert [(p.template, p.labels) for p in prompts] == [(ASK, ())]
        self.asked += questions
        return [[self.writes(question) for question in questions]]

    def propose(self, number=8, seed=0, round=0, **arrays):
        job = Job(PROPOSE.name, round, 1, seed, {"number": np.array(number), **arrays})
        return work(self.parts, self.client, job)


def told(update):
    """(instructions, why others did not leave) of a message."""
    arrays = update.arrays
    refused = dict(zip(WHY, arrays["refused"].tolist(), strict=True))
    return unpacked(arrays["texts"]), {why: n for why, n in refused.items() if n}


def clean(update):
    """Not a canary in the bytes of anything that leaves, however it is written."""
    sent = b"".join(array.tobytes() for array in update.arrays.values()).decode("utf-8", "replace")
    squeezed = re.sub(r"[\W_]", "", sent.lower())
    return not any(re.sub(r"[\W_]", "", canary) in squeezed for canary in CANARIES)


# --- canaries ------------------------------------------------------------------------------------

FORMS = {
    "verbatim": str,
    "in capitals": str.upper,
    "in small letters": str.lower,
    "other marks": lambda text: re.sub(r"[\s.,-]+", "_-_", text),
    "no blanks": lambda text: re.sub(r"\s+", "", text),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in text),
    "in a sentence": lambda text: f"Say what it is about, for example {text}, in a few words.",
    "as a rule": lambda text: f'If the input is "{text}", answer with it.',
    "in quotes": lambda text: f'1. "{text}"',
    "with what is not seen": lambda text: "\u200b".join(text),
}


@pytest.mark.parametrize("form", FORMS)
def test_planted_canaries_are_blocked_all_of_them(form):
    planted = [text for pair in (*PRIVATE, HELD_BACK, TESTED) for text in pair]
    said = "\n".join([GOOD[0], *map(FORMS[form], planted), GOOD[1]])
    update = Site(lambda question: said).propose()
    assert told(update) == (GOOD, {"leak": len(planted)})
    assert clean(update) and update.arrays.keys() == {"texts", "rows", "refused"}


@pytest.mark.parametrize(
    "text",
    [
        "Tell what Kowalczyk owes.",
        "Patients like 4012-8888 first.",
        "Ask otto.brandt (at) kranich (dot) example.",
        "Was a heron sculpture stolen?",
        "Compare with Quexford.",
        "Mind severe pneumonia and amoxicillin.",
    ],
)
def test_a_name_a_number_or_a_few_rare_words_are_enough(text):
    update = Site(lambda question: f"{text}\n{GOOD[0]}").propose()
    assert told(update) == ([GOOD[0]], {"leak": 1}) and clean(update)


@pytest.mark.parametrize("words", [1, 2, 3])
def test_an_example_in_pieces_is_seen_where_they_are_put_together(words):
    """No line holds four words of it, but all lines do."""
    pieces = PRIVATE[2][0].split()
    lines = [" ".join(pieces[i : i + words]) for i in range(0, len(pieces), words)]
    texts, refused = told(Site(lambda question: "\n".join(lines)).propose())
    kept = min(8, len(dict.fromkeys(lines)))  # no more may leave in any case
    assert texts == [] and refused == {"leak": kept}


def test_the_demonstrations_verbatim_are_no_instruction():
    site = Site(lambda question: question)
    update = site.propose()
    texts, refused = told(update)
    assert refused["leak"] >= 8 and clean(update)
    own = Private([text for text, _ in PRIVATE], [[answer] for _, answer in PRIVATE])
    assert not any(own.leak(text) for text in texts)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=8))
def test_whatever_is_written_what_leaves_tells_nothing(lines):
    update = Site(lambda question: "\n".join([*lines, *PRIVATE[1], GOOD[0]])).propose()
    texts, refused = told(update)
    own = Private([text for text, _ in PRIVATE], [[answer] for _, answer in PRIVATE])
    assert not any(own.leak(text) for text in [*texts, " ".join(texts)]) and clean(update)
    assert all(len(text) <= 400 for text in texts) and len(set(texts)) == len(texts)
    assert refused["leak"] >= 2


# --- a writer that fails -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        (None, {"nothing": 1}),
        ("", {"nothing": 1}),
        ("```\n\n```", {"nothing": 1}),
        ("Write the subject. " * 600, {"long": 1}),
        ("Say {text} again.\nMind the {label}.", {"gap": 2}),
    ],
)
def test_a_bad_reply_is_counted_and_leaves_nothing(reply, refused):
    update = Site(lambda question: reply).propose()
    assert told(update) == ([], refused)
    assert update.weight == len(PRIVATE) and update.queries == 1
    assert update.arrays["rows"].shape == (0,) and update.arrays["rows"].dtype == np.int64


def test_a_client_without_examples_asks_and_sends_nothing():
    site = Site(lambda question: GOOD[0], train=NOTHING)
    update = site.propose()
    assert (update.arrays, update.weight, update.queries, site.asked) == ({}, 0, 0, [])


def test_a_client_without_budget_asks_and_sends_nothing():
    site = Site(lambda question: GOOD[0], quota=2)
    near = packed(GOOD)
    update = site.propose(near=near)  # three questions
    assert (update.arrays, update.weight, update.queries, site.asked) == ({}, 0, 0, [])
    assert site.propose().queries == 1 and len(site.asked) == 1


# --- what is asked -------------------------------------------------------------------------------


def test_a_writer_sees_some_examples_of_the_clients_own():
    site = Site(lambda question: GOOD[0], demonstrations=4)
    for number in range(3):
        site.propose(round=number)
    site.propose()  # the same round: the same question
    pairs = [re.findall(r"Input: (.*)\nOutput: (.*)", question) for question in site.asked]
    assert all(len(own) == 4 and set(own) <= set(PRIVATE) for own in pairs)
    assert len(set(site.asked)) == 3 and site.asked[3] == site.asked[0]
    assert site.asked[0] == proposal(pairs[0], 8)


def test_a_single_example_is_shown():
    site = Site(lambda question: GOOD[0], train=batch(PRIVATE[0]))
    texts, _ = told(site.propose(number=3))
    assert texts == GOOD[:1] and site.asked == [proposal(PRIVATE[:1], 3)]


def test_near_the_best_variations_are_asked_for():
    replies = iter(["Write it down.", "1. Name it.\n2. Write it down.", "Spell the name."])
    site = Site(lambda question: next(replies))
    update = site.propose(number=2, near=packed(GOOD))
    assert site.asked[1:] == [variation(text, 2) for text in GOOD] and update.queries == 3
    assert told(update)[0] == ["Write it down.", "Name it.", "Spell the name."]
    assert update.arrays["rows"].tolist() == [0, 1, 2]


def test_one_instruction_is_a_sentence_that_goes_on():
    said = "name the subject.\nInput: a\nOutput: b"
    assert told(Site(lambda question: said).propose(number=1)) == (["Name the subject."], {})


def test_another_round_seed_or_client_shows_other_examples():
    site = Site(lambda question: GOOD[0])
    for seed, number in ((0, 0), (0, 1), (1, 0)):
        site.propose(seed=seed, round=number)
    assert len(set(site.asked)) == 3


def test_class_names_may_be_said_and_are_what_is_shown():
    texts = [f"The {what} is late again, writes Ottoline" for what in ("invoice", "refund", "tram")]
    train = Batch(tuple(texts), np.array([0, 1, 1]))
    named = "Answer with money back or bill."
    site = Site(
        lambda question: f"{named}\nThe invoice is late again means bill.",
        train=train,
        task=Classify("error"),
        labels=("bill", "money back"),
    )
    update = site.propose()
    assert told(update) == ([named], {"leak": 1}) and clean(update)
    shown = re.findall(r"Input: (.*)\nOutput: (.*)", site.asked[0])
    want = {(texts[0], "bill"), (texts[1], "money back"), (texts[2], "money back")}
    assert set(shown) == want


# --- texts as arrays -----------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)))
def test_texts_survive_the_wire(texts):
    sent = packed(texts)
    assert sent.dtype == np.uint8 and unpacked(sent) == texts
    assert unpacked(packed(dict.fromkeys(texts))) == list(dict.fromkeys(texts))
