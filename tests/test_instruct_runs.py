"""Whole runs that tune an instruction: the same to the bit, within budget, and telling nothing."""

import csv
import gc
import json
import re
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt import api
from fedbbpt.boxes.function import Function
from fedbbpt.config import resolve
from fedbbpt.engines.local import Local
from fedbbpt.errors import BoxError, BudgetTooSmall, Incompatible, RunDirError
from fedbbpt.record import read_lines
from fedbbpt.sharing import share_out, tables
from fedbbpt.testing.simulated_llm import SimulatedLlm, examples, table_skill
from fedbbpt.testing.toys import ToyVocabulary
from fedbbpt.writing import ASK

YOURS = "Write the word for more than one."
CARDS = [(text, right[0]) for text, right in examples("plural", 60)]


@pytest.fixture(scope="module")
def server():
    with SimulatedLlm(seed=0, embedding="ngrams") as running:
        yield running


def at(model):
    """The table of a box that asks a server."""
    return {"kind": "openai_http", "url": model.url, "model": model.name, "key_env": ""}


def cards(*sizes):
    """So many cards for each school."""
    ends = np.cumsum([0, *sizes])
    return {f"school {k}": CARDS[a:b] for k, (a, b) in enumerate(pairwise(ends))}


class Ran:
    """A finished run and what it left."""

    def __init__(self, out, outcome):
        self.out, self.outcome, self.result = out, outcome, outcome.result
        self.table = json.loads((out / "prompt" / "candidates.json").read_text())["candidates"]
        self.chosen = next(one["instruction"] for one in self.table if one["chosen"])

    def events(self, kind):
        return [e for e in read_lines(self.out / "events.jsonl") if e["event"] == kind]

    @property
    def told(self):
        """All that must not depend on threads, wires or kills."""
        losses = [(e["round"], e["client"], e["queries"]) for e in self.events("client")]
        numbers = {k: v for k, v in self.result.items() if k not in ("seconds", "bytes")}
        prompt = (self.out / "prompt" / "prompt.safetensors").read_bytes()
        pools = [file.read_bytes() for file in sorted((self.out / "state").glob("pool-*"))]
        return numbers, losses, self.table, prompt, pools

    def charged(self):
        """Training queries by client."""
        told = Counter()
        for line in read_lines(self.out / "state" / "charges.jsonl"):
            told[line["account"]] += len(line["keys"]) * (line["purse"] == "train")
        return told


def make(folder, sites=None, tests=10, box=None, **changes):
    """(config, split); keys of ``changes`` are dotted with two underscores."""
    tree = {
        "task": "generate",
        "data": {"train": ""},
        "prompt": {"instruction": YOURS, "encoder": "ngrams", "proposals": 4},
        "method": {"name": "fedinstruct"},
        "budget": {"queries": 260},
    }
    for path, value in changes.items():
        *names, key = path.split("__")
        place = tree
        for name in names:
            place = place.setdefault(name, {})
        place[key] = value
    if box is not None:
        tree["box"] = box
    config = resolve(tree, folder)
    test = tests if isinstance(tests, list) else CARDS[-tests:] if tests else []
    held = tables(sites or cards(10, 10, 10), test, task=config.task)
    return config, share_out(config, *held)


