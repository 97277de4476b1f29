"""Anthropic's API: no log-probabilities, so the score is the label that the reply names.

A prompt without labels is answered in words. With labels, take ``method.loss = "error"``: all that
is known of a reply is whether it is right.
"""

from __future__ import annotations

import json
from typing import Any

from fedbbpt.boxes._choices import Read, by_name
from fedbbpt.boxes._limits import Limiter
from fedbbpt.boxes._remote import Remote, Usage, filled, price_of, sizes_of, text_of
from fedbbpt.boxes._wire import Request, Wire
from fedbbpt.types import RenderedPrompt, digest

VERSION = "2023-06-01"


class AnthropicHttp(Remote):
    """A model behind Anthropic's Messages API; one prompted example is one request.

    Args:
        model: as the API names it.
        url: where the paths begin.
        key_env: environment variable that holds the key.
        system: a system prompt.
        reply_tokens: most tokens of a reply; 0 for 16 where it names a label and 128 where the
            prompt has no labels.
        extra: further keys of the request's body.
        max_concurrency: requests on the way at once.
        requests_per_minute, tokens_per_minute: the account's limits; 0 for none.
        deadline: seconds for one request with all its tries.
        timeout: seconds for one try.
        prices: dollars for a million tokens, ``{input = ..., output = ...}``, or a TOML file with
            such a table for each model.

    Raises:
        ConfigError, MissingExtra: an option, the URL or the price table is at fault.
    """

    def __init__(
        self,
        model: str,
        url: str = "https://api.anthropic.com/v1",
        key_env: str = "ANTHROPIC_API_KEY",
        system: str = "",
        reply_tokens: int = 0,
        extra: dict[str, Any] | None = None,
        max_concurrency: int = 8,
        requests_per_minute: float = 0,
        tokens_per_minute: float = 0,
        deadline: float = 120.0,
        timeout: float = 30.0,
        prices: str | dict[str, float] = "",
    ) -> None:
        self.model, self.system, self.extra = model, system, dict(extra or {})
        self.most, self.written = sizes_of(reply_tokens)
        self.price = price_of(prices, model)
        self.priced = self.price is not None
        limiter = Limiter(requests_per_minute or None, tokens_per_minute or None)
        self.wire = Wire(url, key_env, _headers, deadline, timeout, max_concurrency, limiter)
        bodies = [self._body("\0", most) for most in (self.most, self.written)]
        asked = json.dumps([*bodies, self.wire.url], sort_keys=True)
        self.name = f"anthropic_http:{model}:{digest(asked).hex()[:12]}"

    def request(self, prompt: RenderedPrompt, text: str) -> Request:
        """The exact bytes that ask for one prompted example."""
        body = self._body(filled(prompt, text), self.longest(prompt))
        return Request("/messages", json.dumps(body, ensure_ascii=False).encode())

    def read(self, prompt: RenderedPrompt, data: Any) -> Read:
        """The row that a reply holds."""
        (said,) = [part["text"] for part in data["content"] if part["type"] == "text"]
        return by_name(prompt.labels, said)

    def said(self, data: Any) -> str:
        """The text that a reply holds; one that ends its turn at once holds no part."""
        parts = (part for part in data["content"] if part["type"] == "text")
        return "".join(text_of(part["text"]) for part in parts)

    def usage(self, data: Any) -> Usage:
        """What the reply says it took."""
        return Usage(data["usage"]["input_tokens"], data["usage"]["output_tokens"])

    def _body(self, content: str, most: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": most,
            "temperature": 0,
            "messages": [{"role": "user", "content": content}],
        }
        return body | ({"system": self.system} if self.system else {}) | self.extra


def _headers(key: str) -> dict[str, str]:
    return {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})
