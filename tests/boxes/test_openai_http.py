"""The box for OpenAI's API: bytes sent, replies read, failures survived, keys kept."""

import json
import math
import threading
import time

import numpy as np
import pytest

from fedbbpt.boxes._choices import by_name, by_option, by_probability
from fedbbpt.boxes._wire import Again
from fedbbpt.boxes.openai_http import OpenaiHttp
from fedbbpt.errors import BoxError, BudgetSpent, ConfigError
from fedbbpt.testing import _fault_http
from fedbbpt.testing.boxes import Case, check_names
from fedbbpt.testing.faults import TRANSIENT, FaultServer, evenly
from fedbbpt.testing.simulated_llm import SimulatedLlm
from fedbbpt.till import Caps, Tills
from fedbbpt.types import NO_LABEL, RenderedPrompt

LABELS = ("bad", "good")
PROMPT = RenderedPrompt("Review: {text}\nIn one word, it was", LABELS, side="text")
TEXTS = [f"text number {i}" for i in range(12)]
MANY = [f"text number {i}" for i in range(60)]


def answer(text):
    """Two labels with half the mass, by the text's length and letters."""
    share = 0.1 + 0.3 * ((sum(text.encode()) % 97) / 97)
    return {"bad": math.log(share), "good": math.log(0.5 - share), "the": math.log(0.3)}


@pytest.fixture
def server():
    with FaultServer(answer) as running:
        yield running


def box(server, **options):
    return OpenaiHttp(server.url, "toy", **{"deadline": 20.0, "timeout": 2.0} | options)


def right(texts, prompt=PROMPT):
    told = [answer(prompt.template.replace("{text}", text)) for text in texts]
    scores = np.array([[row[label] for label in LABELS] for row in told])
    return scores - np.logaddexp.reduce(scores, axis=1)[:, None]


# --- replies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_scores_are_the_labels_log_probabilities(server, api):
    reply = box(server, api=api)([PROMPT], TEXTS)
    np.testing.assert_allclose(reply.scores[0], right(TEXTS), atol=1e-6)
    assert server.requests == len(TEXTS)


def test_a_model_that_gives_labels_only_is_read_by_its_words(server):
    reply = box(server, scores="labels")([PROMPT], TEXTS)
    for text, row in zip(TEXTS, reply.scores[0], strict=True):
        told = answer(PROMPT.template.replace("{text}", text))
        likeliest = max(told, key=told.get)
        if likeliest in LABELS:
            assert row.argmax() == LABELS.index(likeliest) and row.max() > np.log(0.5)
        else:
            assert (row == NO_LABEL).all()
    assert 0 < (reply.scores[0].max(axis=1) == NO_LABEL).sum() < len(TEXTS)


def test_a_label_that_is_not_listed_is_bounded_by_the_least_likely_token():
    read = by_probability(LABELS, {"good": -0.1, "the": -3.0})
    assert read.row[0] - read.row[1] == pytest.approx(-2.9) and read.named
    assert np.logaddexp.reduce(read.row) == pytest.approx(0.0)


def test_tokens_that_begin_one_label_count_for_it_and_shared_ones_for_none():
    read = by_probability(("unkind", "unclear"), {" Unk": -3.0, "un": -0.7, "▁unclear": -2.0})
    assert read.row[1] - read.row[0] == pytest.approx(1.0)
    both = by_probability(LABELS, {" good": math.log(0.2), "Good": math.log(0.2), "bad": -3.0})
    assert both.row[1] - both.row[0] == pytest.approx(math.log(0.4) + 3.0)


def test_the_label_named_first_counts_as_a_whole_word():
    labels = ("good", "very good", "bad")
    assert by_name(labels, "Very good, not bad.").row.argmax() == 1
    assert by_name(labels, "goodness! It is bad").row.argmax() == 2
    assert not by_name(labels, "goodness").named
    assert (by_name(labels, "").row == NO_LABEL).all()


@pytest.mark.parametrize("tops", [{}, {"good": None}, {"good": 0.0, "bad": 0.0}, {"good": 0.5},
                                  {"good": -9999.0}, {"good": math.nan}])  # fmt: skip
def test_numbers_that_are_no_log_probabilities_are_no_answer(tops):
    with pytest.raises(Again):
        by_probability(LABELS, tops)


def test_options_need_a_probability_each():
    np.testing.assert_allclose(
        np.exp(by_option(LABELS, {"good": 0.3, "bad": 0.1}).row), (0.25, 0.75)
    )
    for shares in ({"good": 1.0}, {"good": math.nan, "bad": 0.1}, {"good": 0, "bad": 0}):
        with pytest.raises(Again):
            by_option(LABELS, shares)


