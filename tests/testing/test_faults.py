"""Each fault is what its name says, seen without the client that it is meant for."""

import http.client
import json
import math
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from fedbbpt.errors import ConfigError, TransientError
from fedbbpt.testing.boxes import cases_for, check_box
from fedbbpt.testing.faults import KINDS, TRANSIENT, FaultServer, Faulty, evenly
from fedbbpt.testing.toys import ToyEncoder, toy_box
from fedbbpt.testing.wrappers import check_wrapper
from fedbbpt.wrappers.retrying import Retrying

# --- around a box -------------------------------------------------------------------------------

CASE = cases_for(toy_box())[0]
ATOMS = toy_box().split(*CASE).atoms
EVERY = range(len(ATOMS))
PLAIN = toy_box()(*CASE).scores


def test_without_faults_it_is_the_box():
    check_wrapper(Faulty)


def test_a_noisy_box_is_a_box():
    check_box(Faulty(ToyEncoder(), label_noise=0.4))


def outcomes(box, times=400):
    """What each of many calls brought."""
    for _ in range(times):
        try:
            yield box.evaluate(ATOMS, EVERY)
        except TransientError:
            yield None


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_each_share_is_kept(share):
    failed = [rows is None for rows in outcomes(Faulty(toy_box(), errors=share))]
    holes = [np.isnan(rows).all(1).mean() for rows in outcomes(Faulty(toy_box(), nans=share))]
    short = [len(rows) == len(ATOMS) - 1 for rows in outcomes(Faulty(toy_box(), counts=share))]
    waits = []
    slow = Faulty(toy_box(), slow=share, seconds=7, sleep=waits.append)
    assert len(list(outcomes(slow))) == 400
    assert set(waits) == {7}
    for seen in (failed, holes, short, [1] * len(waits) + [0] * (400 - len(waits))):
        assert np.mean(seen) == pytest.approx(share, abs=0.08)


def test_failures_go_by_content_and_count_and_not_by_order():
    """The third time that a call comes it fails or not, whatever else was asked between."""
    one, other = (Faulty(toy_box(), errors=0.5, nans=0.3, seed=3) for _ in range(2))
    alone = [None if rows is None else np.isnan(rows) for rows in outcomes(one, 20)]
    mixed = []
    for _ in range(20):
        mixed += [None if rows is None else np.isnan(rows) for rows in outcomes(other, 1)]
        try:
            other.evaluate(ATOMS, [0])
        except TransientError:
            pass
    # The single atom is one of the call's, so its own count of NaN differs.
    for left, right in zip(alone, mixed, strict=True):
        assert (left is None) == (right is None)
        assert left is None or np.array_equal(left[1:], right[1:])
    seeds = [
        [rows is None for rows in outcomes(Faulty(toy_box(), 0.5, seed=s), 50)] for s in (0, 1)
    ]
    assert seeds[0] != seeds[1]


def test_what_fails_half_the_time_comes_right_when_asked_again():
    box = Faulty(toy_box(), errors=0.5, nans=0.5)
    patient = Retrying(box, attempts=60, sleep=lambda _: None)
    np.testing.assert_array_equal(patient(*CASE).scores, PLAIN)


@pytest.mark.parametrize("box", [toy_box(), ToyEncoder()], ids=["pairs", "dual encoder"])
@pytest.mark.parametrize("case", [0, -1])
def test_label_noise_moves_the_best_score_and_nothing_else(box, case):
    prompts, examples = cases_for(box)[case].prompts, [f"text {i} is lovely" for i in range(300)]
    plain = box(prompts, examples).scores
    noisy = Faulty(box, label_noise=0.3, seed=5)
    scores = noisy(prompts, examples).scores
    wrong = scores.argmax(-1) != plain.argmax(-1)
    np.testing.assert_allclose(np.sort(scores), np.sort(plain), atol=1e-12)
    np.testing.assert_allclose(scores[~wrong], plain[~wrong], atol=1e-12)
    assert wrong.mean() == pytest.approx(0.3, abs=0.06)
    assert len({tuple(row) for row in wrong}) == len(prompts)  # each pair by itself
    # Undetectable: the same whenever it is asked, with whatever else.
    few = noisy(prompts[1:2], examples[7:40]).scores
    np.testing.assert_array_equal(few.argmax(-1), scores[1:2, 7:40].argmax(-1))
    # All classes but the best take their turn as the wrong answer.
    assert set(scores.argmax(-1)[wrong]) == {0, 1, 2}


