"""OpenAI's ``/v1/completions`` on a local language model: greedy, for prompts of text.

A causal model goes on behind the prompt; a masked one gives the likeliest token at its mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fedbbpt.black_box import AtomicBox
from fedbbpt.boxes import _causal, _masked
from fedbbpt.boxes.causal_lm import CausalLm
from fedbbpt.boxes.masked_lm import MaskedLm
from fedbbpt.service._around import Refused

NEUTRAL: dict[str, Any] = {
    "temperature": 0,
    "n": 1,
    "best_of": 1,
    "stream": False,
    "echo": False,
    "suffix": "",
    "logit_bias": {},
    "presence_penalty": 0,
    "frequency_penalty": 0,
}
"""Keys that would change the answer, with the only value that is taken."""


class Asked(BaseModel):
    """A request; keys not named here are ignored, unless they would change the answer."""

    model_config = ConfigDict(extra="allow")

    model: str
    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int = Field(default=16, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    stop: str | list[str] | None = None

    @property
    def prompts(self) -> list[Any]:
        """One or several."""
        return self.prompt if isinstance(self.prompt, list) else [self.prompt]

    @property
    def stops(self) -> list[str]:
        """Texts at which the answer ends, none of them empty."""
        listed = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in listed if text]


class Token(NamedTuple):
    """A token of the answer, and the likeliest ones in its place as text -> log-probability."""

    id: int
    logprob: float
    tops: dict[str, float]


class Completions:
    """Answers requests with a box's model.

    Args:
        box: any box; one without a language model of its own refuses every request.
    """

    def __init__(self, box: AtomicBox) -> None:
        self.box = box

    def refuse(self, asked: Asked) -> None:
        """Raise Refused for what the model cannot do; asked before anything is paid."""
        box = self.box
        if not isinstance(box, CausalLm | MaskedLm):
            raise Refused(f"{box.name} is no language model of this machine; use /v1/evaluate")
        if asked.model != box.name:
            raise Refused(f"there is no model '{asked.model}' here; there is '{box.name}'", 404)
        for key, value in (asked.model_extra or {}).items():
            if key in NEUTRAL and value is not None and value != NEUTRAL[key]:
                raise Refused(
                    f"{key} is {value!r}; this gateway gives the one likeliest answer, whole: "
                    f"leave {key} out or send {NEUTRAL[key]!r}"
                )
        for prompt in asked.prompts:
            if not isinstance(prompt, str):
                raise Refused("prompt must be a text or a list of texts, not token ids")
            if isinstance(box, MaskedLm) and box.vocabulary.masks(prompt) != 1:
                count = box.vocabulary.masks(prompt)
                raise Refused(f"prompt holds {count} masks; put {_masked.MASK} in it once")
            room = 1 if isinstance(box, MaskedLm) else asked.max_tokens
            length = len(self._ids(prompt)[0]) + room
            if length > box.network.limit:
                raise Refused(
                    f"prompt and max_tokens take {length} tokens; the model has room for "
                    f"{box.network.limit}"
                )

    def answer(self, asked: Asked) -> dict[str, Any]:
        """The whole reply; only one thread may ask."""
        choices, given, made = [], 0, 0
        for index, prompt in enumerate(asked.prompts):
            ids, place = self._ids(prompt)
            tokens, text, reason = self._complete(asked, ids, place)
            given, made = given + len(ids), made + len(tokens)
            choice = {"index": index, "text": text, "finish_reason": reason, "logprobs": None}
            if asked.logprobs is not None:
                choice["logprobs"] = self._listed(tokens, len(prompt))
            choices.append(choice)
        usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
        return {
            "id": "cmpl-fedbbpt",
            "object": "text_completion",
            "created": 0,
            "model": self.box.name,
            "choices": choices,
            "usage": usage,
        }

    def _ids(self, prompt: str) -> tuple[list[int], int]:
        """Token ids with the special ones, and the place whose next token, or mask, is asked."""
        words = self.box.vocabulary
        if isinstance(words, _masked.Words):
            own, slots = words.layout(prompt.replace("\0", " ") + "\0", "")
            ids = [*words.front, *own, *words.back]
            around = [*(0 for _ in words.front), *slots, *(0 for _ in words.back)]
            return ids, words.mask(ids, around)
        assert isinstance(words, _causal.Words)
        ids = [*words.front, *words.tokenise(prompt)] or [words.start]
        return ids, len(ids) - 1

    def _complete(self, asked: Asked, ids: list[int], place: int) -> tuple[list[Token], str, str]:
        """Tokens, their text and why they end."""
        box, tops = self.box, asked.logprobs or 0
        assert isinstance(box, CausalLm | MaskedLm)
        if isinstance(box, MaskedLm):
            row = (np.array(ids), None, None)
            with box.network.torch.inference_mode():
                kept = box.network.torch.tensor([[place]], device=box.network.device)
                logits = box.network.logits(box.network.batch([row]), kept)[0, 0]
            token = self._best(logits, tops)
            return [token], box.vocabulary.decode([token.id]), "stop"
        tokens: list[Token] = []
        whole, text, reason = box.vocabulary.decode(ids), "", "length"
        for logits in _walk(box.network, ids, asked.max_tokens, tokens):
            token = self._best(logits, tops)
            if token.id in _ends(box.network):
                return tokens, text, "stop"
            tokens.append(token)
            new = [t.id for t in tokens]
            said = box.vocabulary.decode([*ids, *new])
            # With what stands before it, since a tokenizer may keep a text's first space to itself.
            fits = said.startswith(whole)
            text = said.removeprefix(whole) if fits else box.vocabulary.decode(new)
            cuts = [text.index(stop) for stop in asked.stops if stop in text]
            if cuts:
                return tokens, text[: min(cuts)], "stop"
        return tokens, text, reason

    def _best(self, logits: Any, tops: int) -> Token:
        words, logp = self.box.vocabulary, logits.log_softmax(0)
        assert words is not None
        values, ids = logp.topk(min(len(logp), max(1, tops)))
        listed: dict[str, float] = {}
        for one, value in zip(ids.tolist()[:tops], values.tolist(), strict=False):
            listed.setdefault(words.decode([one]), value)
        return Token(int(ids[0]), float(values[0]), listed)

    def _listed(self, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
        """Log-probabilities in the shape of OpenAI's completions."""
        words = self.box.vocabulary
        assert words is not None
        texts, offsets = [words.decode([token.id]) for token in tokens], []
        for text in texts:
            offsets.append(offset)
            offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [token.tops for token in tokens],
            "text_offset": offsets,
        }