# --- words ---------------------------------------------------------------------------------------

WORDY = RenderedPrompt("Review: {text}\nSum it up:", (), side="text")


def test_a_prompt_without_labels_is_answered_in_words():
    instructions = ("Write the first letter of the word.", "Add the two numbers.")
    prompts = [RenderedPrompt(f"{i}\n\nInput: {{text}}\nOutput:", (), "text") for i in instructions]
    inputs = ["cat", "horse", "12 7", "cat"]
    with SimulatedLlm(embedding="ngrams") as model:
        asked = OpenaiHttp(model.url, model.name, key_env="", deadline=20.0)
        assert asked.gives == {"scores", "text"}
        reply = asked(prompts, inputs)
        want = tuple(tuple(model.mind.follow(i, x) for x in inputs) for i in instructions)
        assert model.counts == {"follow": 6}
    assert reply.texts == want and {"c", "h", "19"} <= {text for row in want for text in row}
    assert reply.scores.shape == (2, 4, 0)


@pytest.mark.parametrize(("options", "most"), [({}, 128), ({"reply_tokens": 5}, 5)])
def test_what_is_sent_for_words(server, options, most):
    asked = box(server, **options)
    assert json.loads(asked.request(WORDY, "fine").body) == {
        "model": "toy",
        "messages": [{"role": "user", "content": "Review: fine\nSum it up:"}],
        "max_tokens": most,
        "temperature": 0,
    }
    sent = json.loads(box(server, api="completions", **options).request(WORDY, "fine").body)
    assert sent == {
        "model": "toy",
        "prompt": "Review: fine\nSum it up:",
        "max_tokens": most,
        "temperature": 0,
    }
    over = box(server, extra={"temperature": 0.5, "max_completion_tokens": 9}, **options)
    assert json.loads(over.request(WORDY, "fine").body)["temperature"] == 0.5
    assert (
        json.loads(box(server, scores="labels", **options).request(PROMPT, "fine").body)[
            "max_tokens"
        ]
        == {128: 16, 5: 5}[most]
    )


@pytest.mark.parametrize(
    ("api", "choice", "text"),
    [
        ("chat", {"message": {"content": " as it came\n"}}, " as it came\n"),
        ("chat", {"message": {"content": None, "refusal": "I will not."}}, "I will not."),
        ("chat", {"message": {"content": "", "refusal": None}}, ""),
        ("chat", {"message": {"content": None}}, ""),
        ("completions", {"text": " as it came\n"}, " as it came\n"),
        ("completions", {"text": ""}, ""),
    ],
)
def test_a_refusal_or_nothing_is_an_answer_too(server, monkeypatch, api, choice, text):
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    reply = {"choices": [choice], "usage": usage}
    monkeypatch.setattr(_fault_http, "reply", lambda asked, picks: reply)
    books = Books(Caps())
    asked = box(server, api=api).billed(books.tills.open("a", 0, False))
    assert asked([WORDY], TEXTS[:1]).texts == ((text,),) and server.requests == 1
    assert [receipt.named for receipt in books.receipts] == [True] and len(books.rows) == 1


@pytest.mark.parametrize("choice", [{}, {"message": {}}, {"message": {"content": ["a", "part"]}}])
def test_a_reply_of_another_shape_is_no_answer(server, monkeypatch, choice):
    reply = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    monkeypatch.setattr(_fault_http, "reply", lambda asked, picks: reply)
    with pytest.raises(BoxError, match="a reply of another shape"):
        box(server, deadline=0.3)([WORDY], TEXTS[:1])


def test_words_survive_every_failure():
    faults = {kind: 0.05 for kind in ("503", "429", "timeout", "reset", "cut-json", "not-json")}
    with FaultServer(answer, {k: v for k, v in faults.items() if k in TRANSIENT}) as server:
        texts = [f"more {i}" for i in range(60)]
        (said,) = box(server, timeout=0.3)([WORDY], texts).texts
        assert server.requests > 60
    told = [answer(WORDY.template.replace("{text}", text)) for text in texts]
    assert list(said) == [max(row, key=row.get) for row in told]


def test_words_are_another_question_than_labels(server):
    (named,), (wordy,) = (box(server).split([p], TEXTS[:1]).atoms for p in (PROMPT, WORDY))
    assert named.key != wordy.key
    case = Case((WORDY,), tuple(TEXTS))
    for options in ({"reply_tokens": 64}, {"system": "x"}, {"extra": {"stop": ["."]}}):
        check_names(box(server), box(server, **options), case)
    check_names(box(server, scores="labels"), box(server, scores="labels", reply_tokens=17), case)


