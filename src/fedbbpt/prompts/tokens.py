"""A discrete prompt: L slots, each with one of N candidates or none, put into the template.

The prompt of BDPL (Diao et al., TMLR 2023). Unlike a soft prompt it is text, so that a model
behind an API can be asked with it, and people can read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.errors import ConfigError
from fedbbpt.prompts._candidates import text_candidates, token_candidates
from fedbbpt.prompts._template import gap_of
from fedbbpt.protocols import Prompt
from fedbbpt.senses import Vocabulary
from fedbbpt.types import RenderedPrompt, Space

PLACES = ("before", "after")


class Tokens(Prompt):
    """Tokens put into the template, on the label side or the text side.

    Candidate 0 of every slot is *no token*. So the zero point is the manual prompt, and a search
    may settle on fewer than L tokens.

    A box that takes tokens gets the exact ids. The template around them is tokenised as it stands,
    so it begins as a text begins, and :meth:`read` gives the text of the tokens alone. A box that
    takes text only gets the template with the words in it, set off by spaces; then a candidate may
    be a whole n-gram, and since such a prompt has one template, there is no prompt per class.

    Args:
        vocabulary: the box's tokens; ``None`` will do where text is sent and candidates are given.
        template: the manual prompt, with ``{label}`` or ``{text}``.
        labels: one text per class.
        side: ``"label"`` or ``"text"``.
        slots: L, the most tokens put in (per class if ``per_class``).
        candidates: number of tokens that a slot chooses from, the same for all; *no token*
            comes on top.
        words: the candidates, of which the first ``candidates`` count: a list, or a file with
            one a line. Empty: the words of the vocabulary whose embeddings are nearest to those
            of the labels by cosine, the labels taking turns, their own words left out.
        place: ``"before"`` the template, or right ``"after"`` what fills its gap.
        per_class: one prompt for each class instead of one for all; label side only.
        sends: what the box is to get, ``{"tokens"}`` or ``{"text"}``; see :meth:`sends_to`.
        offered: words and n-grams from a corpus, best first, in place of ``words``; those that
            the box cannot read as they are, are passed over.

    Attributes:
        ids: (candidates,) token ids; candidate j > 0 is ``ids[j - 1]``. Empty where text is sent.
        texts: (candidates,) the same as text.

    Raises:
        ConfigError: an option is out of range, there are too few candidates, or one of the
            ``words`` is no token of its own.
    """

    sends = frozenset({"tokens"})

    def __init__(
        self,
        vocabulary: Vocabulary | None,
        template: str,
        labels: Sequence[str],
        side: str = "label",
        slots: int = 5,
        candidates: int = 50,
        words: tuple[str, ...] | str = "",
        place: str = "before",
        per_class: bool = False,
        sends: frozenset[str] = sends,
        offered: tuple[str, ...] | None = None,
    ) -> None:
        self.gap = gap_of(template, side)
        if slots < 1 or candidates < 1:
            key, value = ("slots", slots) if slots < 1 else ("candidates", candidates)
            raise ConfigError(f"prompt.{key} is {value}; it must be at least 1")
        if place not in PLACES:
            raise ConfigError(f"prompt.place is '{place}'; known: {', '.join(PLACES)}")
        if per_class and side == "text":
            raise ConfigError("a prompt per class needs prompt.side = 'label'")
        if per_class and "text" in sends:
            raise ConfigError("a prompt per class needs a box that takes tokens, not text alone")
        self.template, self.labels, self.side, self.place = template, tuple(labels), side, place
        self.vocabulary, self.per_class, self.sends = vocabulary, per_class, sends
        self.ids: tuple[int, ...] = ()
        if vocabulary is not None and "tokens" in sends:
            found = token_candidates(vocabulary, words, offered, labels)
            self.ids = tuple(islice(found, candidates))
            self.texts = tuple(vocabulary.decode([one]).strip() for one in self.ids)
        else:
            self.texts = tuple(
                islice(text_candidates(vocabulary, words, offered, labels), candidates)
            )
        if len(self.texts) < candidates:
            corpus = "among those that prompt.vocabulary found" if offered is not None else ""
            source = "in prompt.words" if words else corpus or "in the vocabulary of the box"
            raise ConfigError(
                f"prompt.candidates is {candidates}, but there are only {len(self.texts)} {source}"
            )
        shape = (slots, candidates + 1)
        many = (len(self.labels), *shape) if per_class else shape
        self.space = Space("categorical", many, separable=per_class)

    @classmethod
    def sends_to(cls, box: AtomicBox) -> frozenset[str]:
        """Tokens where the box takes them and has a vocabulary, else text where it takes that."""
        by_id = "tokens" in box.accepts and box.vocabulary is not None
        return frozenset({"text"}) if "text" in box.accepts and not by_id else cls.sends

    def render(self, points: Array) -> list[RenderedPrompt]:
        """K prompts from (K, L, N) or (K, C, L, N) points.

        Of every row of N the (first) largest entry is chosen, so a one-hot sample, logits and
        probabilities will all do.
        """
        size = self.space.shape
        chosen = np.asarray(points).reshape(-1, *size[-3:-2] or (1,), *size[-2:]).argmax(axis=-1)
        return [self._render(prompt) for prompt in chosen.tolist()]

    def _render(self, chosen: list[list[int]]) -> RenderedPrompt:
        """One prompt from the candidate in each slot, for all classes or for each."""
        if self.ids:
            tokens = tuple(tuple(self.ids[j - 1] for j in row if j) for row in chosen)
            return RenderedPrompt(
                self.template, self.labels, self.side, tokens=tokens, place=self.place
            )
        words = " ".join(self.texts[j - 1] for j in chosen[0] if j)
        return RenderedPrompt(self._around(words), self.labels, self.side)

    def _around(self, words: str) -> str:
        """The template with these words in it."""
        if not words:
            return self.template
        if self.place == "after":
            return self.template.replace(self.gap, f"{self.gap} {words}")
        return f"{words} {self.template}"

    def read(self, prompt: RenderedPrompt) -> tuple[str, ...]:
        """The text of the prompt's tokens, which the box reads as these very tokens."""
        if self.ids and self.vocabulary is not None:
            return tuple(self.vocabulary.decode(ids) if ids else "" for ids in prompt.tokens)
        before, gap, after = self.template.partition(self.gap)
        if self.place == "before":
            return (prompt.template.removesuffix(self.template).rstrip(),)
        return (prompt.template.removeprefix(before + gap).removesuffix(after).strip(),)
