"""The proxy as the official client sees it, and what the model's server behind it gets to see."""

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fedbbpt import artefact
from fedbbpt.boxes._openai import PATHS
from fedbbpt.boxes.openai_http import OpenaiHttp
from fedbbpt.cli.main import main
from fedbbpt.config import resolve
from fedbbpt.finished import open_run
from fedbbpt.record import write_json
from fedbbpt.rundir import CONFIG, RESULT
from fedbbpt.service._around import around
from fedbbpt.types import RenderedPrompt

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

SECRET, CALLERS = "sk-upstream-secret", "sk-for-callers"
PROMPT = RenderedPrompt('Review: "{text}"\nIt was ünd so on', ("bad", "good"), "text")
TEXT = 'she said "{text}"\n\\ 短い'
WORDS = ["It ", "was ", "göod"]
IMAGE = {"type": "image_url", "image_url": {"url": "data:,x"}}


class Upstream(BaseHTTPRequestHandler):
    """Keeps what it gets; answers, streams or fails as the request's ``user`` says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        data = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(data)
        self.server.seen.append((self.path, dict(self.headers.items()), data))
        if body.get("user") == "fail":
            fault = {"error": {"message": "slow down", "type": "rate", "code": "rate"}}
            return self.reply(429, fault, {"retry-after": "7", "x-ratelimit-limit-requests": "9"})
        if body.get("user") == "die":
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if body.get("stream"):
            return self.stream(body)
        choices = [self.choice(i, "".join(WORDS)) for i in range(self.count(body))]
        return self.reply(200, self.whole(choices))

    def count(self, body):
        return len(body["prompt"]) if isinstance(body.get("prompt"), list) else 1

    def whole(self, choices):
        return {"id": "1", "object": "x", "created": 1, "model": "toy", "choices": choices}

    def choice(self, index, text):
        message = {"role": "assistant", "content": text}
        return {"index": index, "finish_reason": "stop", "message": message, "text": text}

    def stream(self, body):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for word in WORDS:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            line = f"data: {json.dumps(self.whole([choice]))}\n\n".encode()
            self.wfile.write(line)
            self.wfile.flush()
            # The next piece goes out only once this one has reached the caller.
            assert self.server.go_on.acquire(timeout=10)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def reply(self, status, content, headers=()):
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **dict(headers)}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.seen, server.go_on = [], threading.Semaphore(0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def write_run(path, box):
    path.mkdir()
    tree = {
        "data": {"train": "train.csv"},
        "box": box,
        "prompt": {"template": PROMPT.template, "side": "text"},
    }
    (path / CONFIG).write_text(resolve(tree, path).toml(), encoding="utf-8")
    facts = {"text": [], "classes": ["no", "yes"], "box": "toy"}
    import numpy as np

    artefact.save(path / "prompt", PROMPT, np.zeros(1), facts)
    write_json(path / RESULT, {})
    return path


def url_of(upstream):
    return f"http://127.0.0.1:{upstream.server_address[1]}/v1?version=1"


class Served:
    """``fedbbpt serve-prompt`` in a process of its own."""

    def __init__(self, run, *args):
        self.run, self.args = open_run(run), args
        command = [sys.executable, "-m", "fedbbpt", "serve-prompt", run, "--port", "0", *args]
        self.process = subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, "UPSTREAM": SECRET, "CALLERS": CALLERS},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = self.process.stdout.readline()
        self.url = self.said.split()[-1]

    def client(self, key="unused"):
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0)

    def stop(self):
        """All that it printed; told to end, it ends well."""
        self.process.terminate()
        rest = self.process.communicate(timeout=20)[0]
        assert self.process.returncode == 0, rest
        return self.said + rest


@pytest.fixture(scope="module")
def chat(upstream, tmp_path_factory):
    box = {"kind": "openai_http", "url": url_of(upstream), "model": "toy", "key_env": "UPSTREAM"}
    path = tmp_path_factory.mktemp("chat") / "run"
    served = Served(write_run(path, {**box, "system": "Be brief."}))
    yield served
    assert SECRET not in served.stop()


@pytest.fixture(scope="module")
def completions(upstream, tmp_path_factory):
    box = {"kind": "openai_http", "url": url_of(upstream), "model": "toy", "key_env": "UPSTREAM"}
    path = tmp_path_factory.mktemp("completions") / "run"
    served = Served(write_run(path, {**box, "api": "completions"}), "--key-env", "CALLERS")
    yield served
    said = served.stop()
    assert SECRET not in said and CALLERS not in said


def last(upstream):
    path, headers, data = upstream.seen[-1]
    return path, {name.lower(): value for name, value in headers.items()}, data


def user(text):
    return {"role": "user", "content": text}


def test_a_bare_question_is_the_request_of_tuning_byte_for_byte(upstream, chat):
    reply = chat.client().chat.completions.create(model="toy", messages=[user(TEXT)])
    assert reply.choices[0].message.content == "".join(WORDS)
    path, headers, data = last(upstream)
    assert data == chat.run.box().request(PROMPT, TEXT).body
    assert path == "/v1/chat/completions?version=1"
    assert headers["authorization"] == f"Bearer {SECRET}" and headers["api-key"] == SECRET


def test_what_the_caller_sets_is_passed_on(upstream, chat):
    messages = [
        {"role": "system", "content": "Speak French."},
        user("first"),
        {"role": "assistant", "content": "oui"},
        {"role": "user", "name": "ann", "content": [IMAGE, {"type": "text", "text": TEXT}]},
        {"role": "assistant", "content": "It"},
    ]
    chat.client().chat.completions.create(
        model="toy",
        messages=messages,
        max_completion_tokens=50,
        temperature=0.5,
        seed=3,
        logprobs=False,
        extra_body={"top_k": 4},
    )
    body = json.loads(last(upstream)[2])
    tuned = PROMPT.template.replace("{text}", TEXT)
    assert body.pop("messages") == [
        {"role": "system", "content": "Be brief."},
        *messages[:3],
        {"role": "user", "name": "ann", "content": [IMAGE, {"type": "text", "text": tuned}]},
        messages[4],
    ]
    assert body == {
        "model": "toy",
        "max_completion_tokens": 50,
        "temperature": 0.5,
        "seed": 3,
        "logprobs": False,
        "top_k": 4,
    }


def test_a_stream_comes_piece_by_piece(upstream, chat):
    found = []
    with chat.client().chat.completions.create(
        model="toy", messages=[user(TEXT)], stream=True
    ) as stream:
        for piece in stream:
            found.append(piece.choices[0].delta.content)
            upstream.go_on.release()
    assert found == WORDS
    assert json.loads(last(upstream)[2])["stream"] is True


def test_errors_of_the_server_reach_the_caller(chat):
    client = chat.client()
    with pytest.raises(openai.RateLimitError, match="slow down") as caught:
        client.chat.completions.create(model="toy", messages=[user("x")], user="fail")
    headers = caught.value.response.headers
    assert headers["retry-after"] == "7" and headers["x-ratelimit-limit-requests"] == "9"
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="toy", messages=[user("x")], user="die")
    assert caught.value.status_code == 502 and "gave no reply" in str(caught.value)


def test_the_model_is_listed_and_no_other_is_served(chat, upstream):
    client, before = chat.client(), len(upstream.seen)
    assert [model.id for model in client.models.list()] == ["toy"]
    with pytest.raises(openai.NotFoundError, match=r"no model 'gpt' here; .* 'toy'"):
        client.chat.completions.create(model="gpt", messages=[user("x")])
    assert len(upstream.seen) == before


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "system", "content": "x"}], "no message of the user"),
        ([user([IMAGE])], "must hold one text"),
        ([user([{"type": "text", "text": "a"}] * 2)], "must hold one text"),
        ("hello", "list of objects"),
    ],
)
def test_requests_without_one_text(chat, upstream, messages, said):
    before = len(upstream.seen)
    with pytest.raises(openai.BadRequestError, match=said):
        chat.client().chat.completions.create(model="toy", messages=messages)
    assert len(upstream.seen) == before


def test_the_other_api_is_refused_by_name(chat):
    with pytest.raises(openai.BadRequestError, match="tuned on /chat/completions"):
        chat.client().completions.create(model="toy", prompt="x")


def test_what_is_no_json_and_whether_it_is_up(chat):
    import httpx2

    reply = httpx2.post(f"{chat.url}/chat/completions", content=b"{")
    assert reply.status_code == 400 and "not JSON" in reply.json()["error"]["message"]
    health = httpx2.get(chat.url.removesuffix("/v1") + "/healthz")
    assert health.json() == {"status": "ok", "model": "toy"}


def test_completions_take_one_text_or_many(upstream, completions):
    client, box = completions.client(CALLERS), completions.run.box()
    client.completions.create(model="toy", prompt=TEXT)
    assert last(upstream)[2] == box.request(PROMPT, TEXT).body
    reply = client.completions.create(model="toy", prompt=["a", TEXT], max_tokens=9)
    assert len(reply.choices) == 2
    body = json.loads(last(upstream)[2])
    assert body["prompt"] == [PROMPT.template.replace("{text}", t) for t in ("a", TEXT)]
    assert body["max_tokens"] == 9 and body["temperature"] == 0
    assert CALLERS not in str(last(upstream))
    with pytest.raises(openai.BadRequestError, match="a text or a list of texts"):
        client.completions.create(model="toy", prompt=[1, 2])


def test_a_key_is_asked_for_where_one_is_set(upstream, completions):
    before = len(upstream.seen)
    for ask in (
        lambda client: client.completions.create(model="toy", prompt="x"),
        lambda client: client.models.list(),
    ):
        with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
            ask(completions.client("sk-guessed"))
    assert len(upstream.seen) == before


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_an_instruction_stands_around_the_caller_s_text(api):
    box = OpenaiHttp("http://127.0.0.1:9/v1", "toy", api=api, system="Be brief." * (api == "chat"))
    prompt = RenderedPrompt("Write the plural.\n\nInput: {text}\nOutput:", (), "text")
    bare = {"chat": {"messages": [user(TEXT)]}, "completions": {"prompt": TEXT}}[api]
    sent = around(box, prompt, PATHS[api], json.dumps({"model": "toy", **bare}).encode())
    assert json.loads(sent) == json.loads(box.request(prompt, TEXT).body)
    longer = around(box, prompt, PATHS[api], json.dumps({**bare, "max_tokens": 900}).encode())
    assert json.loads(longer) == {**json.loads(sent), "max_tokens": 900}


# --- what is refused before anything is served ---------------------------------------------------


def refused(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, "argv", ["fedbbpt", "serve-prompt", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("fedbbpt: ") and said.count("\n") == 1
    return said


def test_runs_that_have_no_api_in_front(monkeypatch, capsys, tmp_path):
    said = refused(monkeypatch, capsys, write_run(tmp_path / "a", {"kind": "dual_encoder"}))
    assert "'dual_encoder'" in said and "fedbbpt predict" in said and "serve-model" in said
    box = {"kind": "openai_http", "url": "http://127.0.0.1:9", "model": "toy", "api": "systemone"}
    assert "'systemone'" in refused(monkeypatch, capsys, write_run(tmp_path / "b", box))


def test_an_open_door_needs_a_key(monkeypatch, capsys, tmp_path, upstream):
    box = {"kind": "openai_http", "url": url_of(upstream), "model": "toy"}
    run = write_run(tmp_path / "run", box)
    assert "--key-env" in refused(monkeypatch, capsys, run, "--host", "0.0.0.0")
    monkeypatch.delenv("NOBODY", raising=False)
    assert "$NOBODY is not set" in refused(monkeypatch, capsys, run, "--key-env", "NOBODY")
    taken = upstream.server_address[1]
    assert f"127.0.0.1:{taken}" in refused(monkeypatch, capsys, run, "--port", taken)
