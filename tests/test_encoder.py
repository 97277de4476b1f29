"""Embeddings of instructions by name."""

import numpy as np
import pytest

from fedbbpt import encoder as module
from fedbbpt.encoder import encoder, sentences
from fedbbpt.errors import UsageError
from fedbbpt.maths.places import ngrams


@pytest.fixture(autouse=True)
def afresh():
    """What one test has loaded is nothing to another."""
    sentences.cache_clear()
    yield
    sentences.cache_clear()


TEXTS = ["Write the plural.", "Give the word for more than one.", "Sum up two numbers."]


def test_runs_of_characters_need_no_model(monkeypatch):
    monkeypatch.setattr(module.registry, "make", None)
    assert encoder("ngrams") is ngrams
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "torch" else name)
    assert encoder("auto") is ngrams


def test_auto_takes_sentences_where_all_is_installed(monkeypatch):
    made = []
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    monkeypatch.setattr(module.registry, "make", lambda *args: made.append(args))
    encoder("auto")
    ((group, kind, options, where),) = made
    assert (group, kind, where) == ("boxes", "dual_encoder", "prompt.encoder")
    assert options["model"] == "minilm"


def test_sentences_that_say_the_same_are_near_and_company_changes_no_bit(minilm, monkeypatch):
    embed = encoder("minilm")
    found = embed(TEXTS)
    cosines = found @ found.T / np.outer(*[np.linalg.norm(found, axis=1)] * 2)
    assert cosines[0, 1] > 0.5 > cosines[0, 2]
    apart = np.concatenate([embed([text]) for text in reversed(TEXTS)])[::-1]
    assert found.tobytes() == apart.tobytes()


def test_a_model_that_is_not_there_is_named(minilm, tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        encoder(str(tmp_path / "nowhere"))(TEXTS)
