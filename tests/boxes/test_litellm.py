"""The box for litellm; with the library itself where it is installed."""

import math
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from fedbbpt.boxes.litellm import Litellm
from fedbbpt.errors import BoxError, MissingExtra
from fedbbpt.testing.faults import FaultServer
from fedbbpt.types import RenderedPrompt

PROMPT = RenderedPrompt("{text} is", ("bad", "good"), side="text")
installed = pytest.mark.skipif(find_spec("litellm") is None, reason="litellm is not installed")


def answer(text):
    return {"good": math.log(0.6), "bad": math.log(0.3), "it": math.log(0.1)}


@pytest.mark.skipif(find_spec("litellm") is not None, reason="litellm is installed")
def test_without_the_library_the_extra_is_named():
    with pytest.raises(MissingExtra, match=r"fedbbpt\[litellm\]"):
        Litellm("openai/toy")


def test_the_library_is_not_imported_before_it_is_named():
    code = "import sys, fedbbpt.boxes.litellm; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@installed
def test_scores_and_failures(monkeypatch):
    with FaultServer(answer, {"503": 0.3}, seed=2, key="sk-a") as server:
        monkeypatch.setenv("LITELLM_TEST_KEY", "sk-a")
        box = Litellm("openai/toy", server.url, key_env="LITELLM_TEST_KEY", deadline=30.0)
        reply = box([PROMPT], [f"thing {i}" for i in range(12)])
        np.testing.assert_allclose(np.exp(reply.scores[0]), [[1 / 3, 2 / 3]] * 12, atol=1e-6)
        assert server.requests > 12
        wordy = RenderedPrompt("{text} is", (), side="text")
        assert box([wordy], ["thing"]).texts == (("good",),)
        monkeypatch.setenv("LITELLM_TEST_KEY", "sk-wrong")
        with pytest.raises(BoxError, match=r"\$LITELLM_TEST_KEY") as caught:
            Litellm("openai/toy", server.url, key_env="LITELLM_TEST_KEY")([PROMPT], ["x"])
        assert "sk-wrong" not in str(caught.value)
