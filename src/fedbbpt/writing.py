"""What a model that writes instructions is asked, and how its replies are read.

The wording follows the idea of APE (Zhou et al. 2023, arXiv:2211.01910) and InstructZero (Chen et
al. 2024, arXiv:2306.03082): some of a client's examples are shown as pairs, and the model says
which instruction they may have followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fedbbpt.errors import ConfigError

WRITERS = ("pool", "soft")
ASK = "{text}"
"""The template of every question to a writer: the question itself."""
HERE = "{instruction}"
GAPS = ("{text}", "{label}", "{mask}", HERE)
"""What no instruction may hold."""

_WANTED = re.compile(r"^Write (\d+) different ", re.MULTILINE)
"""How :func:`proposal` and :func:`variation` ask for more than one; the last is the question's."""
_BOLD = re.compile(r"(?<!\w)\*\*(?=\S)(.+?)(?<=\S)\*\*(?!\w)")
_NONE = re.compile(r"\s*(?:(?:```|~~~)\s*\w*\s*$|#+\s)")
"""A fence or a heading."""
_MARK = re.compile(
    r"\s*(?:(?:\(?\d+\s*[.):]|[-*•–])\s+)?(?:instruction\s*\d*\s*:\s*)?", re.IGNORECASE
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`", "*": "*"}


@dataclass(frozen=True)
class Writing:
    """How clients have instructions written.

    Attributes:
        writer: ``"pool"``: any chat model writes several from a client's demonstrations, and later
            more like the best; ``"soft"``: an open model writes one behind each of several soft
            prompts, which are what is searched (InstructZero).
        proposals: instructions that each client asks for at a time.
        demonstrations: of its examples, shown to the writer; the published code shows 10, of which
            5 tell as much and cost half.
        again: how often more are asked for during the search.
        longest: characters of an instruction; what is longer is refused, for a follower pays for
            every one of them with every query.
        encoder: what says how alike two texts are, see :func:`fedbbpt.encoder.encoder`.
        tokens: of the soft prompt (published: 5). dim: numbers that move it (published: 10).

    Raises:
        ConfigError: an option is out of range.
    """

    writer: str = "pool"
    proposals: int = 8
    demonstrations: int = 5
    again: int = 1
    longest: int = 400
    encoder: str = "auto"
    tokens: int = 5
    dim: int = 10

    @property
    def queries(self) -> int:
        """That each client pays for at a time, variations apart."""
        return self.proposals if self.writer == "soft" else 1

    @property
    def reply_tokens(self) -> int:
        """That a reply may need; published are 128 for one instruction, of which few take 48."""
        return 128 if self.writer == "soft" else max(128, 48 * self.proposals)

    def __post_init__(self) -> None:
        if self.writer not in WRITERS:
            raise ConfigError(f"prompt.writer is '{self.writer}'; known: {', '.join(WRITERS)}")
        ends = {"proposals": 1, "demonstrations": 1, "again": 0, "longest": 20}
        for key, least in (ends | {"tokens": 1, "dim": 1}).items():
            if getattr(self, key) < least:
                name = "latent" if key == "dim" else key
                raise ConfigError(
                    f"prompt.{name} is {getattr(self, key)}; it must be at least {least}"
                )


THOUGHT = "</think>"
"""Behind it some models begin to answer."""
ENDS = (".", "!", "?", ":", ")", '"', "'", "”", "…")
_SORRY = re.compile(
    r"(?:i['’]?m |i am )?sorry\b|i (?:cannot|can['’]t|am unable)\b|as an ai\b", re.IGNORECASE
)


def proposal(shown: Iterable[tuple[str, str]], number: int) -> str:
    """Asks which instruction some pairs of input and output may have followed.

    Args:
        shown: demonstrations.
        number: how many different ones; 1 leaves the sentence open, to be gone on with.
    """
    pairs = "\n\n".join(f"Input: {text}\nOutput: {answer}" for text, answer in shown)
    begin = "Each output below was made from its input by following one and the same instruction."
    if number == 1:
        return f"{begin}\n\n{pairs}\n\nThe instruction was to"
    return (
        f"{begin}\n\n{pairs}\n\nWrite {number} different instructions that it could have been, one "
        "on each line, nothing else. Say what to do with any input; do not mention these examples."
    )


def variation(instruction: str, number: int) -> str:
    """Asks for the same instruction in other words."""
    shown = " ".join(instruction.split())
    return (
        f"Write {number} different variations of the following instruction, one on each line, "
        f"nothing else. They must ask for the same.\n\nInput: {shown}\nOutput:"
    )


def wanted(question: str) -> int:
    """How many instructions a question of this module asks for."""
    return int((_WANTED.findall(question) or [1])[-1])


def instructions(reply: str | None, whole: bool = False) -> list[str]:
    """The instructions in a reply: one a line, without numbers, bullets and quotation marks.

    What a model thought aloud before it answered is passed over, and so are lines that decline. Of
    several lines the last is left out where it alone ends without a full stop: it was cut off.

    Args:
        reply: what the writer said.
        whole: the first line goes on after "The instruction was to" and is the only one.
    """
    found, first = list[str](), True
    for line in (reply or "").rpartition(THOUGHT)[2].splitlines():
        text = _unquoted(" ".join(_MARK.sub("", _BOLD.sub(r"\1", line), count=1).split()))
        if _NONE.match(line) or _SORRY.match(text) or not any(map(str.isalpha, text)):
            continue
        introduces, first = first and text.endswith(":"), False
        if introduces:  # "Here are 8 instructions:"
            continue
        found.append(text[:1].upper() + text[1:] if whole else text)
    if whole:
        return found[:1]
    ended = [text.endswith(ENDS) for text in found]
    cut = len(found) > 2 and all(ended[:-1]) and not ended[-1]
    return found[:-1] if cut else found


def _unquoted(text: str) -> str:
    """Without the quotation marks around all of it."""
    end = _QUOTES.get(text[:1], "")
    inner = text.lstrip(text[:1]).rstrip(end) if end and text.endswith(end) else text
    return text if end in inner or text[:1] in inner else inner.strip()


def unfit(text: str, longest: int) -> str:
    """Why a text cannot be an instruction: ``"long"`` or ``"gap"``, or ``""`` if it can."""
    if len(text) > longest:
        return "long"
    return "gap" if any(gap in text for gap in GAPS) else ""
