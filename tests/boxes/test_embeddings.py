"""Input embeddings are what the network makes of token ids, and take no second copy."""

import numpy as np
import pytest

from fedbbpt.boxes import _embeddings
from fedbbpt.boxes._embeddings import embeddings

torch = pytest.importorskip("torch")


def layer(dtype=None, padding=None):
    torch.manual_seed(0)
    return torch.nn.Embedding(11, 3, padding_idx=padding, dtype=dtype)


class Scaled(torch.nn.Embedding):
    """As Gemma's."""

    def forward(self, ids):
        return super().forward(ids) * 3.0


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(_embeddings, "ROWS", 4)


def test_they_share_memory_with_a_network_of_single_precision():
    network = layer(padding=1)
    found = embeddings(torch, network)
    assert found.shape == (11, 3) and np.shares_memory(found, network.weight.detach().numpy())


def test_nobody_can_write_into_the_network():
    with pytest.raises(ValueError, match="read-only"):
        embeddings(torch, layer())[0, 0] = 1.0


def test_a_network_of_half_precision_is_read_in_single():
    network = layer(torch.bfloat16)
    found = embeddings(torch, network)
    assert found.dtype == np.float32
    assert (found == network.weight.detach().float().numpy()).all()


def test_what_a_network_scales_is_scaled():
    torch.manual_seed(0)
    network = Scaled(11, 3)
    found = embeddings(torch, network)
    assert found == pytest.approx(3 * network.weight.detach().numpy())
    assert not np.shares_memory(found, network.weight.detach().numpy())
