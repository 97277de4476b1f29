"""A sentence encoder as a black box: a text's class is the one whose label text is nearest.

Scores are log-softmax(scale * cosine). Because examples and labels meet only in the last dot
product, a bare example and a prompted label are separate atoms: with the prompt on the label side
an example is paid once for ever, and a candidate costs one atom per class however many examples
a client holds.
"""

from __future__ import annotations

from fedbbpt.boxes._dual_form import Dual
from fedbbpt.boxes._encoder import Encoder
from fedbbpt.boxes._transformers import check_sizes
from fedbbpt.boxes._two_sided import TwoSided
from fedbbpt.errors import ConfigError


class DualEncoder(TwoSided):
    """A local sentence encoder behind the box protocol.

    Args:
        model: ``"minilm"`` (the packaged all-MiniLM-L6-v2), a folder, or a hub name.
        dtype: ``"auto"`` (bfloat16 where the hardware has it), ``"float32"`` or ``"bfloat16"``.
        device: ``"auto"`` (a GPU where there is one) or any torch device.
        scale: cosines are multiplied by this before the softmax. These encoders are trained
            with 20; at 10 the loss is less ready to be lowered by learning a few dozen
            examples by heart (docs/decisions.md).
        rows: most rows in one forward pass. CPU cores gain nothing beyond a few dozen rows.
        max_tokens: a longer text is cut, the template never.
        threads: torch threads; 0 leaves torch's own choice.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ConfigError: the model cannot be found or is not the published one.
    """

    accepts = frozenset({"soft", "tokens", "text"})
    sides = frozenset({"label", "text"})
    gives = frozenset({"scores", "embeddings", "gradients"})

    def __init__(
        self,
        model: str = "minilm",
        dtype: str = "auto",
        device: str = "auto",
        scale: float = 10.0,
        rows: int = 32,
        max_tokens: int = 128,
        threads: int = 0,
    ) -> None:
        if not scale > 0:
            raise ConfigError(f"box.scale is {scale}; it must be above 0")
        encoder = Encoder(model, dtype, device, threads)
        check_sizes(model, rows, max_tokens, encoder.limit)
        name = f"dual_encoder:{encoder.name}:{max_tokens}"
        form = Dual(name, scale, encoder.vocabulary.hidden)
        first, last = encoder.vocabulary.ends
        self._set_up(form, encoder, ((first,), (last,)), rows, max_tokens)