def test_rows_in_a_ledger_are_without_noise():
    noisy = Faulty(toy_box(), label_noise=1.0)
    assert [atom.key for atom in noisy.split(*CASE).atoms] == [atom.key for atom in ATOMS]
    np.testing.assert_array_equal(noisy.evaluate(ATOMS, EVERY), toy_box().evaluate(ATOMS, EVERY))


@pytest.mark.parametrize("name", ["errors", "nans", "counts", "slow", "label_noise"])
@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(name, bad):
    with pytest.raises(ConfigError, match=f"{name} is .*; it must be a share from 0 to 1"):
        Faulty(toy_box(), **{name: bad})


# --- a server -----------------------------------------------------------------------------------

TOPS = {" great": -0.25, " awful": -1.75, " odd": -3.5}
CHAT = "/v1/chat/completions"


def answer(text):
    return {"awful": -0.1, "great": -2.5} if "dull" in text else TOPS


def chat(text, tops=2, **more):
    body = {"model": "toy", "messages": [{"role": "user", "content": text}], **more}
    return body if tops is None else {**body, "logprobs": True, "top_logprobs": tops}


def completion(prompt, **more):
    return {"model": "toy", "prompt": prompt, "max_tokens": 1, "logprobs": 3, **more}


def message(text):
    return {"model": "toy", "max_tokens": 4, "messages": [{"role": "user", "content": text}]}


REQUESTS = {
    "chat": (CHAT, chat("fine")),
    "completions": ("/v1/completions", completion("fine")),
    "messages": ("/v1/messages", message("fine")),
}


@contextmanager
def connected(server, timeout=5):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()


def post(server, path, body, headers=None, timeout=5):
    """(status, headers, bytes) of one request."""
    with connected(server, timeout) as connection:
        connection.request("POST", path, json.dumps(body), headers or {})
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()


def asked(server, path, body):
    status, _, data = post(server, path, body)
    assert status == 200, data
    return json.loads(data)


def test_a_chat_reply_has_openai_s_form():
    with FaultServer(answer) as server:
        reply = asked(server, CHAT, chat("one two three"))
        (choice,) = reply["choices"]
        assert choice["message"] == {"role": "assistant", "content": " great", "refusal": None}
        (token,) = choice["logprobs"]["content"]
        assert (token["token"], token["logprob"]) == (" great", -0.25)
        listed = [
            (top["token"], top["logprob"], bytes(top["bytes"])) for top in token["top_logprobs"]
        ]
        assert listed == [(" great", -0.25, b" great"), (" awful", -1.75, b" awful")]
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        assert (reply["usage"], choice["finish_reason"]) == (usage, "stop")
        assert asked(server, CHAT, chat("fine", None))["choices"][0]["logprobs"] is None
        parts = [
            {"role": "system", "content": "dull"},
            *chat([{"type": "text", "text": "x"}])["messages"],
        ]
        reply = asked(server, CHAT, {**chat(""), "messages": parts, "n": 2})
        assert [c["message"]["content"] for c in reply["choices"]] == ["awful", "awful"]


def test_a_completion_has_openai_s_form():
    with FaultServer(answer) as server:
        reply = asked(server, "/v1/completions", completion(["good", "dull"], logprobs=2))
        first, second = reply["choices"]
        assert (first["index"], first["text"], second["index"], second["text"]) == (
            0,
            " great",
            1,
            "awful",
        )
        assert first["logprobs"]["top_logprobs"] == [{" great": -0.25, " awful": -1.75}]
        assert second["logprobs"]["token_logprobs"] == [-0.1]
        assert asked(server, "/v1/completions", completion("x", logprobs=None))["choices"][0] == {
            "index": 0,
            "text": " great",
            "logprobs": None,
            "finish_reason": "stop",
        }


