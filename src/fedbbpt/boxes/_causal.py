"""A transformers causal language model: its words, key/value caches, and logits where needed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes import _words
from fedbbpt.boxes._gradient import slopes
from fedbbpt.boxes._transformers import Inputs, Pretrained
from fedbbpt.errors import ConfigError

Choice = tuple[int, ...]
# Row of the logits, how many tokens from its end, token; row of the scores, class.
Asked = tuple[int, int, int, int, int]


class Row(NamedTuple):
    """One prompted example.

    Attributes:
        inputs: what the network gets.
        content: (L,) numbers that are equal where two rows' inputs are.
        choices: the tokens of each class's label.
    """

    inputs: Inputs
    content: Array
    choices: tuple[Choice, ...]


class State(NamedTuple):
    """What the network remembers of R rows: its cache, and (R, W) which places of it count."""

    cache: Any
    mask: Any


class Words(_words.Words):
    """The vocabulary of a causal language model, which goes on behind a template's last word.

    Attributes:
        start: the token that stands for an empty text.
    """

    def __init__(self, tokenizer: Any, matrix: Array) -> None:
        super().__init__(tokenizer, matrix)
        # Some tokenizers have a first token and do not put it before a text.
        own, whole = self.tokenise("text"), list(tokenizer("text")["input_ids"])
        begin = next((i for i in range(len(whole)) if whole[i : i + len(own)] == own), 0)
        self.front = tuple(whole[:begin])
        known = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
        self.start = int(next(one for one in known if one is not None))

    def frame(self, template: str) -> str:
        """The template without spaces at its end: the label's first token brings its own."""
        return template.rstrip(" ")

    def label(self, word: str) -> Choice:
        """The tokens of a word as it stands behind another and a space; none of a blank."""
        if not word.strip():
            return ()
        coded = self._tokenizer(
            f"a {word.strip()}", add_special_tokens=False, return_offsets_mapping=True
        )
        pairs = zip(coded["input_ids"], coded["offset_mapping"], strict=True)
        return tuple(one for one, (_, end) in pairs if end > 1)

    def said(self, before: int, new: Sequence[int]) -> str:
        """The text of new tokens behind another, -1 if that has none; special ones say nothing."""

        def text(ids: Sequence[int]) -> str:
            return str(
                self._tokenizer.decode(
                    list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
                )
            )

        # With what stands before it, since a tokenizer may keep a text's first space to itself.
        front = [before] if before >= 0 else []
        whole = text([*front, *new])
        return whole.removeprefix(text(front)) if whole.startswith(text(front)) else text(new)