def test_typed_choices_give_no_words(server):
    typed = box(server, api="systemone")
    assert typed.gives == {"scores"}
    for ask in (lambda: typed.prepare(WORDY), lambda: typed([WORDY], TEXTS)):
        with pytest.raises(ConfigError, match="gives scores and no text, and the prompt has no"):
            ask()
    assert server.requests == 0


# --- requests ------------------------------------------------------------------------------------


def test_what_is_sent(server):
    asked = box(server, system="Be brief.", extra={"seed": 7})
    request = asked.request(PROMPT, "a “film”")
    asked([PROMPT], ["a “film”"])
    assert request.path == "/chat/completions" and server.log[-1].body == request.body
    assert json.loads(request.body) == {
        "model": "toy",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Review: a “film”\nIn one word, it was"},
        ],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
        "seed": 7,
    }


def test_azure_style_queries_are_kept(server, monkeypatch):
    asked = OpenaiHttp(server.url + "/?api-version=2024-10-21", "toy", deadline=5.0)
    seen, stream = [], asked.wire._client.stream
    monkeypatch.setattr(
        asked.wire._client, "stream", lambda *a, **k: seen.append(a[1]) or stream(*a, **k)
    )
    assert np.isfinite(asked([PROMPT], TEXTS[:1]).scores).all()
    assert seen == [server.url + "/chat/completions?api-version=2024-10-21"]


def test_what_changes_an_answer_changes_the_key(server):
    keys = set()
    for options in (
        {},
        {"api": "completions"},
        {"system": "x"},
        {"extra": {"seed": 1}},
        {"scores": "labels"},
    ):
        (atom,) = box(server, **options).split([PROMPT], TEXTS[:1]).atoms
        keys.add(atom.key)
    assert len(keys) == 5


def test_requests_run_side_by_side_up_to_the_limit(server):
    server.latency = 0.05
    began = time.monotonic()
    box(server, max_concurrency=4)([PROMPT], TEXTS)
    assert server.peak == 4 and time.monotonic() - began < 0.05 * len(TEXTS)


# --- failures ------------------------------------------------------------------------------------


def test_every_transient_failure_is_asked_again():
    with FaultServer(answer, evenly(0.3), seed=3) as server:
        asked = box(server, timeout=0.3, max_concurrency=8)
        texts = [f"more {i}" for i in range(150)]
        reply = asked([PROMPT], texts)
        assert server.requests > 180
        assert {seen.fault for seen in server.log} >= set(TRANSIENT)
    np.testing.assert_allclose(reply.scores[0], right(texts), atol=1e-6)


def test_a_server_that_never_answers_well_is_given_up_at_the_deadline():
    with FaultServer(answer, {"503": 1.0}) as server:
        began = time.monotonic()
        with pytest.raises(BoxError, match=r"no usable answer within 0\.5 s .*503"):
            box(server, deadline=0.5)([PROMPT], TEXTS)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_server_without_log_probabilities_ends_the_run_at_once(server, api, monkeypatch):
    asked, make = box(server, api=api, deadline=60.0), _fault_http.reply

    def without(body, picks):
        return make(body._replace(tops=None), picks)

    monkeypatch.setattr(_fault_http, "reply", without)
    began = time.monotonic()
    with pytest.raises(BoxError, match=r"gives no log-probabilities .*box\.scores = 'labels'"):
        asked([PROMPT], TEXTS[:1])
    assert server.requests == 1 and time.monotonic() - began < 5
    monkeypatch.setattr(_fault_http, "reply", make)
    asked([PROMPT], TEXTS[:1])
    # A server that gave them before may be back in a moment.
    once = iter([without])
    monkeypatch.setattr(_fault_http, "reply", lambda *sent: next(once, make)(*sent))
    assert np.isfinite(asked([PROMPT], TEXTS[1:2]).scores).all() and server.requests == 4


def test_a_host_that_is_not_there_is_named():
    with pytest.raises(BoxError, match=r"http://127\.0\.0\.1:9/v1 gave no .*cannot be reached"):
        OpenaiHttp("http://127.0.0.1:9/v1", "toy", deadline=0.3)([PROMPT], TEXTS[:1])