def test_a_message_has_anthropic_s_form():
    with FaultServer(answer) as server:
        reply = asked(server, "/v1/messages", {**message("x"), "system": "all is dull"})
        assert reply["content"] == [{"type": "text", "text": "awful"}]
        assert reply["usage"] == {"input_tokens": 4, "output_tokens": 1}
        status, _, data = post(server, "/v1/messages", {**message("x"), "model": "other"})
        assert (status, json.loads(data)["type"]) == (404, "error")
        without = {k: v for k, v in message("x").items() if k != "max_tokens"}
        assert post(server, "/v1/messages", without)[0] == 400


def test_models_are_listed_and_others_unknown():
    with FaultServer(answer, models=("a", "b")) as server, connected(server) as connection:
        connection.request("GET", "/v1/models")
        listed = json.loads(connection.getresponse().read())
        assert [model["id"] for model in listed["data"]] == ["a", "b"]
        status, _, data = post(server, CHAT, chat("x"))
        assert (status, json.loads(data)["error"]["code"]) == (404, "model_not_found")
        azure = "/openai/deployments/b/chat/completions?api-version=1"
        body = {k: v for k, v in chat("x").items() if k != "model"}
        assert asked(server, azure, body)["model"] == "b"
        assert server.log[-1].path == "/openai/deployments/b/chat/completions"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/nothing", {}, 404),
        (CHAT, [], 400),
        (CHAT, {"model": "toy"}, 400),
        (CHAT, chat("x", 21), 400),
        (CHAT, chat("x", stream=True), 400),
        ("/v1/completions", completion([1, 2]), 400),
        ("/v1/completions", completion(None), 400),
    ],
)
def test_what_it_does_not_understand_it_refuses(path, body, status):
    with FaultServer(answer) as server:
        assert post(server, path, body)[0] == status
        assert (server.log[0].status, server.log[0].answered) == (status, False)


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
def test_a_key_is_asked_for(header):
    with FaultServer(answer, key="s3cret") as server, connected(server) as connection:
        value = "Bearer s3cret" if header == "authorization" else "s3cret"
        assert post(server, CHAT, chat("x"), {header: value})[0] == 200
        assert post(server, CHAT, chat("x"), {header: value + "x"})[0] == 401
        assert post(server, CHAT, chat("x"))[0] == 401
        connection.request("GET", "/v1/models")
        assert connection.getresponse().status == 401


# --- its faults ---------------------------------------------------------------------------------


def always(kind, **options):
    return FaultServer(answer, {kind: 1.0}, **options)


@pytest.mark.parametrize("form", REQUESTS)
@pytest.mark.parametrize("kind", ["429", "429-retry-after", "500", "503"])
def test_statuses(kind, form):
    with always(kind, retry_after=0.25) as server:
        status, headers, data = post(server, *REQUESTS[form])
        assert status == int(kind[:3])
        assert headers["retry-after"] == ("0.25" if kind.endswith("after") else None)
        assert json.loads(data)["error"]["message"]


def test_a_timeout_sends_no_byte_and_ends_with_the_client():
    with always("timeout") as server:
        with pytest.raises(TimeoutError):
            post(server, CHAT, chat("x"), timeout=0.3)
        deadline = time.monotonic() + 5
        while server.in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (server.in_flight, server.log[0].status, server.log[0].answered) == (0, 0, False)


def raw(server):
    """A request over a bare socket, all but its reply read."""
    body = json.dumps(chat("x")).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    connection.sendall(head.encode() + body)
    return connection


def test_a_reset_tears_the_connection_down():
    with always("reset") as server, raw(server) as connection:
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_truncated_reply_ends_before_its_announced_length():
    with always("truncated") as server:
        with pytest.raises(http.client.IncompleteRead) as caught:
            post(server, CHAT, chat("x"))
        assert len(caught.value.partial) > 10
        assert caught.value.expected > 10


