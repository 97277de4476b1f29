"""What a chat asks of the simulated model, and the JSON of its replies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fedbbpt.testing._fault_json import Refusal
from fedbbpt.testing._simulated_writer import Demonstration

MOST_CHOICES = 128
FIELD = re.compile(r"^[ \t]*(input|output)[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE)
TOKEN = re.compile(r"\s*(?:\w{1,6}|[^\w\s])|\s+")
VARIATION = re.compile(
    r"\b(?:variations?|paraphrases?|rephrase|reword)\b.*\binstruction\b", re.IGNORECASE | re.DOTALL
)
SEVERAL = re.compile(r"\b(\d{1,3})\b(?:\s+\w+){0,2}\s+(?:instruction|variation)s\b", re.IGNORECASE)


class Asked(NamedTuple):
    """A request.

    Attributes:
        does: "follow", "propose" or "vary".
        instruction: what to follow, or to vary.
        text: the input to follow it on.
        shown: demonstrations to propose an instruction from.
        lines: number of instructions to write, one a line.
        choices: number of replies.
        varied: the replies may differ: the temperature is above 0.
        seed: the request's own, as text.
        max_tokens: of each reply; ``None``: as many as it takes.
        prompt_tokens: of all messages.
    """

    does: str
    instruction: str = ""
    text: str = ""
    shown: tuple[Demonstration, ...] = ()
    lines: int = 1
    choices: int = 1
    varied: bool = True
    seed: str = ""
    max_tokens: int | None = None
    prompt_tokens: int = 0


def read(body: bytes, models: Sequence[str]) -> Asked:
    """A request's body.

    Raises:
        Refusal: with the status that OpenAI's API would give it.
    """
    try:
        sent = json.loads(body)
        said = [(str(message["role"]), _words(message["content"])) for message in sent["messages"]]
        choices, temperature = _number(sent, "n", 1), float(_given(sent, "temperature", 1.0))
        most = _number(sent, "max_completion_tokens", _number(sent, "max_tokens", None))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Refusal(400, f"the body is not understood: {type(error).__name__}") from error
    if sent.get("model") not in models:
        raise Refusal(404, f"The model `{sent.get('model')}` does not exist", "model_not_found")
    if choices is None or not 1 <= choices <= MOST_CHOICES:
        raise Refusal(400, f"n is {choices}; it must be from 1 to {MOST_CHOICES}")
    if most is not None and most < 1:
        raise Refusal(400, f"max_tokens is {most}; it must be at least 1")
    if not 0 <= temperature <= 2:
        raise Refusal(400, f"temperature is {temperature}; it must be from 0 to 2")
    for unknown in ("stream", "logprobs", "tools"):
        if sent.get(unknown):
            raise Refusal(400, f"this model has no '{unknown}'")
    if not any(role == "user" for role, _ in said):
        raise Refusal(400, "there is no message of a user")
    return understand(said)._replace(
        choices=choices,
        varied=temperature > 0,
        seed=str(_given(sent, "seed", "")),
        max_tokens=most,
        prompt_tokens=sum(len(tokens(content)) for _, content in said),
    )


def understand(said: Sequence[tuple[str, str]]) -> Asked:
    """What messages, each a role and a text, ask for (the forms: module ``simulated_llm``)."""
    system = "\n".join(text for role, text in said if role in ("system", "developer")).strip()
    user = next(text for role, text in reversed(said) if role == "user").strip()
    before, shown, opened, after = fields(user)
    frame = f"{before}\n{after}"
    lines = min(max(int(found[1]), 1), MOST_CHOICES) if (found := SEVERAL.search(frame)) else 1
    if VARIATION.search(frame) and opened is not None:
        return Asked("vary", instruction=opened, lines=lines)
    if shown and opened is None and "instruction" in f"{system}\n{frame}".lower():
        return Asked("propose", shown=shown, lines=lines)
    if opened is not None:
        return Asked("follow", instruction=before or system, text=opened)
    return Asked("follow", instruction=system, text=user)


def fields(text: str) -> tuple[str, tuple[Demonstration, ...], str | None, str]:
    """What a message shows.

    Returns:
        The text before the first line that begins with ``Input:``; the pairs of such lines with
        ``Output:``; the last input if its output is missing or empty; what stands behind the last
        output, from the first empty line on (from the second line, where none is empty).
    """
    before, *parts = FIELD.split(text)
    names, bodies = [name.lower() for name in parts[::2]], parts[1::2]
    after = ""
    if bodies and names[-1] == "output":
        bodies[-1], _, after = bodies[-1].partition("\n\n" if "\n\n" in bodies[-1] else "\n")
    shown: list[Demonstration] = []
    opened: str | None = None
    for name, body in zip(names, bodies, strict=True):
        if name == "input":
            opened = body.strip()
        elif opened is not None and body.strip():
            shown.append((opened, body.strip()))
            opened = None
    return before.strip(), tuple(shown), opened, after.strip()


def texts(asked: Asked, write: Callable[[str], str]) -> list[str]:
    """One text for each choice, of as many lines as are wanted.

    Args:
        asked: the request.
        write: salt -> a line. The first line has none, so it is what the parts say when they are
            asked without a server.
    """

    def line(choice: int, number: int) -> str:
        which = (asked.seed, choice, number) if asked.varied else ("", 0, number)
        return write("" if which == ("", 0, 0) else "{} {} {}".format(*which))

    every = range(asked.lines)
    return ["\n".join(line(i, j) for j in every) for i in range(asked.choices)]


def tokens(text: str) -> list[str]:
    """The text in pieces, as they are billed: up to six letters or digits, or one mark, with the
    white space in front.
    """
    return TOKEN.findall(text)


def reply(asked: Asked, texts: Sequence[str], model: str, number: str) -> dict[str, Any]:
    """The body of a reply, each text cut at ``max_tokens``."""
    pieces = [tokens(text) for text in texts]
    kept = [piece[: asked.max_tokens] for piece in pieces]
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": "".join(cut), "refusal": None},
            "logprobs": None,
            "finish_reason": "stop" if len(cut) == len(piece) else "length",
        }
        for i, (piece, cut) in enumerate(zip(pieces, kept, strict=True))
    ]
    written = sum(len(cut) for cut in kept)
    usage = {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": asked.prompt_tokens + written,
    }
    # The same request has the same reply to the byte, so no clock is read.
    facts = {"id": number, "object": "chat.completion", "created": 0, "model": model}
    return facts | {"choices": choices, "usage": usage}


def _words(content: Any) -> str:
    """A message's content: text, or a list of parts that are text."""
    if not isinstance(content, str):
        if any(part["type"] != "text" for part in content):
            raise TypeError("a part is not text")
        content = "".join(part["text"] for part in content)
    content.encode()  # JSON may hold half a character, of which no digest can be made
    return str(content)


def _given(sent: dict[str, Any], name: str, default: Any) -> Any:
    return default if sent.get(name) is None else sent[name]


def _number(sent: dict[str, Any], name: str, default: int | None) -> int | None:
    value = _given(sent, name, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} is no whole number")
    return value
