"""What boxes over the wire share: one prompted example is one request, paid by a till."""

from __future__ import annotations

import threading
import time
import tomllib
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import CancelledError
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.boxes._choices import Read
from fedbbpt.boxes._forms import TEXT_GAP as GAP
from fedbbpt.boxes._forms import Pairs, check_asked
from fedbbpt.boxes._wire import Again, Answer, Request, Wire
from fedbbpt.boxes._written import seal
from fedbbpt.errors import ConfigError
from fedbbpt.storage import Hold, Till
from fedbbpt.types import Atom, Grid, Receipt, RenderedPrompt

NAMING, WRITING = 16, 128
"""Most tokens of a reply that names a label, and of one in words (as InstructZero has it)."""
BYTES_PER_TOKEN = 3.0
"""For the limiter, which is corrected by each reply; English has four."""


class Usage(NamedTuple):
    """Tokens that a reply says it took."""

    prompt: int
    completion: int


class Price(NamedTuple):
    """Dollars for a million tokens."""

    input: float
    output: float

    def of(self, prompt: float, completion: float) -> float:
        """Dollars for so many tokens."""
        return (prompt * self.input + completion * self.output) / 1e6


class Remote(AtomicBox):
    """A model behind an API that takes text and bills by the token.

    A subclass says what to send (:meth:`request`) and how to read the reply (:meth:`read`, or
    :meth:`said` where the prompt has no labels). A model that declines has answered too.

    Attributes:
        most: tokens of a reply to a prompt with labels.
        written: tokens of a reply in words.
    """

    accepts = frozenset({"text"})
    sides = frozenset({"text"})
    gives = frozenset({"scores", "text"})
    steady = True
    wire: Wire
    price: Price | None
    most: int
    written: int
    _till: Till | None = None

    @abstractmethod
    def request(self, prompt: RenderedPrompt, text: str) -> Request:
        """The exact bytes that ask for one prompted example."""

    @abstractmethod
    def read(self, prompt: RenderedPrompt, data: Any) -> Read:
        """The row that a reply holds.

        Raises:
            Again: it holds none.
            LookupError, TypeError, ValueError: it is not shaped as the API says.
        """

    @abstractmethod
    def said(self, data: Any) -> str:
        """The text that a reply holds, as it came; of a refusal what it says, if anything.

        Raises:
            LookupError, TypeError, ValueError: it is not shaped as the API says.
        """

    @abstractmethod
    def usage(self, data: Any) -> Usage:
        """What the reply says it took; raises as :meth:`read`."""

    def billed(self, till: Till) -> AtomicBox:
        """The same box with a till; connections and limits stay common."""
        other = copy(self)
        other._till = till
        return other

    def at_length(self, tokens: int) -> AtomicBox:
        """The same box with longer replies in words; connections and limits stay common."""
        if self.written >= tokens:
            return self
        other = copy(self)
        other.written, other.name = tokens, f"{self.name}:{tokens}"
        vars(other).pop("form", None)  # which is made of the name
        return other

    @cached_property
    def form(self) -> Pairs:
        """How its grids are split."""
        return Pairs(self.name)

    def longest(self, prompt: RenderedPrompt) -> int:
        """Most tokens of a reply to this prompt."""
        return self.most if prompt.labels else self.written

    def prepare(self, prompt: RenderedPrompt) -> None:
        """Refuse a template without one gap for the text, and words where it gives none."""
        check_asked(self.name, self.gives, [prompt])
        if prompt.template.count(GAP) != 1:
            raise ConfigError(f"prompt.template '{prompt.template}' must hold {GAP} once")
        for gap in ("{label}", "{mask}"):
            if gap in prompt.template:
                raise ConfigError(
                    f"prompt.template '{prompt.template}' must not hold {gap}: the model answers "
                    "behind it"
                )

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """Atoms: each distinct prompted example."""
        check_asked(self.name, self.gives, prompts)
        return self.form.split(prompts, [str(text) for text in examples])

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """(C,) scores of the wanted atoms, or their sealed answers, one request each."""
        return self.wire.each(self._one, [atoms[i] for i in wanted])

    # --- one request -------------------------------------------------------------------------

    def _one(self, atom: Atom, stopped: threading.Event) -> Array:
        if stopped.is_set():
            raise CancelledError
        prompt, text = atom.data
        request = self.request(prompt, text)
        guess = int(len(request.body) / BYTES_PER_TOKEN) + self.longest(prompt)
        return self.wire.ask(
            lambda seconds: self._try(atom, request, guess, seconds), guess, stopped
        )

    def _try(self, atom: Atom, request: Request, guess: int, seconds: float) -> Array:
        """One try, on the books before its reply is used."""
        most = self.longest(atom.data[0])
        hold = self._reserve(request, most)
        began, at = time.monotonic(), time.time()
        receipt = Receipt(at, 0)
        rows: dict[bytes, Array] = {}
        try:
            answer = self.wire.post(request, seconds)
            receipt = Receipt(at, answer.status)
            self.wire.judge(answer)
            receipt = self._bill(receipt, request, answer, most)
            read = self._read(atom, answer)
            receipt = receipt._replace(named=read.named)
            rows[atom.key] = read.row
            self.wire.limiter.correct(receipt.prompt_tokens + receipt.completion_tokens - guess)
            return read.row
        finally:
            took = round(time.monotonic() - began, 6)
            if self._till is not None:
                self._till.settle(hold, receipt._replace(seconds=took), rows)

    def _reserve(self, request: Request, most: int) -> Hold:
        # No token is shorter than a byte, and the body has more bytes than the texts in it.
        longest = len(request.body)
        usd = self.price.of(longest, most) if self.price else 0.0
        if self._till is None:
            return Hold(longest + most, usd)
        return self._till.reserve(longest + most, usd)

    def _bill(self, receipt: Receipt, request: Request, answer: Answer, most: int) -> Receipt:
        """With tokens and price; a reply that does not tell is taken to have used what it could."""
        try:
            prompt, completion = map(int, self.usage(answer.data))
        except (LookupError, TypeError, ValueError):
            prompt, completion = int(len(request.body) / BYTES_PER_TOKEN), most
        usd = self.price.of(prompt, completion) if self.price else 0.0
        return receipt._replace(prompt_tokens=prompt, completion_tokens=completion, usd=usd)

    def _read(self, atom: Atom, answer: Answer) -> Read:
        prompt, text = atom.data
        try:
            if prompt.labels:
                return self.read(prompt, answer.data)
            return Read(seal(self.said(answer.data), self.name, prompt, text), True)
        except (LookupError, TypeError, ValueError) as error:
            raise Again(
                f"status {answer.status} with a reply of another shape than the API's "
                f"({type(error).__name__}: {self.wire.clean(str(error))})"
            ) from error