@pytest.mark.parametrize("kind", ["cut-json", "not-json"])
def test_whole_replies_that_are_no_json(kind):
    with always(kind) as server:
        status, headers, data = post(server, CHAT, chat("x"))
        assert (status, int(headers["content-length"])) == (200, len(data))
        assert data.startswith(b'{"id"' if kind == "cut-json" else b"<html>")
        with pytest.raises(ValueError):
            json.loads(data)


@pytest.mark.parametrize("form", REQUESTS)
def test_no_choices_and_one_too_many(form):
    listed = "content" if form == "messages" else "choices"
    with always("no-choices") as server:
        assert asked(server, *REQUESTS[form])[listed] == []
    with always("wrong-count") as server:
        wrong, right = asked(server, *REQUESTS[form])[listed]
        said = [c["message"]["content"] if form == "chat" else c["text"] for c in (wrong, right)]
        assert said == [" odd", " great"]
        if form == "completions":
            (tops,) = wrong["logprobs"]["top_logprobs"]
            assert tops == {" odd": -0.25, " awful": -1.75, " great": -3.5}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("null-logprobs", None),
        ("zero-logprobs", 0),
        ("minus-9999", -9999),
        ("nan-logprobs", math.nan),
    ],
)
def test_log_probabilities_that_are_none(kind, value):
    with always(kind) as server:
        (token,) = asked(server, CHAT, chat("x"))["choices"][0]["logprobs"]["content"]
        got = [token["logprob"], *(top["logprob"] for top in token["top_logprobs"])]
        logprobs = asked(server, *REQUESTS["completions"])["choices"][0]["logprobs"]
        got += logprobs["token_logprobs"] + list(logprobs["top_logprobs"][0].values())
        assert len(got) == 3 + 4
        assert [str(v) for v in got] == [str(float(value) if got[0] is not None else None)] * 7
        # Where none are asked for, nothing is wrong with the reply.
        plain = asked(server, CHAT, chat("x", None))["choices"][0]
        assert (plain["message"]["content"], plain["logprobs"]) == (" great", None)


@pytest.mark.parametrize("form", REQUESTS)
def test_a_reply_that_names_no_label(form):
    with always("no-label") as server:
        _, _, data = post(server, *REQUESTS[form])
        assert not any(label in data for label in (b"great", b"awful", b"odd"))
        assert json.loads(data)["usage"]


def test_slow_bytes_come_one_by_one_and_are_all_right():
    with always("slow", drip=0.3) as server, FaultServer(answer) as quick:
        whole = post(quick, CHAT, chat("x"))[2]
        began, pieces = time.monotonic(), []
        with raw(server) as connection:
            while not b"".join(pieces).endswith(whole):
                pieces.append(connection.recv(1 << 16))
        assert time.monotonic() - began >= 0.3
        assert len(pieces) > 20
        assert server.log[0].answered


def insist(server, i):
    """Ask until there is a usable answer."""
    for _ in range(60):
        try:
            data = json.loads(post(server, CHAT, chat(f"text {i}"), timeout=0.1)[2])
            tops = data["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            if tops[0]["logprob"] == -0.25:
                return
        except (OSError, ValueError, LookupError, http.client.HTTPException):
            pass
    raise AssertionError(f"text {i} never got its answer")


def test_all_kinds_come_at_their_share_and_pass_and_threads_change_nothing():
    seen = []
    for workers in (1, 8):
        with FaultServer(answer, evenly(0.6, KINDS), drip=0, retry_after=0) as server:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(partial(insist, server), range(150)))
            faults = {}
            for one in server.log:
                faults.setdefault(one.body, []).append(one.fault)
            seen.append(faults)
    every = [fault for faults in seen[0].values() for fault in faults]
    assert set(every) == {"", *KINDS}
    assert np.mean([bool(fault) for fault in every]) == pytest.approx(0.6, abs=0.08)
    assert len(seen[0]) == 150
    for body, faults in seen[0].items():
        # A machine under load may time out by itself and ask once more.
        for one, other in zip(faults, seen[1][body], strict=False):
            assert one == other


