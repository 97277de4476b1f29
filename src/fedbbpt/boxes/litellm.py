"""Any provider that the library litellm knows, asked for chat completions.

For providers whose API is not OpenAI's. The library is imported only where this box is named: it
is large, and by default it fetches a price list when it is imported, which is switched off here.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, ClassVar, Literal

from fedbbpt.boxes._openai import OpenaiApi
from fedbbpt.boxes._wire import Again, Answer, Request, Wire
from fedbbpt.errors import MissingExtra

PLACE = "https://litellm"


class _Library(Wire):
    """Sends by way of the library; its errors are read as the statuses that they stand for."""

    def __init__(self, *args: Any) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        try:
            import litellm
        except ImportError as error:
            raise MissingExtra("litellm", "litellm") from error
        litellm.telemetry = False
        litellm.suppress_debug_info = True
        self._library: Any = litellm
        super().__init__(*args)

    def _exchange(self, method: str, base: str, request: Request, seconds: float) -> Answer:
        if method != "POST":
            raise Again("the library lists no models")
        sent, began = json.loads(request.body), time.monotonic()
        if self.url != PLACE:
            sent["api_base"] = self.url
        if self._key:
            sent["api_key"] = self._key
        try:
            reply = self._library.completion(**sent, timeout=seconds, max_retries=0, num_retries=0)
        except Exception as error:
            status = int(getattr(error, "status_code", 0) or 0)
            if not status:
                raise Again(f"{type(error).__name__}: {self.clean(str(error))}") from error
            response = getattr(error, "response", None)
            named = dict(getattr(response, "headers", None) or {})
            said = {"error": {"message": f"{type(error).__name__}: {error}"}}
            return Answer(status, said, named, time.monotonic() - began)
        return Answer(200, reply.model_dump(), {}, time.monotonic() - began)


class Litellm(OpenaiApi):
    """A chat model by litellm's name for it, such as ``"bedrock/..."``.

    Args:
        model: as litellm names it, provider first.
        url: another place than the provider's own.
        scores, system, top_logprobs, reply_tokens, extra, max_concurrency, requests_per_minute,
            tokens_per_minute, deadline, timeout, prices: see the box
            ``openai_http``.
        key_env: environment variable that holds the key; empty where the library reads the
            provider's own variables itself.

    Raises:
        ConfigError, MissingExtra: an option is at fault, or litellm is not installed.
    """

    kind = "litellm"
    way: ClassVar[type[Wire]] = _Library

    def __init__(
        self,
        model: str,
        url: str = PLACE,
        scores: Literal["auto", "logprobs", "labels"] = "auto",
        key_env: str = "",
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
        super().__init__(
            url,
            model,
            scores=scores,
            key_env=key_env,
            system=system,
            top_logprobs=top_logprobs,
            reply_tokens=reply_tokens,
            extra=extra,
            max_concurrency=max_concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            deadline=deadline,
            timeout=timeout,
            prices=prices,
        )
