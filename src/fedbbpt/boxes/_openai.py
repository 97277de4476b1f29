"""OpenAI's API as it is asked and read: chat, completions, or typed choices.

One prompted example is one request. Scores are log-probabilities of the label words as the next
token where the server gives them; where it does not, the label that its reply names. A label
that is not among the listed tokens is bounded by the least likely of them. A prompt without labels
is answered in words, and no log-probabilities are asked for.
"""

from __future__ import annotations

import json
import threading
from typing import Any, ClassVar, Literal

from fedbbpt.boxes._choices import Read, by_name, by_option, by_probability
from fedbbpt.boxes._limits import Limiter
from fedbbpt.boxes._remote import Remote, Usage, filled, price_of, sizes_of, text_of
from fedbbpt.boxes._wire import Request, Wire, bearer
from fedbbpt.errors import BoxError, ConfigError
from fedbbpt.types import RenderedPrompt, digest

PATHS = {"chat": "/chat/completions", "completions": "/completions", "systemone": "/systemone"}


class OpenaiApi(Remote):
    """A model that is asked in OpenAI's words; options as in ``openai_http``."""

    kind: ClassVar[str]
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
        reply_tokens: int = 0,
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
        if top_logprobs < 0:
            raise ConfigError(f"box.top_logprobs is {top_logprobs}; it must be at least 0")
        self.model, self.api, self.system = model, api, system
        self.worded = scores == "labels"
        self.tops = top_logprobs or (20 if api == "chat" else 5)
        self.extra = dict(extra or {})
        naming, self.written = sizes_of(reply_tokens)
        self.most = naming if self.worded else 1
        asked: list[Any] = []
        if api == "systemone":
            self.most, self.gives = 0, frozenset({"scores"})
        else:
            asked.append(self._body("\0", ()))
        self.price = price_of(prices, model)
        self.priced = self.price is not None
        limiter = Limiter(requests_per_minute or None, tokens_per_minute or None)
        self.wire = self.way(url, key_env, bearer, deadline, timeout, max_concurrency, limiter)
        self._gives = threading.Event()  # common to the copies of all accounts
        asked += [self._body("\0", ("\1",)), self.wire.url]
        mark = digest(json.dumps(asked, sort_keys=True)).hex()[:12]
        self.name = f"{self.kind}:{model}:{api}:{mark}"

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
            # Not of a refusal, which may name a label without meaning it.
            said = choice["message"]["content"] if self.api == "chat" else choice["text"]
            return by_name(prompt.labels, said or "")
        first = self._listed(choice)[0]
        if self.api == "chat":
            first = {top["token"]: top["logprob"] for top in first["top_logprobs"]}
        return by_probability(prompt.labels, first)

    def said(self, data: Any) -> str:
        """The text that a reply holds."""
        (choice,) = data["choices"]
        if self.api == "completions":
            return text_of(choice["text"])
        message = choice["message"]
        return text_of(message["content"]) or text_of(message.get("refusal"))

    def usage(self, data: Any) -> Usage:
        """What the reply says it took."""
        used = data["usage"]
        if self.api == "systemone":
            return Usage(used["input_tokens"], used["output_tokens"])
        return Usage(used["prompt_tokens"], used.get("completion_tokens", 0))

    def _listed(self, choice: dict[str, Any]) -> Any:
        """What a choice says of its tokens. A server that never said anything will not say more
        when it is asked again; one that did may be back in a moment.
        """
        key = "content" if self.api == "chat" else "top_logprobs"
        found = (choice.get("logprobs") or {}).get(key)
        if found is None and not self._gives.is_set():
            raise BoxError(
                f"{self.wire.url} gives no log-probabilities with {self.model}; set box.scores = "
                "'labels' and method.loss = 'error' to go by the label that a reply names, or ask "
                "fedbbpt doctor"
            )
        if found is not None:
            self._gives.set()
        return found

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
        body |= {"max_tokens": self.most if labels else self.written, "temperature": 0}
        return body | ({} if self.worded or not labels else listing) | self.extra
