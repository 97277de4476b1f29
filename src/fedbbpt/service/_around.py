"""The tuned prompt put around what a caller of an OpenAI-compatible API sends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedbbpt.boxes._openai import PATHS
from fedbbpt.boxes.openai_http import OpenaiHttp
from fedbbpt.errors import UsageError
from fedbbpt.types import RenderedPrompt

Body = dict[str, Any]

TOGETHER = (
    {"max_tokens", "max_completion_tokens"},
    {"logprobs", "top_logprobs"},
)
"""Keys of which a caller's one rules out all that tuning sent: APIs refuse some pairs."""


class Refused(UsageError):
    """A request that cannot be passed on.

    Attributes:
        status: the HTTP status to answer with.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def around(box: OpenaiHttp, prompt: RenderedPrompt, path: str, data: bytes) -> bytes:
    """The body to send on. What the caller leaves out is as in tuning, so that a caller who sets
    nothing sends the very bytes of tuning; what the caller sets is passed on.

    Args:
        box: what was tuned on.
        prompt: what was tuned.
        path: ``"/chat/completions"`` or ``"/completions"``, as the caller asked.
        data: the caller's body.

    Raises:
        Refused: there is no text to put the prompt around, or it was tuned for something else.
    """
    try:
        asked = json.loads(data)
    except ValueError as error:
        raise Refused(f"the body is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise Refused(f"the body is JSON of type {type(asked).__name__}; send an object")
    if path != PATHS[box.api]:
        raise Refused(f"the prompt was tuned on {PATHS[box.api]}; ask there instead of {path}")
    if asked.get("model", box.model) != box.model:
        raise Refused(
            f"there is no model {asked['model']!r} here; the prompt was tuned for '{box.model}'",
            404,
        )
    wrap = _chat if box.api == "chat" else _completion
    return json.dumps(wrap(box, prompt, asked), ensure_ascii=False).encode()


def _chat(box: OpenaiHttp, prompt: RenderedPrompt, asked: Body) -> Body:
    """The caller's last user message is the text; the messages around it stay where they are."""
    messages = asked.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise Refused("messages must be a list of objects with role and content")
    at = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=None)
    if at is None:
        raise Refused("messages holds no message of the user to put the tuned prompt around")
    text, put = _text(messages[at].get("content"))
    tuned = _tuned(box, prompt, text)
    *front, last = tuned["messages"]
    own = {**messages[at], **last, "content": put(last["content"])}
    changed = [*front, *messages[:at], own, *messages[at + 1 :]]
    return {**_both(tuned, asked), "messages": changed}


def _completion(box: OpenaiHttp, prompt: RenderedPrompt, asked: Body) -> Body:
    """The caller's prompt is the text; of several each is one."""
    given = asked.get("prompt")
    texts: list[Any] = given if isinstance(given, list) else [given]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise Refused("prompt must be a text or a list of texts, so that the tuned prompt fits")
    bodies = [_tuned(box, prompt, text) for text in texts]
    prompts = [body["prompt"] for body in bodies]
    return {
        **_both(bodies[0], asked),
        "prompt": prompts if isinstance(given, list) else prompts[0],
    }


def _tuned(box: OpenaiHttp, prompt: RenderedPrompt, text: str) -> Body:
    body: Body = json.loads(box.request(prompt, text).body)
    return body


def _both(tuned: Mapping[str, Any], asked: Mapping[str, Any]) -> Body:
    """The caller's keys over those of tuning."""
    out = {key for group in TOGETHER if group & asked.keys() for key in group}
    return {**{k: v for k, v in tuned.items() if k not in out}, **asked}


def _text(content: Any) -> tuple[str, Any]:
    """The text of a message, and what puts another in its place."""
    if isinstance(content, str):
        return content, lambda new: new
    parts = content if isinstance(content, list) else []
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
    if kinds.count("text") != 1 or not isinstance(parts[kinds.index("text")].get("text"), str):
        raise Refused("the user's last message must hold one text, so that the tuned prompt fits")
    place = kinds.index("text")
    before, after = parts[:place], parts[place + 1 :]
    return parts[place]["text"], lambda new: [*before, {**parts[place], "text": new}, *after]