def sizes_of(reply_tokens: int) -> tuple[int, int]:
    """Most tokens of a reply that names a label and of one in words, by the option of that name.

    Raises:
        ConfigError: it is below 0.
    """
    if reply_tokens < 0:
        raise ConfigError(
            f"box.reply_tokens is {reply_tokens}; it must be at least 1, or 0 for {NAMING} where "
            f"a label is named and {WRITING} in words"
        )
    return reply_tokens or NAMING, reply_tokens or WRITING


def text_of(said: Any) -> str:
    """A text, or nothing where the model said nothing.

    Raises:
        TypeError: it is something else.
    """
    if said is not None and not isinstance(said, str):
        raise TypeError(f"a text is of type {type(said).__name__}")
    return said or ""


def filled(prompt: RenderedPrompt, text: str) -> str:
    """The prompt around one text."""
    return prompt.template.replace(GAP, text)


def price_of(prices: str | dict[str, float], model: str) -> Price | None:
    """Dollars for a million tokens of a model; ``None`` where the table does not say.

    Args:
        prices: ``{input, output}``, or a TOML file with one such table per model.
        model: the model's name.

    Raises:
        ConfigError: the table cannot be read or lacks a number.
    """
    if not prices:
        return None
    table: Any = prices
    if isinstance(prices, str):
        try:
            table = tomllib.loads(Path(prices).read_text(encoding="utf-8")).get(model)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"box.prices: {prices} cannot be read: {error}") from error
        if table is None:
            return None
    try:
        price = Price(float(table["input"]), float(table["output"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"box.prices for '{model}' is {table!r}; it must give input and output, "
            "in dollars for a million tokens"
        ) from error
    if not (np.isfinite(price).all() and min(price) >= 0):
        raise ConfigError(f"box.prices for '{model}' is {table!r}; prices are not below 0")
    return price