def test_kinds_and_shares_are_checked():
    assert sum(evenly(0.3).values()) == pytest.approx(0.3)
    assert set(evenly(0.3)) == set(TRANSIENT) < set(KINDS)
    with pytest.raises(ConfigError, match=r"no fault is of the kind '502'; .* known: 429, "):
        FaultServer(answer, {"502": 0.1})
    with pytest.raises(ConfigError, match=r"all faults is 1\.2"):
        FaultServer(answer, {"500": 0.6, "503": 0.6})
    with pytest.raises(ConfigError, match="label_noise is 2"):
        FaultServer(answer, label_noise=2)
    FaultServer(answer, evenly(1.0))


def test_label_noise_is_for_ever_and_by_text():
    with FaultServer(answer, label_noise=0.3) as server:
        texts = [f"text {i}" for i in range(200)]
        said = [
            [c["text"] for c in asked(server, "/v1/completions", completion(texts))["choices"]]
            for _ in range(2)
        ]
        assert said[0] == said[1]
        wrong = [text for text in said[0] if text != " great"]
        assert len(wrong) / 200 == pytest.approx(0.3, abs=0.08)
        assert set(wrong) == {" awful", " odd"}


# --- its books ----------------------------------------------------------------------------------


def test_the_log_tells_what_came_when_and_what_became_of_it():
    with FaultServer(answer, {"500": 0.5}, seed=1) as server:
        began = time.time()
        statuses = [post(server, CHAT, chat(f"text {i}"))[0] for i in range(20)]
        assert [seen.status for seen in server.log] == statuses
        assert {200, 500} == set(statuses)
        for i, seen in enumerate(server.log):
            assert seen.answered == (seen.status == 200) == (not seen.fault)
            assert json.loads(seen.body) == chat(f"text {i}")
            assert began <= seen.at <= time.time()
        assert server.requests == 20


def test_it_counts_how_many_are_served_at_once():
    with FaultServer(answer, latency=0.1) as server:
        began = time.monotonic()
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda i: post(server, CHAT, chat(str(i))), range(10)))
        assert 0.2 <= time.monotonic() - began < 2
        assert (server.peak, server.in_flight) == (5, 0)


def test_a_client_that_waits_for_each_reply_is_one_at_a_time():
    with FaultServer(answer) as server, connected(server) as connection:
        for i in range(100):
            connection.request("POST", CHAT, json.dumps(chat(str(i))))
            connection.getresponse().read()
        assert (server.peak, server.requests) == (1, 100)


def test_a_limit_is_enforced_and_reported(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("fedbbpt.testing._fault_http.time.monotonic", lambda: now[0])
    with FaultServer(answer, requests_per_minute=3) as server:
        left = []
        for _ in range(3):
            status, headers, _ = post(server, CHAT, chat("x"))
            assert (status, headers["x-ratelimit-limit-requests"]) == (200, "3")
            left.append(headers["x-ratelimit-remaining-requests"])
            now[0] += 10
        assert left == ["2", "1", "0"]
        status, headers, _ = post(server, CHAT, chat("x"))
        assert (status, headers["retry-after"], server.refused) == (429, "30", 1)
        assert headers["x-ratelimit-reset-requests"] == "30.000s"
        now[0] += 30
        assert post(server, CHAT, chat("x"))[0] == 200
        assert post(server, CHAT, chat("x"))[0] == 429
        now[0] += 10
        status, headers, _ = post(server, "/v1/messages", message("x"))
        assert (status, headers["anthropic-ratelimit-requests-remaining"]) == (200, "0")
        assert headers["anthropic-ratelimit-requests-reset"].endswith("Z")


def test_what_answer_raises_is_raised_at_the_end():
    with pytest.raises(ZeroDivisionError):
        with FaultServer(lambda text: {"x": 1 / 0}) as server:
            with pytest.raises((OSError, http.client.HTTPException)):
                post(server, CHAT, chat("x"))


def test_nothing_is_left_when_it_is_closed():
    before = threading.active_count()
    with FaultServer(answer, {"timeout": 0.5}) as server:
        left = [raw(server) for _ in range(6)]
        while server.requests < 6:
            time.sleep(0.01)
        assert threading.active_count() == before + 7
        port = server.port
    assert (threading.active_count(), server.in_flight) == (before, 0)
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    for connection in left:
        connection.close()