def ran(folder, model=None, **changes):
    """Run it in a directory of its own; ``model`` answers in this process."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "out"
    config, split = make(folder, **changes)
    return Ran(out, api.run(config, out, split=split, box=model))


# --- a model in this process ---------------------------------------------------------------------

PLAIN = "Say it slowly.\nSay it well.\nSay it again.\nSay it twice."
TREES = "ash fir oak elm yew box bay fig hop ivy".split()


def follow(instruction, text):
    """The toy task is to say a text twice; asked to say it again, half of them are."""
    if "twice" in instruction or ("again" in instruction and len(text) + ord(text[0]) & 1):
        return f"{text} {text}"
    return text


def toy(writes=PLAIN, follows=follow, **options):
    """A box that writes and follows. ``writes``: a reply, or question -> reply."""

    def answer(prompts, examples):
        (prompt,) = prompts
        if prompt.template == ASK:
            return [[writes(x) if callable(writes) else writes for x in examples]]
        return [[follows(prompt.template.partition("\n")[0], x) for x in examples]]

    return Function(answer, gives=["text"], **options)


def twice(*sizes):
    texts = [f"{word} {other}" for word in TREES for other in TREES]
    ends = np.cumsum([0, *sizes])
    pairs = [(text, f"{text} {text}") for text in texts]
    return {f"site {k}": pairs[a:b] for k, (a, b) in enumerate(pairwise(ends))}


SHORT = {
    "tests": [("yew box", "yew box yew box"), ("ivy hop", "ivy hop ivy hop")],
    "budget__queries": 150,
}


def test_it_finds_what_it_was_offered(tmp_path):
    done = ran(tmp_path, toy(), sites=twice(8, 8, 8), **SHORT)
    assert done.chosen == "Say it twice." and done.result["tuned"]["exact"] == 1.0
    assert done.result["baseline"]["exact"] == 0.0
    assert done.outcome.tuned.predict(["fig ivy"]) == ["fig ivy fig ivy"]
    assert len(done.table) == 5 and done.table[0]["instruction"] == "Say it twice."
    assert (
        done.table[0]["loss"]
        < 0.1
        < 0.5
        < next(one["loss"] for one in done.table if not one["author"])
    )


# --- the same run --------------------------------------------------------------------------------


def test_threads_wires_and_repetition_change_no_bit(server, tmp_path):
    box = at(server)
    first = ran(tmp_path, box=box)
    assert first.result["tuned"]["exact"] > first.result["baseline"]["exact"]
    assert len(first.told[-1]) == 2  # it grew twice
    assert ran(tmp_path, box=box).told == first.told
    assert ran(tmp_path, box=box, engine__threads=4).told == first.told
    assert ran(tmp_path, box=box, method__wire="state").told == first.told
    other = ran(tmp_path, box=box, run__seed=1)
    assert other.told[-1] != first.told[-1]


def test_nothing_leaves_but_what_is_declared(server, tmp_path, monkeypatch):
    sent, map_ = [], Local.map

    def listening(self, job, clients):
        updates = map_(self, job, clients)
        sent.extend((job.phase, update.arrays.keys()) for update in updates)
        return updates

    monkeypatch.setattr(Local, "map", listening)
    ran(tmp_path, box=at(server), budget__queries=120)
    keys = {phase: set().union(*(k for p, k in sent if p == phase)) for phase, _ in sent}
    assert keys == {
        "setup": {"step", "once", "common"},
        "propose": {"texts", "rows", "refused"},
        "search": {"losses"},
        "select": {"losses", "squares", "answers", "labels"},
        "evaluate": {"losses", "scores", "squares"},
    }


def test_a_second_growth_brings_kin_of_the_best(server, tmp_path):
    before = Counter(server.counts)
    done = ran(tmp_path, box=at(server))
    assert server.counts["vary"] - before["vary"] == 2
    assert server.counts["propose"] - before["propose"] == 3 + 1
    proposed = done.events("proposed")
    assert [e["client"] for e in proposed[:3]] == ["school 0", "school 1", "school 2"]
    assert len(proposed) == 4 and len(done.table) > 8
    assert ran(tmp_path, box=at(server), prompt__again=0).events("proposed") == proposed[:3]


def test_another_model_may_write(server, tmp_path):
    writer = SimulatedLlm(seed=5, embedding="ngrams")
    with SimulatedLlm(seed=0, embedding="ngrams") as follower, writer:
        done = ran(tmp_path, box=at(follower), writer=at(writer), budget__queries=150)
        assert set(follower.counts) == {"follow"} and set(writer.counts) == {"propose", "vary"}
    queries = done.result["queries"]
    asked = follower.counts.total() + writer.counts.total()
    assert asked == queries["paid"] == sum(queries[k] for k in ("train", "select", "evaluation"))


# --- the budget ----------------------------------------------------------------------------------


def soft_writer(prompts, examples):
    """Says other things behind other soft prompts."""
    (prompt,) = prompts
    if not prompt.soft:
        return [[follow(prompt.template.partition("\n")[0], x) for x in examples]]
    kind = int(1e4 * abs(float(prompt.soft[0].sum())))
    said = (*PLAIN.splitlines(), f"say it {kind} times")[kind % 5]
    return [[said for _ in examples]]


SOFT = {"gives": ["text"], "vocabulary": ToyVocabulary(), "accepts": ["soft", "text"]}


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any),
    budget=st.integers(5, 150),
    batch=st.integers(0, 3),
    proposals=st.integers(1, 5),
    again=st.integers(0, 4),
    candidates=st.integers(1, 5),
    active=st.integers(1, 4),
    cap=st.none() | st.integers(2, 40),
    writer=st.sampled_from(["pool", "soft"]),
    wire=st.sampled_from(["replay", "state"]),
)
def test_no_budget_is_ever_exceeded(
    sizes, budget, batch, proposals, again, candidates, active, cap, writer, wire
):
    changes = {
        "sites": twice(*sizes),
        "budget__queries": budget,
        "rounds__batch": batch,
        "rounds__clients_per_round": active,
        "prompt__proposals": proposals,
        "prompt__again": again,
        "prompt__writer": writer,
        "prompt__latent": 2,
        "prompt__tokens": 2,
        "method__optimizer__batch": candidates,
        "method__optimizer__initial": 3,
        "method__wire": wire,
    }
    if cap:
        changes["budget__client_queries"] = cap
    box = toy() if writer == "pool" else Function(soft_writer, **SOFT)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            done = ran(folder, box, **changes)
        except BudgetTooSmall as error:
            # What it says is enough, is.
            done = ran(folder, box, **{**changes, "budget__queries": error.needs})
        charged, queries = done.charged(), done.result["queries"]
        assert sum(charged.values()) == queries["train"] <= queries["budget"]
        assert max(charged.values(), default=0) <= (cap or queries["budget"])
        if cap is None:
            assert [e for e in done.events("merge") if e["phase"] == "search"]
            assert done.events("proposed")
        assert done.chosen in [one["instruction"] for one in done.table]


def test_the_least_budget_is_said(tmp_path):
    def tried(queries):
        changes = {**SHORT, "budget__queries": queries, "method__optimizer__batch": 8}
        return ran(tmp_path, toy(), sites=twice(4, 4), rounds__batch=2, **changes)

    with pytest.raises(BudgetTooSmall) as caught:
        tried(10)
    # Two clients ask a writer, and try eight candidates on two examples each.
    assert caught.value.needs == 2 + 2 * 8 * 2
    assert tried(caught.value.needs).result["queries"]["train"] <= caught.value.needs
    with pytest.raises(BudgetTooSmall):
        tried(caught.value.needs - 1)


def test_a_cap_for_each_client_holds_for_the_writer_too(tmp_path):
    done = ran(tmp_path, toy(), sites=twice(6, 6), budget__client_queries=20, **SHORT)
    charged = {client: n for client, n in done.charged().items() if n}
    assert len(charged) == 2 and 10 < min(charged.values()) <= max(charged.values()) <= 20


# --- soft prompts --------------------------------------------------------------------------------


def test_soft_prompts_are_searched_for_what_they_write(tmp_path):
    box = Function(soft_writer, **SOFT)
    changes = {"prompt__writer": "soft", "prompt__latent": 3, "sites": twice(8, 8)}
    first = ran(tmp_path, box, **SHORT, **changes)
    assert first.chosen == "Say it twice." and len(first.told[-1]) == 2
    assert ran(tmp_path, box, **SHORT, **changes, engine__threads=4).told == first.told
    assert ran(tmp_path, box, **SHORT, **changes, method__wire="state").told == first.told


@pytest.mark.parametrize(
    ("options", "changes", "sentence"),
    [
        (
            {"gives": ["scores"]},
            {},
            "function:function gives scores; this task needs text",
        ),
        (
            {"gives": ["text"], "accepts": ["text"]},
            {"prompt__writer": "soft"},
            "prompt.writer is 'soft', but function:function accepts only text; name an open model "
            "in the table [writer], or set prompt.writer = 'pool'",
        ),
        (
            {"gives": ["text"]},  # accepts soft prompts, and has no vocabulary to make them of
            {"prompt__writer": "soft"},
            "prompt.writer is 'soft', but function:function accepts only soft, text, tokens; name "
            "an open model in the table [writer], or set prompt.writer = 'pool'",
        ),
    ],
)
def test_models_that_cannot_do_it_are_refused(tmp_path, options, changes, sentence):
    with pytest.raises(Incompatible) as caught:
        ran(tmp_path, Function(soft_writer, **options), **changes)
    assert str(caught.value) == sentence


def test_a_writer_that_gives_scores_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scored_here", ModuleType("scored_here"))
    sys.modules["scored_here"].answer = lambda prompts, examples: None
    writer = {"kind": "function", "answer": "scored_here:answer"}
    with pytest.raises(Incompatible) as caught:
        ran(tmp_path, toy(), writer=writer)
    assert str(caught.value) == (
        "function:function cannot write instructions, for it gives scores; name a model that "
        "answers in words in the table [writer]"
    )


# --- labels --------------------------------------------------------------------------------------

ADS = {f"{a} {b} offer": "spam" for a in TREES[:5] for b in TREES[:5] if a != b}
NOTES = {f"{a} and {b} meeting": "mail" for a in TREES[:5] for b in TREES[5:]}


def test_an_instruction_is_tuned_for_labels_too(tmp_path):
    pairs = [pair for both in zip(ADS.items(), NOTES.items(), strict=False) for pair in both]
    sorts = table_skill(
        "sort mail",
        {text: [kind] for text, kind in pairs},
        ["Decide whether the message is spam or mail.", "Classify the message as spam or mail."],
        ["Say whether the message is spam or mail.", "Label the message as spam or mail."],
    )
    sites = {f"site {k}": pairs[10 * k : 10 * k + 10] for k in range(3)}
    with SimulatedLlm(embedding="ngrams", skills=[sorts]) as model:
        done = ran(
            tmp_path,
            box={**at(model), "scores": "labels"},
            task="classify",
            sites=sites,
            tests=pairs[30:40],
            prompt__instruction="What is this?",
            budget__queries=200,
        )
        said = done.outcome.tuned.predict([pairs[0][0], pairs[1][0]])
    assert said == ["spam", "mail"]
    assert done.result["metric"] == "accuracy" and done.result["tuned"]["accuracy"] == 1.0
    assert done.result["baseline"]["accuracy"] < 0.8 and "spam or mail" in done.chosen


# --- nothing private -----------------------------------------------------------------------------

NAMES = ("Kowalczyk", "Saskatoon", "Quexford", "Ottoline", "Gwendolyn", "Brandtmann")


def letters(site, number):
    """Pairs whose words occur nowhere else."""
    return [
        (
            f"letter {i} to {name} of {site} on account 77{i}4{site[-1]}9{i}1",
            f"{name} owes {17 * i + 3}",
        )
        for i, name in enumerate((NAMES * 3)[:number])
    ]


def test_a_writer_that_quotes_is_silenced_and_no_file_tells(tmp_path):
    sites = {f"site {k}": letters(f"place {k}", 9) for k in range(3)}

    def quoting(question):
        shown = re.findall(r"Input: (.*)\nOutput: (.*)", question)
        said = [line for text, answer in shown for line in (text, answer.upper(), f"Like {text}!")]
        return "\n".join(["Say who owes what.", *said])

    def repeating(instruction, text):
        return f"I was asked: {text}"

    box = toy(quoting, repeating, accepts=["text"])
    done = ran(tmp_path, box, sites=sites, tests=letters("Hamlet 9", 6), budget__queries=120)
    assert [one["instruction"] for one in done.table] == [YOURS, "Say who owes what."]
    for event in done.events("proposed")[:3]:
        assert event["sent"] == 1 and event["refused"] == {"leak": 15}
    secrets = [*NAMES, *(text for own in sites.values() for pair in own for text in pair)]
    for file in done.out.rglob("*"):
        if file.is_file():
            held = file.read_bytes().lower()
            for secret in secrets:
                assert secret.lower().encode() not in held, f"{secret!r} is in {file.name}"


@pytest.mark.parametrize(
    ("writes", "why"),
    [
        (None, "replies without one: 4"),
        ("", "replies without one: 4"),
        ("Do it at once. " * 700, "longer than prompt.longest: 4"),
        ("Mind {text} and {label}.", "with a placeholder: 4"),
        (lambda question: "If the input is ash ash answer ash ash ash ash.", "nothing new"),
        (YOURS, "nothing new"),
    ],
)
def test_a_writer_without_ideas_leaves_the_users_own_and_it_is_said(tmp_path, writes, why):
    if callable(writes):
        sites, why = twice(3), "telling of a private example"
    else:
        sites = twice(3, 3)
    done = ran(tmp_path, toy(writes), sites=sites, **SHORT)
    assert done.chosen == YOURS and len(done.table) == 1
    assert done.result["tuned"] == done.result["baseline"]
    (note,) = [one for one in done.outcome.warnings if "no instruction but yours" in one]
    assert why in note


# --- clients and models in a bad way -------------------------------------------------------------


def test_clients_with_one_example_or_none_take_part_as_they_can(tmp_path):
    config, split = make(tmp_path, sites=twice(8, 1, 1), **SHORT)
    split.train["site 1"] = split.train["site 1"].take([])
    out = tmp_path / "out"
    done = Ran(out, api.run(config, out, split=split, box=toy()))
    assert done.chosen == "Say it twice."
    assert {client for client, n in done.charged().items() if n} == {"site 0", "site 2"}
    assert {e["client"] for e in done.events("proposed")} == {"site 0", "site 2"}
    assert any("hold a single example" in note for note in done.outcome.warnings)


@pytest.mark.parametrize("reply", ["", "I cannot help with that."])
def test_a_follower_that_refuses_everything_scores_nothing(tmp_path, reply):
    done = ran(tmp_path, toy(follows=lambda *_: reply), sites=twice(6, 6), **SHORT)
    assert done.result["tuned"] == done.result["baseline"] == {"exact": 0.0, "loss": 1.0}
    assert done.result["queries"]["dropped"] == 0


def test_a_follower_that_says_nothing_at_all_ends_the_run(tmp_path):
    """No answer is no score of 0: there is nothing to compare."""
    with pytest.raises(BoxError, match="answered none"):
        ran(tmp_path, toy(follows=lambda *_: None), sites=twice(6, 6), **SHORT)


class Refuses(SimulatedLlm):
    """Writes instructions and follows none, as a chat API says it."""

    def answer(self, body):
        said = json.loads(super().answer(body))
        if b"instruction" not in body:
            said["choices"][0]["message"] |= {"content": None, "refusal": "I can't do that."}
        return json.dumps(said).encode()


def test_refusals_of_an_api_are_answers_that_score_nothing(tmp_path):
    with Refuses(embedding="ngrams") as model:
        done = ran(tmp_path, box=at(model), sites=cards(6, 6), budget__queries=120)
    assert done.result["tuned"] == done.result["baseline"] == {"exact": 0.0, "loss": 1.0}
    assert done.result["queries"]["dropped"] == 0 and len(done.table) > 4


# --- from files ----------------------------------------------------------------------------------


def test_a_table_of_cards_is_read_as_it_is(server, tmp_path):
    for name, pairs in (("train", CARDS[:24]), ("test", CARDS[-6:])):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("input", "output", "site"))
            rows.writerows((*pair, f"school {k % 2}") for k, pair in enumerate(pairs))
    tree = {
        "task": "generate",
        "data": {"train": "train.csv", "test": "test.csv"},
        "box": at(server),
        "prompt": {"instruction": YOURS, "encoder": "ngrams"},
        "method": {"name": "fedinstruct"},
        "budget": {"queries": 150},
    }
    outcome = api.run(resolve(tree, tmp_path), tmp_path / "out")
    assert outcome.result["clients"] == 2 and outcome.result["test_examples"] == 6
    again = api.resume(tmp_path / "out")
    assert {**again.result, "seconds": 0} == {**outcome.result, "seconds": 0}


def test_a_lost_pool_is_named_and_nothing_stays_open(tmp_path):
    changes = {"sites": twice(6, 6), **SHORT}
    done = ran(tmp_path, toy(), **changes)
    _, split = make(tmp_path, **changes)
    file = done.out / "state" / "pool-2.safetensors"
    file.unlink()
    for _ in range(2):
        with pytest.raises(RunDirError, match=f"{re.escape(str(file))} is lost or damaged"):
            api.resume(done.out, box=toy(), split=split)
        gc.collect()  # an open file would be told about here
