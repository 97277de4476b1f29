"""A model behind an API under examination: what is sent to it, kept of its replies and paid."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any, NamedTuple

from fedbbpt.boxes._answers import message
from fedbbpt.boxes._choices import Read
from fedbbpt.boxes._remote import Remote
from fedbbpt.boxes._wire import Again, Answer, Request
from fedbbpt.errors import BoxError, FedbbptError
from fedbbpt.types import RenderedPrompt

TEXTS = (
    "A lovely evening: warm, funny and beautifully played. I would go again tomorrow.",
    "Dull, far too long and badly acted. I want my money and my two hours back.",
)
"""Made up: nobody's examples are sent to find out what a model can do."""
QUESTION = "What is the capital of France? Answer in one sentence."
PLAIN = RenderedPrompt("{text}", (), "text")
"""Around a question that is to be answered in words."""
SPOKEN = "answers in words"
TRIES, REPEATS, MOST_SHOWN = 3, 3, 60
UNREADABLE = (BoxError, LookupError, TypeError, ValueError)


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        check: what was looked at.
        ok: ``None`` where it was not or could not be asked.
        seen: what came back.
        advice: what to do about it, if anything.
    """

    check: str
    ok: bool | None
    seen: str
    advice: str = ""


class Patient:
    """A box over the wire under examination.

    Args:
        box: as the config has it, with a short deadline.
        scored: the same asked for log-probabilities, ``None`` where the API has none.
        worded: the same asked for a label in words, ``None`` likewise.
        prompt: around the texts; without labels the answers are words.
        deadline: of a run, in seconds.

    Attributes:
        requests, tokens, usd: what the examination took.
    """

    def __init__(
        self,
        box: Remote,
        scored: Remote | None,
        worded: Remote | None,
        prompt: RenderedPrompt,
        deadline: float,
    ) -> None:
        self.box, self.scored, self.worded = box, scored, worded
        self.prompt, self.deadline = prompt, deadline
        self.requests, self.tokens, self.usd = 0, 0, 0.0
        self.seconds: list[float] = []
        self.headers: dict[str, str] = {}
        self.status = 0
        self._kept: dict[tuple[str, int], Answer | BoxError] = {}

    def answer(self, way: Remote, text: int = 0, time: int = 0) -> Answer:
        """The reply to a text, asked for once each ``time``; BoxError if there is none."""
        key = (way.name, text + len(TEXTS) * time)
        if key not in self._kept:
            try:
                self._kept[key] = self._ask(way, self.prompt, TEXTS[text])
            except FedbbptError as error:
                self._kept[key] = error if isinstance(error, BoxError) else BoxError(str(error))
        found = self._kept[key]
        if isinstance(found, BoxError):
            raise found
        return found

    def answers(self, way: Remote) -> bool:
        """Whether there is a good reply, whatever it says."""
        try:
            return bool(self.answer(way))
        except BoxError:
            return False

    def read(self, way: Remote, text: int = 0, time: int = 0) -> Read:
        """What the reply says of the labels; BoxError with the reason if nothing."""
        data = self.answer(way, text, time).data
        try:
            return way.read(self.prompt, data)
        except (LookupError, TypeError, ValueError) as error:
            kind = type(error).__name__
            raise Again(f"the reply is of another shape than the API's ({kind})") from error

    def told(self) -> tuple[str, float]:
        """What is said to a plain question, and the seconds that it took; raises as :meth:`read`,
        or what asking raises.
        """
        answer = self._ask(self.box, PLAIN, QUESTION)
        return self.box.said(answer.data), answer.seconds

    def first(self) -> Remote:
        """The way that is tried first."""
        return self.scored or self.box

    def repeated(self) -> tuple[Remote, list[Read]] | None:
        """One text's replies by the first way that they can be read."""
        for way in filter(None, (self.scored, self.worded)):
            try:
                return way, [self.read(way, 0, time) for time in range(REPEATS)]
            except UNREADABLE:
                continue
        return None

    def probe(self, path: str, body: Any, size: str = "\0") -> tuple[bool, str]:
        """Whether a kind of request is accepted, by one try; a refusal that has to do with
        ``size`` is not one.
        """
        sent = json.dumps({"model": getattr(self.box, "model", ""), **body}).encode()
        self.requests += 1
        try:
            answer = self.box.wire.post(Request(path, sent), self.box.wire.timeout)
        except Again as error:
            return False, f"no: {error}"
        self._note(answer)
        said = self.box.wire.clean(message(answer.data))
        if answer.status < 300 or size in said:
            return True, "accepted"
        return False, f"no ({answer.status}: {said[:80] or 'no explanation'})"

    def _ask(self, way: Remote, prompt: RenderedPrompt, text: str) -> Answer:
        """A good reply; one that cannot be read gets two more chances."""
        left, request = iter(range(TRIES - 1)), way.request(prompt, text)

        def send(seconds: float) -> Answer:
            self.requests += 1
            answer = way.wire.post(request, seconds)
            self._note(answer)
            way.wire.judge(answer)
            try:
                way.read(prompt, answer.data) if prompt.labels else way.said(answer.data)
            except UNREADABLE as error:
                # A BoxError says that there is nothing to wait for.
                lasting = isinstance(error, BoxError) and not isinstance(error, Again)
                if not lasting and next(left, None) is not None:
                    raise Again(str(error)) from error
            return answer

        return way.wire.ask(send, len(request.body) // 3 + way.longest(prompt))

    def _note(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers |= answer.headers
        if answer.status >= 300:
            return
        self.seconds.append(answer.seconds)
        try:
            used = self.box.usage(answer.data)
        except (LookupError, TypeError, ValueError):
            return
        self.tokens += used.prompt + used.completion
        self.usd += self.box.price.of(*used) if self.box.price else 0.0


def heard(said: str | None, seconds: float) -> Finding:
    """What came back of a plain question."""
    if not (said or "").strip():
        more = "raise box.reply_tokens: a model that thinks first may need a thousand"
        return Finding(SPOKEN, False, "an empty reply" if said is not None else "no reply", more)
    text = " ".join((said or "").split())
    shown = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
    return Finding(SPOKEN, True, f"{len(said or '')} characters in {seconds:.3f} s: {shown}")


def tops_of(data: Any) -> dict[str, float | None]:
    """The likeliest tokens of a reply, none of typed choices; LookupError or TypeError if those
    lack that ought to be there.
    """
    if "choices" not in data:
        return {}
    logprobs = data["choices"][0]["logprobs"]
    if "content" in logprobs:
        return {top["token"]: top["logprob"] for top in logprobs["content"][0]["top_logprobs"]}
    return dict(logprobs["top_logprobs"][0])


def words_of(data: Any) -> str:
    """The words of a reply, as JSON."""
    choice = data["choices"][0] if "choices" in data else data
    return json.dumps(choice.get("message", choice).get("content", choice.get("text")))


def png(side: int) -> bytes:
    """A red square, so many pixels wide."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = (b"\0" + b"\xff\0\0" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