class Network(Pretrained):
    """A causal language model that goes on where it left off.

    Attributes:
        window: over how many tokens its cache answers as a run of the whole text does; 0 for a
            network without such a cache.
        ends: tokens at which it says that a text ends.
    """

    def __init__(self, model: str, dtype: str, device: str, threads: int) -> None:
        super().__init__(model, "AutoModelForCausalLM", dtype, device, threads)
        random = [name for name in self.missing if ".weight" in name]
        if random or self.network.base_model is self.network:
            lack = f"its files lack {random[0]}" if random else "it has no head"
            raise ConfigError(f"box.model '{model}' is not a causal language model: {lack}")
        self.vocabulary = Words(self.tokenizer, self.matrix)
        self.settle()
        if self._looks_ahead():
            raise ConfigError(
                f"box.model '{model}' is not a causal language model: "
                "what it makes of a token changes with the tokens behind it"
            )
        self.window = self._window()
        own = getattr(self.network, "generation_config", None)
        listed = getattr(own, "eos_token_id", None)
        ends = [*(listed if isinstance(listed, list) else [listed]), self.tokenizer.eos_token_id]
        self.ends = frozenset(one for one in ends if one is not None)

    def extend(self, rows: Sequence[Inputs], past: State | None, parents: Sequence[int]) -> State:
        """What the network remembers of rows, each behind a row of ``past``."""
        with self.torch.inference_mode():
            given, state = self.given(rows, past, parents, True)
            self.network.base_model(**given)
        assert state is not None
        return state

    def score(
        self,
        rows: Sequence[Row],
        rests: Sequence[Inputs],
        past: State | None,
        parents: Sequence[int],
        size: int,
    ) -> list[Array]:
        """(C,) float64 log-probability of each row's choices behind it, over the vocabulary.

        Args:
            rows: R rows.
            rests: what of each row is not in ``past``.
            past: what their beginnings left, of which row ``parents[r]`` is that of row r.
            size: most rows in a forward pass.
        """
        scores = [np.zeros(len(row.choices)) for row in rows]
        tails = [(r, tail) for r, tail in _tails(rows) if tail]
        with self.torch.inference_mode():
            given, state = self.given(rests, past, parents, bool(tails and self.window))
            lasts = self.lasts(rests, 1)
            self._add(scores, self.logits(given, lasts), _firsts(rows))
            # A label's further tokens, given those before them, go on behind the row.
            for begin in range(0, len(tails), size):
                some = tails[begin : begin + size]
                bare = (np.zeros(0, np.int64), None, None)
                ends = [_joined(bare if state else rows[r].inputs, tail) for r, tail in some]
                given, _ = self.given(ends, state, [r for r, _ in some], False)
                deep = max(len(tail) for _, tail in some)
                logits = self.logits(given, self.lasts(ends, deep))
                self._add(scores, logits, _along(rows, some, 1))
        return scores

    def gradient(
        self, rows: Sequence[Row], targets: Array, shares: Array
    ) -> tuple[float, list[Array]]:
        """Sum over rows of the choices' cross-entropy, and its gradient with respect to each row's
        (L, H) input embeddings; ``shares`` (C,) multiply the choices' log-probabilities.
        """
        torch, tails = self.torch, list(_tails(rows))
        whole = [_joined(rows[r].inputs, tail) for r, tail in tails]
        lasts = self.lasts(whole, 1 + max(len(tail) for _, tail in tails))
        wanted = torch.tensor(targets, device=self.device)
        scale = torch.tensor(shares, dtype=torch.float32, device=self.device)

        def loss(given: Mapping[str, Any]) -> Any:
            given = {**given, "use_cache": False}
            found, at = self._found(self.logits(given, lasts), _along(rows, tails, 0))
            sums = torch.zeros(len(rows), len(shares), device=self.device)
            sums = sums.index_put(tuple(map(torch.tensor, at)), found, accumulate=True)
            return torch.nn.functional.cross_entropy(sums * scale, wanted, reduction="sum")

        total, found = slopes(self, whole, loss)
        summed = [np.zeros((len(row.content), self.vocabulary.hidden)) for row in rows]
        for (r, _), slope in zip(tails, found, strict=True):
            summed[r] += slope[: len(summed[r])]
        return total, summed

    def given(
        self,
        rows: Sequence[Inputs],
        past: State | None,
        parents: Sequence[int] | None,
        keep: bool,
    ) -> tuple[dict[str, Any], State | None]:
        """Arguments of the network, and the state that it will fill if there is one.

        Without ``parents`` each row goes on behind its own, in place: the past is then over.
        """
        given = self.batch(rows)
        mask, cache = given["attention_mask"], None
        if past is not None:
            width, cache, before = mask.shape[1], past.cache, past.mask
            if parents is not None:
                index = self.torch.tensor(list(parents), device=self.device)
                # Shallow copies: the rows go into new tensors, and the past stays as it is.
                cache = copy.copy(cache)
                cache.layers = [copy.copy(layer) for layer in cache.layers]
                cache.batch_select_indices(index)
                before = before[index]
            mask = self.torch.cat([before, mask], 1)
            given["attention_mask"] = mask
            # Padding between the parts takes no position.
            given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -width:]
        elif keep:
            cache = self.cache()
        given["use_cache"] = cache is not None
        given |= {"past_key_values": cache} if cache is not None else {}
        return given, None if cache is None else State(cache, mask)

    def lasts(self, rows: Sequence[Inputs], count: int) -> Any:
        """(R, count) positions of the last tokens of rows that are padded behind."""
        ends = self.torch.tensor([[len(ids)] for ids, _, _ in rows], device=self.device)
        back = self.torch.arange(count, 0, -1, device=self.device)
        return (ends - back).clamp(min=0)

    def _add(self, scores: Sequence[Array], logits: Any, asked: Iterator[Asked]) -> None:
        """Add the log-probabilities asked for."""
        found, at = self._found(logits, asked)
        for r, c, value in zip(*at, found.cpu().numpy().astype(np.float64), strict=True):
            scores[r][c] += value

    def _found(self, logits: Any, asked: Iterator[Asked]) -> tuple[Any, list[list[int]]]:
        """The log-probabilities asked for, and the rows and classes that they belong to."""
        at, back, token, *places = (list(column) for column in zip(*asked, strict=True))
        place = [logits.shape[1] - 1 - b for b in back]
        return logits[at, place, token] - logits.logsumexp(2)[at, place], places

    def cache(self) -> Any:
        """An empty key/value cache."""
        from transformers import DynamicCache

        return DynamicCache(config=self.network.config)

    def _window(self) -> int:
        from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

        known = inspect.signature(self.network.forward).parameters
        if not {"past_key_values", "position_ids"} <= set(known):
            return 0
        layers = self.cache().layers
        if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
            return 0
        return min((getattr(layer, "sliding_window", 1 << 30) for layer in layers), default=0)

    def _looks_ahead(self) -> bool:
        """Whether another last token changes what the network makes of the one before it."""
        order = np.argsort(np.linalg.norm(self.matrix, axis=1), kind="stable")
        rows = [np.array([order[-1], order[len(order) // 2], last]) for last in order[[0, -2]]]
        with self.torch.inference_mode():
            given = self.batch([(ids, None, None) for ids in rows])
            hidden = self.network.base_model(**given)[0][:, :2].float()
        gap = (hidden[0] - hidden[1]).abs().max() / hidden.abs().max()
        return bool(gap > max(1e-4, 4 * self.torch.finfo(self.dtype).eps))


def _tails(rows: Sequence[Row]) -> Iterator[tuple[int, Choice]]:
    """What stands behind each row when the last tokens of its choices are asked for."""
    for r, row in enumerate(rows):
        yield from ((r, tail) for tail in dict.fromkeys(choice[:-1] for choice in row.choices))


def _firsts(rows: Sequence[Row]) -> Iterator[Asked]:
    """What to ask at the rows' last tokens."""
    for r, row in enumerate(rows):
        for c, choice in enumerate(row.choices):
            yield r, 0, choice[0], r, c


def _along(rows: Sequence[Row], tails: Sequence[tuple[int, Choice]], begin: int) -> Iterator[Asked]:
    """What to ask along the tails: each choice's tokens from the ``begin``-th."""
    for i, (r, tail) in enumerate(tails):
        for c, choice in enumerate(rows[r].choices):
            if choice[:-1] == tail:
                for j in range(begin, len(choice)):
                    yield i, len(tail) - j, choice[j], r, c


def _joined(inputs: Inputs, tail: Choice) -> Inputs:
    ids, places, soft = inputs
    return np.concatenate([ids, np.array(tail, np.int64)]), places, soft