def _ends(network: _causal.Network) -> set[int]:
    """Tokens at which a model says that it has finished."""
    own = getattr(network.network, "generation_config", None)
    listed = getattr(own, "eos_token_id", None)
    many = listed if isinstance(listed, list) else [listed]
    return {one for one in (*many, network.tokenizer.eos_token_id) if one is not None}


def _walk(network: _causal.Network, ids: Sequence[int], count: int, done: Sequence[Token]) -> Any:
    """Logits (V,) of one next token after another; the caller appends what it chose to ``done``."""
    torch = network.torch
    cache = network.cache() if len(ids) + count <= network.window else None
    new = list(ids)
    for step in range(count):
        with torch.inference_mode():
            given = network.batch([(np.array(new), None, None)])
            if cache is not None and step:
                length = len(ids) + step
                given["attention_mask"] = given["attention_mask"].new_ones((1, length))
                given["position_ids"] = torch.tensor([[length - 1]], device=network.device)
            given |= {"use_cache": cache is not None}
            given |= {"past_key_values": cache} if cache is not None else {}
            kept = torch.tensor([[len(new) - 1]], device=network.device)
            logits = network.logits(given, kept)[0, 0]
        yield logits
        new = [done[-1].id] if cache is not None else [*ids, *(token.id for token in done)]
