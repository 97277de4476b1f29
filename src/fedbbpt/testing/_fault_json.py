"""What the server of faults reads and writes: the JSON of three APIs.

OpenAI's chat completions and completions, and Anthropic's messages, as far as scoring labels needs
them: one token for each prompt, its log-probability and those of the likeliest others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

Tokens = Sequence[tuple[str, float]]

FORMS = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/messages": "messages",
}
NO_LABEL = (("???", -0.1), ("...", -2.5))
VALUES = {
    "null-logprobs": None,
    "zero-logprobs": 0.0,
    "minus-9999": -9999.0,
    "nan-logprobs": float("nan"),
}


class Refusal(Exception):
    """A request that cannot be served, with its status and OpenAI's code for it."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Asked(NamedTuple):
    """A request.

    Attributes:
        form: "chat", "completions" or "messages".
        model: as the client names it.
        texts: one for each reply that is wanted.
        tops: number of likeliest tokens to list; ``None``: no log-probabilities.
    """

    form: str
    model: str
    texts: tuple[str, ...]
    tops: int | None


class Pick(NamedTuple):
    """One reply: its text, its log-probability, and those of the likeliest tokens."""

    text: str
    value: float | None
    tops: list[tuple[str, float | None]]


def read(path: str, body: bytes, models: Sequence[str], most_tops: int) -> Asked:
    """A request's body.

    Raises:
        Refusal: it is not one that this server understands.
    """
    form = next((form for end, form in FORMS.items() if path.endswith(end)), None)
    if form is None:
        raise Refusal(404, f"there is no path {path}")
    try:
        sent = json.loads(body)
        # Azure's URL names the model.
        model = str(sent.get("model") or path.split("/deployments/")[-1].split("/")[0])
        texts, tops = _texts(form, sent), _tops(form, sent)
        copies = int(sent.get("n") or 1)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Refusal(400, f"the body is not understood: {type(error).__name__}") from error
    if model not in models:
        raise Refusal(404, f"The model `{model}` does not exist", "model_not_found")
    if tops is not None and not 0 <= tops <= most_tops:
        raise Refusal(400, f"top_logprobs is {tops}; it must be at most {most_tops}")
    if sent.get("stream"):
        raise Refusal(400, "this server does not stream")
    return Asked(form, model, tuple(text for text in texts for _ in range(copies)), tops)


def _texts(form: str, sent: dict[str, Any]) -> list[str]:
    if form == "completions":
        prompts = [sent["prompt"]] if isinstance(sent["prompt"], str) else list(sent["prompt"])
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise TypeError("prompt must be text")
        return prompts
    said = [message["content"] for message in sent["messages"]]
    if form == "messages":
        int(sent["max_tokens"])  # which this API insists on
        said = [*([sent["system"]] if sent.get("system") else []), *said]
    return ["\n".join(_plain(content) for content in said)]


def _plain(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in content)


def _tops(form: str, sent: dict[str, Any]) -> int | None:
    if form == "chat":
        return int(sent.get("top_logprobs") or 0) if sent.get("logprobs") else None
    wanted = sent.get("logprobs") if form == "completions" else None
    return None if wanted is None else int(wanted)


def spoil(fault: str, asked: Asked, listed: Sequence[Tokens]) -> list[Pick]:
    """The replies to a request, as a fault has them.

    Args:
        fault: its kind, or nothing.
        asked: the request.
        listed: for each text the tokens that may come next, the likeliest first.
    """
    if fault == "no-choices":
        return []
    picks = [_pick(NO_LABEL if fault == "no-label" else tokens, asked.tops) for tokens in listed]
    if fault == "wrong-count":
        values = [value for _, value in listed[0]]
        tokens = [token for token, _ in reversed(listed[0])]
        picks.insert(0, _pick(list(zip(tokens, values, strict=True)), asked.tops))
    if fault in VALUES:
        value = VALUES[fault]
        picks = [Pick(p.text, value, [(token, value) for token, _ in p.tops]) for p in picks]
    return picks


def _pick(tokens: Tokens, tops: int | None) -> Pick:
    text, value = tokens[0]
    return Pick(text, value, list(tokens[:tops]) if tops else [])


def reply(asked: Asked, picks: Sequence[Pick]) -> dict[str, Any]:
    """A reply's body; usage counts words, and one token for each reply."""
    words = sum(len(text.split()) for text in asked.texts)
    if asked.form == "messages":
        return {
            "id": "msg_0",
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": [{"type": "text", "text": pick.text} for pick in picks],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": words, "output_tokens": len(picks)},
        }
    chat = asked.form == "chat"
    make = _chat_choice if chat else _text_choice
    return {
        "id": "cmpl-0",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": asked.model,
        "choices": [
            {"index": i, **make(pick, asked.tops is not None), "finish_reason": "stop"}
            for i, pick in enumerate(picks)
        ],
        "usage": {
            "prompt_tokens": words,
            "completion_tokens": len(picks),
            "total_tokens": words + len(picks),
        },
    }


def _chat_choice(pick: Pick, listed: bool) -> dict[str, Any]:
    def entry(token: str, value: float | None) -> dict[str, Any]:
        return {"token": token, "logprob": value, "bytes": list(token.encode())}

    tops = [entry(*top) for top in pick.tops]
    content = [{**entry(pick.text, pick.value), "top_logprobs": tops}]
    return {
        "message": {"role": "assistant", "content": pick.text, "refusal": None},
        "logprobs": {"content": content, "refusal": None} if listed else None,
    }


def _text_choice(pick: Pick, listed: bool) -> dict[str, Any]:
    logprobs = {
        "tokens": [pick.text],
        "token_logprobs": [pick.value],
        "top_logprobs": [dict(pick.tops)],
        "text_offset": [0],
    }
    return {"text": pick.text, "logprobs": logprobs if listed else None}


def error(path: str, status: int, message: str, code: str | None = None) -> tuple[int, bytes]:
    """Status and body of a refusal, in the API's form."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "api_error")
    said: dict[str, Any] = {"type": kind, "message": message}
    if path.endswith("/messages"):
        return status, json.dumps({"type": "error", "error": said}).encode()
    return status, json.dumps({"error": {**said, "param": None, "code": code}}).encode()


def listing(models: Sequence[str]) -> dict[str, Any]:
    """The list of models."""
    entries = [{"id": m, "object": "model", "created": 0, "owned_by": "test"} for m in models]
    return {"object": "list", "data": entries}
