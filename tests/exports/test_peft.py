"""A soft prompt as PEFT's adapter: PEFT itself loads it, and scores as the box did."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import ExportError
from fedbbpt.exports import export, peft
from fedbbpt.types import RenderedPrompt

# PEFT 0.21 asks transformers 5 for an attribute under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

LABELS = ("terrible", "so great")
TEXTS = ("a lovely story, and moving", "dull")


@pytest.fixture(scope="module")
def models():
    """The small models of the box's own tests, found by path."""
    for package in ("torch", "transformers"):
        pytest.importorskip(package)
    path = Path(__file__).parents[1] / "boxes" / "test_causal_lm.py"
    spec = spec_from_file_location("causal_lm_models", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tuned(ended, models, tmp_path):
    def make(kind):
        folder = models.make_model(kind, tmp_path / kind)
        rows = np.random.default_rng(0).standard_normal((3, models.ROW_WIDTH)).astype(np.float32)
        prompt = RenderedPrompt("{text} All in all it was ", LABELS, "text", (rows,), "insert")
        box = {"kind": "causal_lm", "model": folder, "max_tokens": models.LONGEST, "device": "cpu"}
        return ended(box, prompt)

    return make


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_peft_scores_as_the_box(tuned, kind):
    package = pytest.importorskip("peft")
    import torch
    import transformers

    run = tuned(kind)
    written = export(run, "peft")
    assert "to within 1e-05" in written.draft.tested
    box = run.box(dtype="float32")
    base = transformers.AutoModelForCausalLM.from_pretrained(box.network.path)
    model = package.PeftModel.from_pretrained(base, str(written.path)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(box.network.path)
    for text in TEXTS:
        ids = tokenizer(f"{text} All in all it was", add_special_tokens=False)["input_ids"]
        sums = []
        for label in LABELS:
            behind = list(box.vocabulary.label(label))
            with torch.inference_mode():
                logits = model(torch.tensor([[*ids, *behind]])).logits[0]
            steps = logits.log_softmax(1)[-len(behind) - 1 : -1]
            sums.append(sum(float(steps[i, token]) for i, token in enumerate(behind)))
        again = np.array(sums) - np.logaddexp.reduce(sums)
        assert again == pytest.approx(box([run.prompt], [text]).scores[0, 0], abs=1e-5)


def test_the_folder_says_how_it_is_used(tuned):
    pytest.importorskip("peft")
    run = tuned("llama")
    path = export(run, "peft").path
    config = json.loads((path / "adapter_config.json").read_text())
    # One special token begins a text; its embedding stands in front of the soft ones.
    assert config["num_virtual_tokens"] == 4
    card = (path / "README.md").read_text()
    (code,) = card.split("```python\n")[1:]
    code = code.partition("```")[0].replace('"."', repr(str(path)))
    exec(compile(code, "README.md", "exec"), {})


def test_an_adapter_that_scores_otherwise_is_not_written(tuned, monkeypatch):
    run = tuned("gpt2")
    monkeypatch.setattr(peft, "decode", lambda _: {peft.KEY: np.zeros_like(run.prompt.soft[0])})
    with pytest.raises(ExportError, match="differ from the box's by"):
        export(run, "peft")
    assert not (run.path / "export").exists()
