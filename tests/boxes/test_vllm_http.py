"""vLLM's request format: the documented fields, and the numbers that a model gives for them."""

import base64
import io
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.boxes.vllm_http import VllmHttp
from fedbbpt.errors import BoxError, ConfigError
from fedbbpt.types import RenderedPrompt

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LABELS = ("terrible", "great")
TEXTS = ("a fine film", "dull", "it was long")
TEMPLATE = "{text} It was"


class Server(ThreadingHTTPServer):
    """The two paths of vLLM that the box asks, in front of a plain transformers model.

    Fields as in vllm/entrypoints/openai/completion/protocol.py; vLLM itself needs a GPU.
    """

    def __init__(self, folder):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        self.log, self.lock = [], threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    def tokenize(self, body):
        coded = self.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"])
        return {"tokens": coded["input_ids"], "count": len(coded["input_ids"])}

    def complete(self, body):
        allowed = {"model", "prompt", "prompt_embeds", "max_tokens", "temperature", "logprobs",
                   "logprob_token_ids", "return_tokens_as_token_ids"}  # fmt: skip
        assert set(body) <= allowed and body["temperature"] == 0
        if body.get("prompt_embeds"):
            assert body["prompt"] is None
            raw = io.BytesIO(base64.b64decode(body["prompt_embeds"]))
            given = {"inputs_embeds": torch.load(raw, weights_only=True)[None]}
        else:
            ids = body["prompt"]
            if isinstance(ids, str):
                ids = self.tokenizer(ids)["input_ids"]
            given = {"input_ids": torch.tensor([ids])}
        prompted = next(iter(given.values())).shape[1]
        if "logprobs" not in body:
            assert "logprob_token_ids" not in body
            return self.goes_on(given, prompted, body["max_tokens"])
        assert body["max_tokens"] == 1 and body["logprobs"] >= 1
        with self.lock, torch.inference_mode():
            scores = self.model(**given).logits[0, -1].log_softmax(-1)
        tops = {f"token_id:{one}": float(scores[one]) for one in body["logprob_token_ids"]}
        logprobs = {"tokens": ["token_id:0"], "token_logprobs": [0.0], "top_logprobs": [tops]}
        used = {"prompt_tokens": prompted, "completion_tokens": 1}
        return {"choices": [{"index": 0, "text": "x", "logprobs": logprobs}], "usage": used}

    def goes_on(self, given, prompted, most):
        with self.lock, torch.inference_mode():
            mask = torch.ones(1, prompted, dtype=torch.long)
            ids = self.model.generate(
                **given, attention_mask=mask, do_sample=False, max_new_tokens=most
            )[0]
        new = ids[prompted if "input_ids" in given else 0 :]
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        used = {"prompt_tokens": prompted, "completion_tokens": len(new)}
        return {"choices": [{"index": 0, "text": text, "logprobs": None}], "usage": used}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.log.append((self.path, body))
        acts = {"/tokenize": self.server.tokenize, "/v1/completions": self.server.complete}
        data = json.dumps(acts[self.path](body)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    spec = spec_from_file_location("causal", Path(__file__).with_name("test_causal_lm.py"))
    causal = module_from_spec(spec)
    spec.loader.exec_module(causal)
    return causal.make_model("llama", tmp_path_factory.mktemp("vllm") / "model")


@pytest.fixture(scope="module")
def server(folder):
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def box(server, **options):
    options = {"deadline": 20.0, "reply_tokens": 8} | options
    return VllmHttp(f"http://127.0.0.1:{server.server_port}/v1", "tiny", **options)


def prompt(**options):
    return RenderedPrompt(TEMPLATE, LABELS, side="text", **options)


def local(folder):
    from fedbbpt.boxes.causal_lm import CausalLm

    return CausalLm(folder, dtype="float32", device="cpu", max_tokens=48)


def prompts(folder):
    """One of every kind; labels are single tokens, so that first token and label are the same."""
    hidden = local(folder).vocabulary.hidden
    rng = np.random.default_rng(0)
    rows = local(folder).vocabulary.layout(TEMPLATE.replace("{text}", "\0"), "")[0]
    return [
        prompt(),
        prompt(tokens=((30, 40),)),
        prompt(tokens=((30, 40),), place="after"),
        prompt(soft=(rng.normal(size=(len(rows), hidden)).astype(np.float32),)),
        prompt(soft=(rng.normal(size=(3, hidden)).astype(np.float32),), mode="insert"),
    ]


def first_tokens(folder, asked, text):
    """What plain transformers says of the labels' first tokens behind the very same input."""
    peer = local(folder)
    peer._choices = lambda labels: tuple((peer.vocabulary.label(one)[0],) for one in labels)
    return peer([asked], [text]).scores[0, 0]


@pytest.mark.parametrize("which", range(5))
def test_scores_are_those_of_the_same_model_here(server, folder, which):
    asked = prompts(folder)[which]
    reply = box(server, vocabulary=folder, max_tokens=48)([asked], TEXTS)
    for text, row in zip(TEXTS, reply.scores[0], strict=True):
        np.testing.assert_allclose(row, first_tokens(folder, asked, text), atol=1e-5)


@pytest.mark.parametrize("which", range(5))
def test_words_are_those_of_the_same_model_here(server, folder, which):
    """Text, tokens and soft prompts; the server is sent what it is sent for labels."""
    from fedbbpt.boxes.causal_lm import CausalLm

    asked = replace(prompts(folder)[which], labels=())
    here = CausalLm(folder, dtype="float32", device="cpu", max_tokens=48, reply_tokens=8)
    there = box(server, vocabulary=folder, max_tokens=48)
    # The server leaves a text's first space to the tokenizer, as vLLM does.
    said = [text.lstrip(" ") for text in here([asked], TEXTS).texts[0]]
    assert [text.lstrip(" ") for text in there([asked], TEXTS).texts[0]] == said
    _, body = server.log[-1]
    assert body["max_tokens"] == 8 and "logprobs" not in body
    assert box(server, reply_tokens=9).name != box(server).name


def test_text_needs_no_vocabulary(server, folder):
    reply = box(server)([prompt()], TEXTS)
    for text, row in zip(TEXTS, reply.scores[0], strict=True):
        np.testing.assert_allclose(row, first_tokens(folder, prompt(), text), atol=1e-5)
    paths = [path for path, _ in server.log]
    assert "/tokenize" in paths and box(server).accepts == {"text"}


def test_labels_that_begin_alike_are_refused(server, folder):
    alike = RenderedPrompt(TEMPLATE, ("great", "great fun"), side="text")
    with pytest.raises(ConfigError, match="begin with the same token"):
        box(server, vocabulary=folder).prepare(alike)


def test_a_folder_without_embeddings_is_refused(server, tmp_path):
    with pytest.raises(ConfigError, match="holds no input embeddings"):
        box(server, vocabulary=str(tmp_path))


def test_a_label_that_the_server_does_not_score_is_no_answer(server, monkeypatch):
    told = server.complete

    def one_less(body):
        return told({**body, "logprob_token_ids": body["logprob_token_ids"][:1]})

    monkeypatch.setattr(server, "complete", one_less)
    asked = VllmHttp(f"http://127.0.0.1:{server.server_port}/v1", "tiny", deadline=0.5)
    with pytest.raises(BoxError, match="lacks the log-probability of token"):
        asked([prompt()], TEXTS[:1])
