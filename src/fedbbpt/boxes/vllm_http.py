"""The server vLLM: log-probabilities of exactly the labels' tokens, and soft prompts.

Beyond what :mod:`fedbbpt.boxes.openai_http` asks for, vLLM's ``/v1/completions`` gives the
log-probabilities of tokens by id (``logprob_token_ids``) and, started with
``--enable-prompt-embeds``, takes the whole prompt as embeddings (``prompt_embeds``). For soft
prompts the client needs the model's tokenizer and input embeddings, no other weights.
"""

from __future__ import annotations

import base64
import io
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._causal import Words
from fedbbpt.boxes._choices import Read, by_id
from fedbbpt.boxes._layout import Layout
from fedbbpt.boxes._limits import Limiter
from fedbbpt.boxes._remote import WRITING, Remote, Usage, filled, price_of, sizes_of, text_of
from fedbbpt.boxes._wire import Again, Request, Wire, bearer
from fedbbpt.errors import ConfigError, MissingExtra
from fedbbpt.types import RenderedPrompt, digest

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


class VllmHttp(Remote):
    """A causal language model behind vLLM; one prompted example is one request.

    A label's score is the log-probability of its first token, so the labels' first tokens must
    differ. A prompt without labels is answered in words. Tokens and soft prompts need
    ``vocabulary``; text does not.

    Args:
        url: where the paths begin, such as ``http://127.0.0.1:8000/v1``.
        model: as the server names it.
        vocabulary: a folder with the same model's tokenizer and input embeddings.
        key_env: environment variable that holds the key, if the server wants one.
        max_tokens: a longer text is cut, the template never; only with ``vocabulary``.
        reply_tokens: most tokens of an answer in words, behind all that; the server must have room.
        max_concurrency: requests on the way at once; vLLM batches them itself.
        requests_per_minute, tokens_per_minute: limits; 0 for none.
        deadline: seconds for one request with all its tries.
        timeout: seconds for one try.
        prices: see :mod:`fedbbpt.boxes.openai_http`.

    Raises:
        ConfigError, MissingExtra: an option, the URL or the folder is at fault.
    """

    def __init__(
        self,
        url: str,
        model: str,
        vocabulary: str = "",
        key_env: str = "VLLM_API_KEY",
        max_tokens: int = 512,
        reply_tokens: int = WRITING,
        max_concurrency: int = 64,
        requests_per_minute: float = 0,
        tokens_per_minute: float = 0,
        deadline: float = 120.0,
        timeout: float = 30.0,
        prices: str | dict[str, float] = "",
    ) -> None:
        self.model, self.most, self.written = model, 1, sizes_of(reply_tokens)[1]
        self.price = price_of(prices, model)
        self.priced = self.price is not None
        limiter = Limiter(requests_per_minute or None, tokens_per_minute or None)
        self.wire = Wire(url, key_env, bearer, deadline, timeout, max_concurrency, limiter)
        self._labels = lru_cache(maxsize=256)(self._label_ids)
        cut = ""
        if vocabulary:
            self.vocabulary: Words | None = load_words(vocabulary)
            self.max_tokens = max_tokens
            self.accepts = frozenset({"text", "tokens", "soft"})
            self._laid = Layout(self.vocabulary, max_tokens)
            cut = f":{max_tokens}"
        mark = digest(self.wire.url, str(self.written)).hex()[:12]
        self.name = f"vllm_http:{model}:{mark}{cut}"

    def prepare(self, prompt: RenderedPrompt) -> None:
        """Refuse a template or labels of no use."""
        super().prepare(prompt)
        if self.vocabulary is not None:
            self._laid.check_room(prompt, len(prompt.labels[:1]))
            self._labels(prompt.labels)

    def request(self, prompt: RenderedPrompt, text: str) -> Request:
        """The exact bytes that ask for one prompted example."""
        body: dict[str, Any] = {"model": self.model, **self._prompt(prompt, text)}
        body |= {"max_tokens": self.longest(prompt), "temperature": 0}
        if prompt.labels:
            body |= {
                "logprobs": 1,
                "logprob_token_ids": list(self._labels(prompt.labels)),
                "return_tokens_as_token_ids": True,
            }
        return Request("/completions", json.dumps(body, ensure_ascii=False).encode())

    def read(self, prompt: RenderedPrompt, data: Any) -> Read:
        """The row that a reply holds."""
        (choice,) = data["choices"]
        listed = choice["logprobs"]["top_logprobs"][0]
        found = {int(token.removeprefix("token_id:")): value for token, value in listed.items()}
        return by_id(self._labels(prompt.labels), found)

    def said(self, data: Any) -> str:
        """The text that a reply holds."""
        (choice,) = data["choices"]
        return text_of(choice["text"])

    def usage(self, data: Any) -> Usage:
        """What the reply says it took."""
        used = data["usage"]
        return Usage(used["prompt_tokens"], used.get("completion_tokens", 0))

    def _prompt(self, prompt: RenderedPrompt, text: str) -> dict[str, Any]:
        if self.vocabulary is None:
            return {"prompt": filled(prompt, text)}
        (ids, places, soft), _ = self._laid.inputs(prompt, text, len(prompt.labels[:1]))
        if places is None or soft is None:
            return {"prompt": ids.tolist()}
        new = ids < 0
        rows = self.vocabulary.embed(np.where(new, 0, ids).tolist())
        rows[new] = 0.0
        rows[places] += soft
        return {"prompt": None, "prompt_embeds": packed(rows)}

    def _label_ids(self, labels: tuple[str, ...]) -> tuple[int, ...]:
        ids = [self._first(label) for label in labels]
        for i, one in enumerate(ids):
            if one in ids[:i]:
                raise ConfigError(
                    f"prompt.labels '{labels[ids.index(one)]}' and '{labels[i]}' begin with the "
                    "same token; give each class a word that begins differently"
                )
        return tuple(ids)

    def _first(self, label: str) -> int:
        """The first token of a label behind a text."""
        if self.vocabulary is not None:
            found = list(self.vocabulary.label(label))
        else:
            body = {"model": self.model, "prompt": f" {label}", "add_special_tokens": False}
            # This path stands beside /v1, not in it.
            root = self.wire.url.removesuffix("/v1")
            request = Request("/tokenize", json.dumps(body).encode())

            def ask(seconds: float) -> list[int]:
                answer = self.wire.post(request, seconds, root)
                self.wire.judge(answer)
                try:
                    return [int(one) for one in answer.data["tokens"]]
                except (LookupError, TypeError, ValueError) as error:
                    raise Again("/tokenize gave no tokens") from error

            found = self.wire.ask(ask, 0)
        if not found:
            raise ConfigError(f"prompt.labels has '{label}', which is no word to the model")
        return found[0]


def packed(rows: Array) -> str:
    """(L, H) embeddings as vLLM wants them: base64 of what ``torch.save`` writes.

    Written only; nothing of this kind is ever read here.
    """
    import torch

    file = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(rows, np.float32)), file)
    return base64.b64encode(file.getvalue()).decode()


def load_words(folder: str) -> Words:
    """Tokenizer and input embeddings of a model's folder, and nothing else of it.

    Raises:
        ConfigError: the folder has not got them; MissingExtra: transformers is not installed.
    """
    try:
        from safetensors import safe_open
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "hf") from error
    path = Path(folder)
    files = sorted(path.glob("*.safetensors"))
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                if name.endswith(EMBEDDINGS):
                    matrix = tensors.get_tensor(name).float().numpy()
                    try:
                        tokenizer = AutoTokenizer.from_pretrained(folder)
                    except (OSError, ValueError) as error:
                        raise ConfigError(
                            f"box.vocabulary '{folder}' has no tokenizer: {error}"
                        ) from error
                    return Words(tokenizer, matrix)
    raise ConfigError(
        f"box.vocabulary '{folder}' holds no input embeddings; it needs the model's *.safetensors"
    )
