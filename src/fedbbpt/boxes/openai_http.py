"""Any server that speaks OpenAI's API: chat, completions, or typed choices.

One prompted example is one request. Scores are log-probabilities of the label words as the next
token where the server gives them; where it does not, the label that its reply names. A label
that is not among the listed tokens is bounded by the least likely of them.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from fedbbpt.boxes._choices import Read, by_name, by_option, by_probability
from fedbbpt.boxes._limits import Limiter
from fedbbpt.boxes._remote import Remote, Usage, filled, price_of
from fedbbpt.boxes._wire import Request, Wire, bearer
from fedbbpt.errors import ConfigError
from fedbbpt.types import RenderedPrompt, digest

PATHS = {"chat": "/chat/completions", "completions": "/completions", "systemone": "/systemone"}


class OpenaiHttp(Remote):
    """A model behind an OpenAI-compatible server (OpenAI, vLLM, llama.cpp, Ollama, TGI, ...).

    Args:
        url: where the paths begin, such as ``http://127.0.0.1:8000/v1``; a query such as Azure's
            ``?api-version=...`` is kept.
        model: as the server names it.
        api: ``"chat"``; ``"completions"``, where the prompt is text to go on with; or
            ``"systemone"``, typed choices with a probability for each (transformers serve).
        scores: ``"logprobs"``, ``"labels"`` (read from the reply's words), or ``"auto"``:
            log-probabilities.
        key_env: environment variable that holds the key, if the server wants one.
        system: a system message for chat.
        top_logprobs: how many tokens the server shall list; 0 for the most that OpenAI gives, 20
            for chat and 5 for completions.
        reply_tokens: most tokens of a reply in words.
        extra: further keys of the request's body, as the server wants them.
        max_concurrency: requests on the way at once.
        requests_per_minute, tokens_per_minute: the account's limits; 0 for none.
        deadline: seconds for one request with all its tries.
        timeout: seconds for one try.
        prices: dollars for a million tokens, ``{input = ..., output = ...}``, or a TOML file with
            such a table for each model.

    Raises:
        ConfigError, MissingExtra: an option, the URL or the price table is at fault.
    """

    kind = "openai_http"
    way: ClassVar[type[Wire]] = Wire

    def __init__(
        self,
        url: str,
        model: str,
        api: Literal["chat", "completions", "systemone"] = "chat",
        scores: Literal["auto", "logprobs", "labels"] = "auto",
        key_env: str = "OPENAI_API_KEY",
        system: str = "",
        top_logprobs: int = 0,
        reply_tokens: int = 16,
        extra: dict[str, Any] | None = None,
        max_concurrency: int = 16,
        requests_per_minute: float = 0,
        tokens_per_minute: float = 0,
        deadline: float = 120.0,
        timeout: float = 30.0,
        prices: str | dict[str, float] = "",
    ) -> None:
        if scores == "labels" and api == "systemone":
            raise ConfigError("box.scores = 'labels' is not for box.api = 'systemone'")
        if top_logprobs < 0 or reply_tokens < 1:
            raise ConfigError(
                f"box.top_logprobs is {top_logprobs} and box.reply_tokens {reply_tokens}; they "
                "must be at least 0 and 1"
            )
        self.model, self.api, self.system = model, api, system
        self.worded = scores == "labels"
        self.tops = top_logprobs or (20 if api == "chat" else 5)
        self.extra = dict(extra or {})
        self.most = {True: reply_tokens, False: 0 if api == "systemone" else 1}[self.worded]
        self.price = price_of(prices, model)
        self.priced = self.price is not None
        limiter = Limiter(requests_per_minute or None, tokens_per_minute or None)
        self.wire = self.way(url, key_env, bearer, deadline, timeout, max_concurrency, limiter)
        asked = json.dumps([self._body("\0", ("\1",)), self.wire.url], sort_keys=True)
        self.name = f"{self.kind}:{model}:{api}:{digest(asked).hex()[:12]}"

    def request(self, prompt: RenderedPrompt, text: str) -> Request:
        """The exact bytes that ask for one prompted example."""
        body = self._body(filled(prompt, text), prompt.labels)
        return Request(PATHS[self.api], json.dumps(body, ensure_ascii=False).encode())

    def read(self, prompt: RenderedPrompt, data: Any) -> Read:
        """The row that a reply holds."""
        if self.api == "systemone":
            return by_option(prompt.labels, data["answers"]["label"]["probabilities"])
        (choice,) = data["choices"]  # one was asked for
        if self.worded:
            said = choice["message"]["content"] if self.api == "chat" else choice["text"]
            return by_name(prompt.labels, said or "")
        if self.api == "chat":
            listed = choice["logprobs"]["content"][0]["top_logprobs"]
            pairs = [(top["token"], top["logprob"]) for top in listed]
        else:
            pairs = list(choice["logprobs"]["top_logprobs"][0].items())
        return by_probability(prompt.labels, dict(pairs))

    def usage(self, data: Any) -> Usage:
        """What the reply says it took."""
        used = data["usage"]
        if self.api == "systemone":
            return Usage(used["input_tokens"], used["output_tokens"])
        return Usage(used["prompt_tokens"], used.get("completion_tokens", 0))

    def _body(self, content: str, labels: tuple[str, ...]) -> dict[str, Any]:
        if self.api == "systemone":
            choices = dict.fromkeys(labels)
            question = {"type": "choice", "criteria": choices}
            return {"model": self.model, "state": content, "questions": {"label": question}}
        body: dict[str, Any] = {"model": self.model}
        if self.api == "chat":
            system = [{"role": "system", "content": self.system}] if self.system else []
            body["messages"] = [*system, {"role": "user", "content": content}]
            listing = {"logprobs": True, "top_logprobs": self.tops}
        else:
            body["prompt"] = content
            listing = {"logprobs": self.tops}
        body |= {"max_tokens": self.most, "temperature": 0}
        return body | ({} if self.worded else listing) | self.extra
