"""A box that is asked in earnest and never sends anything: it counts, and makes its answers up.

A run with it goes through the very rounds, quotas, caches and caps of a real one. Only where the
search wanders is made up, and with it which of its later candidates are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox, Wrapper
from fedbbpt.boxes._remote import Remote
from fedbbpt.boxes.gateway_http import MOST, GatewayHttp
from fedbbpt.errors import BudgetSpent
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.random import stream
from fedbbpt.senses import Vocabulary
from fedbbpt.storage import Till
from fedbbpt.types import Atom, Grid, Picture, Receipt, RenderedPrompt, Reply, digest
from fedbbpt.writing import ASK, wanted

PLAIN, OTHER = 4.4, 2.0
"""Bytes per token of ASCII and of other text where the model's tokens are not known: GPT-2's take
4.3 to 4.6 in English reviews, news and tickets, 1.9 in Japanese."""
MESSAGE, REPLY = 4, 3
"""Tokens that mark a chat message, and those that open the reply, in OpenAI's chat format."""
EFFECT, NOISE = 1.0, 0.5
"""Spread of what a word of a prompt does to every example's scores, and to those of each. It
decides how often an election is won, and so how many snapshots of words differ."""
WORDS = frozenset({"content", "prompt", "system", "state", "text"})
"""Keys under which a request's body holds what the model reads."""
LENGTH = 62
"""Characters of an instruction; those written by people for instruction induction have as many."""
SAID = (
    "write give find list name change sort first last each every only word letter number sentence "
    "input output opposite similar"
).split()
"""Words that a made-up instruction is made of: no leak check blocks them in any order."""


class Cost(NamedTuple):
    """What one request is taken to be billed for, in tokens."""

    prompt: int
    completion: int


class Tally:
    """What all copies of a rehearsed box were asked.

    Attributes:
        calls: that carried anything; of a box over a wire each is one request or more.
        turns: how often one request had to wait for another of its call, each call's first
            included: the calls' time in units of a request's latency.
        requests: over a wire. tokens: billed for them.
        refused: keys of the caps that refused to pay.
    """

    def __init__(self) -> None:
        self.calls = self.turns = self.requests = self.tokens = 0
        self.refused: dict[str, None] = {}


