"""What boxes around a local transformers model share: finding it, its tokens, one padded batch."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from fedbbpt.arrays import Array
from fedbbpt.boxes._embeddings import embeddings
from fedbbpt.errors import ConfigError, MissingExtra

Inputs = tuple[Array, Array | None, Array | None]


class Tokens:
    """A tokenizer and the input embeddings, as :class:`fedbbpt.protocols.Vocabulary`.

    Attributes:
        hidden: H.
        std: standard deviation over all entries of the embedding matrix; sets the size of a
            projection (methods: A z should be as large as a word's embedding).
        ends: ids put before and after every text.
    """

    def __init__(self, tokenizer: Any, matrix: Array) -> None:
        self._tokenizer, self._matrix = tokenizer, matrix
        self.hidden = int(matrix.shape[1])
        self.std = float(matrix.std(dtype=np.float64))
        self.ends = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        words = (i for t, i in tokenizer.get_vocab().items() if self._is_word(t))
        self._ordinary = np.array(sorted(words), np.int64)

    def tokenise(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def layout(self, template: str, fill: str) -> tuple[list[int], list[int]]:
        """Ids of the template with ``fill`` in its gap, and each id's place in the template."""
        start = template.index("\0")
        stop = start + len(fill)
        coded = self._tokenizer(
            template.replace("\0", fill), add_special_tokens=False, return_offsets_mapping=True
        )
        slots, own = [], 0
        for begin, end in coded["offset_mapping"]:
            # A token that overlaps the fill belongs to it, so the template's own tokens are the
            # same ones, and equally many, whatever fills the gap.
            inside = begin < stop and end > start
            slots.append(-1 if inside else own)
            own += not inside
        return list(coded["input_ids"]), slots

    def behind(self, template: str, fill: str) -> int:
        """How many of :meth:`layout`'s tokens stand before the end of ``fill``."""
        stop = template.index("\0") + len(fill)
        coded = self._tokenizer(
            template.replace("\0", fill), add_special_tokens=False, return_offsets_mapping=True
        )
        return sum(begin < stop for begin, _ in coded["offset_mapping"])

    def embed(self, ids: Sequence[int] | Array) -> Array:
        """(*ids.shape, H) input embeddings, float32."""
        return np.asarray(self._matrix[np.asarray(ids, np.int64)])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids."""
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=True))

    def ordinary(self) -> Array:
        """Ids of whole alphabetic words of three letters or more."""
        return self._ordinary

    def _is_word(self, token: str) -> bool:
        return len(token) > 2 and token.isalpha()


class Pretrained:
    """A tokenizer and a network, loaded but not yet on its device.

    Args:
        model: a folder or a hub name.
        auto: the transformers class that loads it, e.g. ``"AutoModel"``.
        dtype, device, threads: as the boxes document them.
        find: model -> (where it is, a name for its exact weights).

    Attributes:
        name: weights and precision.
        matrix: (V, H) input embeddings, float32.
        missing: names of weights that the files lack, so that they are random.
        limit: most tokens that the network can place.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ConfigError: the model cannot be found or loaded.
    """

    def __init__(
        self,
        model: str,
        auto: str,
        dtype: str,
        device: str,
        threads: int,
        find: Callable[[str], tuple[str, str]] | None = None,
    ) -> None:
        self.torch, transformers = _libraries(threads)
        self.path, revision = (find or locate)(model)
        self.device = _device(self.torch, device)
        self.dtype = _dtype(self.torch, dtype, self.device)
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.path, use_fast=True)
            network, report = getattr(transformers, auto).from_pretrained(
                self.path, output_loading_info=True
            )
        except (ImportError, OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ConfigError(f"box.model '{model}' cannot be loaded: {first}") from error
        self.network = network.eval().requires_grad_(False)
        self.missing = sorted(report["missing_keys"])
        layer, self.limit = self._reader(network)
        self.matrix: Array = embeddings(self.torch, layer)
        self.name = f"{revision}:{str(self.dtype).removeprefix('torch.')}"

    def _reader(self, network: Any) -> tuple[Any, int]:
        """The layer that embeds tokens, and the most tokens that the network can place."""
        return network.get_input_embeddings(), _limit(network)

    def settle(self) -> None:
        """Put a network with a head on its device, in its precision, ready for :meth:`logits`."""
        base = self.network.base_model
        if self.dtype == self.torch.float32:
            self.network.float()
        else:
            # The head stays precise: a search lives on differences far below a bfloat16's step.
            for name, child in list(self.network.named_children()):
                if child is not base:
                    setattr(self.network, name, copy.deepcopy(child).float())
            base.to(self.dtype)
        self.network.to(self.device)
        base.register_forward_hook(self._keep)
        self._kept: Any = None

    def logits(self, given: Mapping[str, Any], kept: Any) -> Any:
        """(R, P, V) float32 logits at the positions ``kept`` (R, P), after :meth:`settle`.

        One call at a time.
        """
        self._kept = kept
        try:
            return self.network(**given).logits.float()
        finally:
            self._kept = None

    def _keep(self, module: Any, given: Any, output: Any) -> Any:
        """Between body and head: the head over a whole vocabulary is most of a forward pass."""
        if self._kept is None:
            return None
        hidden = output[0]
        row = self.torch.arange(len(hidden), device=hidden.device)[:, None]
        return type(output)(last_hidden_state=hidden[row, self._kept].float())

    def batch(self, rows: Sequence[Inputs]) -> dict[str, Any]:
        """R rows as arguments of the network: embeddings and attention, padded to the longest.

        Args:
            rows: per row the token ids (L,), the positions that move (M,) or ``None``, and the
                vectors (M, H) added there. An id of -1 is a new token with no embedding of its own.
        """
        width = max(len(ids) for ids, _, _ in rows)
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for r, (tokens, _, _) in enumerate(rows):
            ids[r, : len(tokens)] = tokens
            mask[r, : len(tokens)] = 1
        embedded = self.matrix[ids]
        for r, (tokens, places, soft) in enumerate(rows):
            if places is not None:
                new = tokens[places] < 0
                embedded[r, places[new]] = 0.0
                embedded[r, places] += soft
        return {
            "inputs_embeds": self.torch.from_numpy(embedded).to(self.device, self.dtype),
            "attention_mask": self.torch.from_numpy(mask).to(self.device),
        }


def check_sizes(model: str, rows: int, max_tokens: int, limit: int) -> None:
    """Refuse batches of no row and texts longer than the network's ``limit``.

    Raises:
        ConfigError: one of them.
    """
    if rows < 1 or max_tokens < 8:
        raise ConfigError("box.rows must be at least 1 and box.max_tokens at least 8")
    if max_tokens > limit:
        raise ConfigError(f"box.max_tokens is {max_tokens}; {model} takes at most {limit}")


def batches(
    group: Iterable[int], length: Callable[[int], int], size: int, wanted: Iterable[int]
) -> Iterator[list[int]]:
    """The batches that hold a wanted position, each of positions of similar length.

    They are composed from the whole group, so that a cached row never regroups the others.
    """
    order, asked = sorted(group, key=length), set(wanted)
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        if not asked.isdisjoint(batch):
            yield batch


def locate(model: str) -> tuple[str, str]:
    """Where the model is, and a name for its exact weights.

    Raises:
        ConfigError: it is a path, and not one of a folder with weights.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
        if not weights:
            raise ConfigError(f"box.model '{model}' is a folder without weights (*.safetensors)")
        return str(folder), f"{folder.name}-{sha256(weights[0])[:12]}"
    if folder.is_absolute() or model.startswith("."):
        raise ConfigError(f"box.model '{model}' is not a folder; give a folder or a hub name")
    return model, model


def sha256(path: Path) -> str:
    """Digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _libraries(threads: int) -> tuple[Any, Any]:
    """Torch and transformers, told to be quiet and to leave the cores to others."""
    # Waiting threads of torch spin so long by default that a second busy process on the
    # machine makes a small forward pass five to ten times slower. Read at torch's import.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra(error.name or "torch", "hf") from error
    # numpy's BLAS threads spin for a while after every product and would take the cores
    # from torch's: together they are several times slower than torch alone.
    threadpoolctl.threadpool_limits(1, user_api="blas")
    if threads:
        torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def _limit(network: Any) -> int:
    """Most tokens that fit; RoBERTa's first places stand for padding."""
    count = int(getattr(network.config, "max_position_embeddings", 1 << 30))
    table = getattr(getattr(network.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return count if padding is None else count - padding - 1


def _device(torch: Any, device: str) -> Any:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"box.device '{device}' cannot be used: {first}") from error
    return found


def _dtype(torch: Any, dtype: str, device: Any) -> Any:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype in known:
        return known[dtype]
    if dtype != "auto":
        raise ConfigError(f"box.dtype is '{dtype}'; known: auto, {', '.join(known)}")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # Without the instructions bfloat16 is emulated and slower than float32.
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if native else torch.float32