def test_a_missing_key_names_its_variable_and_a_key_is_never_told(monkeypatch):
    with FaultServer(answer, key="sk-right") as server:
        monkeypatch.delenv("MY_KEY", raising=False)
        with pytest.raises(BoxError, match=r"401.*no key: set \$MY_KEY"):
            box(server, key_env="MY_KEY")([PROMPT], TEXTS[:1])
        monkeypatch.setenv("MY_KEY", "sk-wrong-secret")
        with pytest.raises(BoxError, match=r"it got the key in \$MY_KEY") as caught:
            box(server, key_env="MY_KEY")([PROMPT], TEXTS[:1])
        assert "secret" not in str(caught.value)
        monkeypatch.setenv("MY_KEY", "sk-right")
        assert np.isfinite(box(server, key_env="MY_KEY")([PROMPT], TEXTS[:1]).scores).all()


def test_an_unknown_model_lists_what_there_is(server):
    with pytest.raises(BoxError, match=r"404.*models there: toy"):
        OpenaiHttp(server.url, "else", deadline=5.0)([PROMPT], TEXTS[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://here/v1"}, "box.url is 'ftp://here/v1'"),
        ({"url": "localhost:80"}, "must begin with http://"),
        ({"url": "http://user:pw@host/v1"}, "holds a user or password"),
        ({"deadline": 0.0}, "box.deadline is 0"),
        ({"max_concurrency": 0}, "max_concurrency is 0"),
        ({"requests_per_minute": 0.5}, "requests_per_minute is 0.5"),
        ({"reply_tokens": -1}, "box.reply_tokens is -1"),
        ({"top_logprobs": -1}, "box.top_logprobs is -1"),
        ({"prices": {"input": 1.0}}, "must give input and output"),
        ({"prices": {"input": -1.0, "output": 0.0}}, "not below 0"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        OpenaiHttp(**{"url": "http://127.0.0.1:9/v1", "model": "toy"} | options)


# --- money ---------------------------------------------------------------------------------------


class Books:
    """What tills record, in memory."""

    def __init__(self, caps):
        self.receipts, self.rows, self.lock = [], {}, threading.Lock()
        self.tills = Tills(caps, self.record, dict)

    def record(self, account, round, receipt, rows):
        with self.lock:
            self.receipts.append(receipt)
            self.rows |= rows


def test_every_request_is_on_the_books_with_its_price():
    books = Books(Caps())
    with FaultServer(answer, {"503": 0.3}, seed=1) as server:
        asked = box(server, prices={"input": 2.0, "output": 8.0})
        asked.billed(books.tills.open("a", 0, False))([PROMPT], TEXTS)
        assert len(books.receipts) == server.requests > len(TEXTS)
    good = [receipt for receipt in books.receipts if receipt.status == 200]
    assert len(good) == len(TEXTS) == len(books.rows)
    for receipt in books.receipts:
        price = (receipt.prompt_tokens * 2.0 + receipt.completion_tokens * 8.0) / 1e6
        assert receipt.usd == pytest.approx(price)
        assert (receipt.usd > 0) == (receipt.status == 200) and receipt.seconds > 0


@pytest.mark.parametrize("cap", ["usd", "tokens", "client_usd", "client_tokens"])
def test_a_cap_holds_under_concurrency(server, cap):
    server.latency = 0.02
    asked = box(server, max_concurrency=8, prices={"input": 1000.0, "output": 1000.0})
    (request,) = [asked.request(PROMPT, TEXTS[0])]
    limit = (len(request.body) + 1) * (1e-3 if "usd" in cap else 1) * 1.5
    books = Books(Caps(**{cap: int(limit) if "tokens" in cap else limit}))
    with pytest.raises(BudgetSpent, match=f"budget.{cap}"):
        asked.billed(books.tills.open("a", 0, True))([PROMPT], MANY)
    spent = sum(
        r.usd if "usd" in cap else r.prompt_tokens + r.completion_tokens for r in books.receipts
    )
    assert 0 < spent <= limit and len(books.receipts) == server.requests
    if cap.startswith("client"):  # another client still has its own
        asked.billed(books.tills.open("b", 0, True))([PROMPT], TEXTS[:1])


def test_a_cap_keeps_back_what_an_answer_in_words_may_take(server):
    asked = box(server)
    size = len(asked.request(WORDY, TEXTS[0]).body)
    for tokens in (size + 127, size + 128):
        tills = Books(Caps(tokens=tokens)).tills
        paid = asked.billed(tills.open("a", 0, True))
        if tokens < size + 128:
            with pytest.raises(BudgetSpent, match=r"budget\.tokens"):
                paid([WORDY], TEXTS[:1])
            assert server.requests == 0
        else:
            assert paid([WORDY], TEXTS[:1]).texts