class Rehearsed(Wrapper):
    """Counts what would be asked of a box; the box itself only makes the atoms.

    Args:
        inner: any leaf box.
        abreast: requests of one call that are on the way at the same time.
        right: a right answer to each input, where answers are words; a prompt is taken to get
            its own share of them right, and else to give an answer to any of them.
        longest: characters of an instruction that it writes, at the most.
        writer: the rehearsed box that writes instructions, if that is another one.
    """

    writer: Rehearsed | None

    def __init__(
        self,
        inner: AtomicBox,
        abreast: int = 1,
        right: Mapping[str, str] | None = None,
        longest: int = LENGTH,
        writer: Rehearsed | None = None,
    ) -> None:
        super().__init__(inner)
        self.abreast, self.tally, self.writer = abreast, Tally(), writer
        self.right, self.longest = dict(right or {}), min(longest, LENGTH)
        self._answers = sorted(set(self.right.values())) or [""]
        self._till: Till | None = None
        self._effects: dict[tuple[str, int], float] = {}
        self._sizes: dict[tuple[Any, ...], tuple[int, Cost]] = {}

    @property
    def wired(self) -> bool:
        """Whether the box sends requests."""
        return isinstance(self.inner, Remote | GatewayHttp)

    @property
    def billing(self) -> bool:
        """Whether requests are billed by the token."""
        return isinstance(self.inner, Remote)

    def billed(self, till: Till) -> AtomicBox:
        """The same rehearsal, paid by a till."""
        other = copy(self)
        other._till = till
        return other

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """The inner box's atoms, assembled to made-up scores."""
        grid = self.inner.split(prompts, examples)
        return Grid(grid.atoms, lambda _: self._reply(prompts, examples))

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """Nothing, with its price."""
        if wanted:
            self.tally.calls += 1
            try:
                self._send([atoms[i] for i in wanted])
            except BudgetSpent as spent:
                self.tally.refused[spent.key] = None
                raise
        return [np.zeros(1) for _ in wanted]

    def gradient(
        self, prompt: RenderedPrompt, examples: Sequence[Any], targets: Array
    ) -> tuple[float, Array]:
        """A slope of zeros."""
        self.tally.calls += 1
        return 1.0, np.zeros((len(prompt.soft), *prompt.soft[0].shape))

    # --- what it costs -----------------------------------------------------------------------

    def _send(self, asked: Sequence[Atom]) -> None:
        if isinstance(self.inner, Remote):
            for atom in asked:
                self._pay(self.inner, atom)
            self._count(len(asked))
        elif isinstance(self.inner, GatewayHttp):
            for start in range(0, len(asked), MOST):
                self._book(0, 0.0, Receipt(0.0, 200), asked[start : start + MOST])
            self._count(ceil(len(asked) / MOST))

    def _count(self, requests: int) -> None:
        self.tally.requests += requests
        self.tally.turns += ceil(requests / self.abreast)

    def _pay(self, box: Remote, atom: Atom) -> None:
        size, cost = self._size(box, *atom.data)
        # What the box itself keeps back: no token is shorter than a byte.
        reply = box.longest(atom.data[0])
        usd, most = (box.price.of(*cost), box.price.of(size, reply)) if box.price else (0.0, 0.0)
        receipt = Receipt(0.0, 200, cost.prompt, cost.completion, usd)
        self._book(size + reply, most, receipt, [atom])
        self.tally.tokens += sum(cost)

    def _size(self, box: Remote, prompt: RenderedPrompt, text: str) -> tuple[int, Cost]:
        """Bytes and tokens of a request; those of a soft prompt are the same for all its points."""
        soft = tuple(matrix.shape for matrix in prompt.soft)
        key = (prompt.template, prompt.tokens, soft, text)
        if key not in self._sizes:
            body = box.request(prompt, text).body
            replies = prompt.labels or (self._said(prompt, text),)
            cost = cost_of(body, replies, box.longest(prompt), box.vocabulary)
            if box.max_tokens:  # the box cuts what is longer
                cost = cost._replace(prompt=min(cost.prompt, box.max_tokens))
            self._sizes[key] = len(body), cost
        return self._sizes[key]

    def _book(self, tokens: int, usd: float, receipt: Receipt, atoms: Sequence[Atom]) -> None:
        if self._till is not None:
            hold = self._till.reserve(tokens, usd)
            self._till.settle(hold, receipt, {atom.key: np.zeros(1) for atom in atoms})

    # --- what it says ------------------------------------------------------------------------

    def _reply(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Reply:
        if not prompts:
            return Reply(np.zeros((0, len(examples), 0)), self._own(examples))
        if not prompts[0].labels and prompts[0].side != "image":
            texts = tuple(tuple(self._said(p, x) for x in examples) for p in prompts)
            return Reply(np.zeros((len(prompts), len(examples), 0)), texts=texts)
        known = self._own(examples) if "classes" in self.gives and len(prompts) == 1 else None
        return Reply(np.array([self._scores(prompt, examples) for prompt in prompts]), known)

    def _own(self, examples: Sequence[Any]) -> Array:
        """(B, H): embeddings, or log-probabilities of the model's own classes."""
        rows = [_normal(_told(example), self.hidden) for example in examples]
        return log_softmax(np.array(rows).reshape(-1, self.hidden))

    def _said(self, prompt: RenderedPrompt, example: Any) -> str:
        """An answer in words, or as many instructions as are asked for, a line each."""
        seen = f"{prompt.keys[0].hex()} {_told(example)}"
        if prompt.template == ASK:
            every = range(wanted(example))
            return "\n".join(_instruction(f"{seen} {i}", self.longest) for i in every)
        right = self.right.get(example) if isinstance(example, str) else None
        if right is not None and _share(seen) < _share(prompt.keys[0].hex()):
            return right
        return self._answers[int(_share(f"other {seen}") * len(self._answers))]

    def _scores(self, prompt: RenderedPrompt, examples: Sequence[Any]) -> Array:
        """(B, C): the words of a prompt add up, as they do in a real search, under some noise."""
        classes = range(len(prompt.labels))
        if not examples or not classes:
            return np.zeros((len(examples), len(classes)))
        return log_softmax(np.array([self._class(prompt, c, examples) for c in classes]).T)

    def _class(self, prompt: RenderedPrompt, which: int, examples: Sequence[Any]) -> Array:
        """(B,) of one class; where nothing that the class sees has changed, neither have they."""
        words = [*prompt.template.split(), *map(str, prompt.tokens_of(which))]
        effect = sum(self._effect(word, which) for word in words)
        seen = f"{prompt.keys[which].hex()} {which} {_told(examples[0])}"
        return effect + NOISE * _normal(seen, len(examples))

    def _effect(self, word: str, which: int) -> float:
        if (word, which) not in self._effects:
            self._effects[word, which] = EFFECT * float(_normal(f"{which} {word}", 1)[0])
        return self._effects[word, which]


def _share(name: str) -> float:
    """A number in [0, 1)."""
    return int.from_bytes(digest(name)[:4], "big") / 2**32


def _instruction(name: str, longest: int) -> str:
    """One that nobody else has."""
    text = "Made-up instruction"
    for step in range(LENGTH):
        text += f" {SAID[int(_share(f'{name} {step}') * len(SAID))]}"
    return text[:longest].strip()


def _told(example: Any) -> str:
    return example.key.hex() if isinstance(example, Picture) else repr(example)


@lru_cache(maxsize=1 << 12)
def _normal(name: str, size: int) -> Array:
    return stream(0, "rehearsal", client=name).standard_normal(size)


def cost_of(body: bytes, labels: Sequence[str], most: int, vocabulary: Vocabulary | None) -> Cost:
    """Tokens of a request by its bytes, and of a reply that names a label.

    Args:
        body: the request, JSON.
        labels: a reply in words is taken to be one of them; of one in words of its own, that.
        most: tokens of a reply, at the most.
        vocabulary: the model's tokens, where they are known.
    """
    sent = json.loads(body)
    messages = len(sent.get("messages", ()))
    prompt = sum(_tokens(text, vocabulary) for text in _texts(sent))
    prompt += MESSAGE * messages + REPLY * bool(messages)
    if vocabulary is not None:
        prompt += len(sent.get("prompt_embeds", "")) * 3 / 4 / (4 * vocabulary.hidden)
    named = sum(_tokens(label, vocabulary) for label in labels) / max(1, len(labels))
    return Cost(round(prompt), min(most, round(named) + 1))


def _texts(sent: Any) -> list[str | list[int]]:
    """All that the model reads, as text or as tokens."""
    if isinstance(sent, list):
        return [text for part in sent for text in _texts(part)]
    if not isinstance(sent, dict):
        return []
    own = [value for key, value in sent.items() if key in WORDS and _is_read(value)]
    return own + [text for value in sent.values() for text in _texts(value)]


def _is_read(value: Any) -> bool:
    ids = isinstance(value, list) and all(isinstance(one, int) for one in value)
    return isinstance(value, str) or ids


def _tokens(text: str | list[int], vocabulary: Vocabulary | None) -> float:
    if isinstance(text, list):
        return len(text)
    if vocabulary is not None:
        return len(vocabulary.tokenise(text))
    plain = sum(map(str.isascii, text))
    return plain / PLAIN + (len(text.encode()) - plain) / OTHER
