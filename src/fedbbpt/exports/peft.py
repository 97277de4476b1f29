"""A soft prompt as an adapter of PEFT's prompt tuning, for the same causal language model.

PEFT puts its virtual tokens in front of everything, and the box its soft tokens behind the special
tokens that begin a text. So these are virtual tokens too: their embeddings are the adapter's first
rows, and the text is to be tokenised without special tokens.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fedbbpt.arrays import Array, decode, encode
from fedbbpt.errors import ExportError, Incompatible
from fedbbpt.exports._again import SAMPLES, TOLERANCE, Draft, apart
from fedbbpt.finished import Finished
from fedbbpt.types import RenderedPrompt

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
KEY = "prompt_embeddings"


def draft(run: Finished) -> Draft:
    """A folder that ``PeftModel.from_pretrained(base, folder)`` reads, and a page that says how.

    Raises:
        Incompatible: PEFT's prompt tuning has no place for this prompt.
        ExportError: model and adapter score otherwise than the box did.
        MissingExtra: torch or transformers is not installed.
    """
    prompt = run.prompt
    _refuse(run)
    box: Any = run.box(dtype="float32")
    words = box.vocabulary
    rows = np.concatenate([words.embed(words.front), prompt.soft[0]]).astype(np.float32)
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": box.network.path,
        "num_virtual_tokens": len(rows),
        "token_dim": words.hidden,
        "num_transformer_submodules": 1,
        "prompt_tuning_init": "RANDOM",
        "inference_mode": True,
    }
    files = {
        CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
        WEIGHTS: encode({KEY: rows}),
        CARD: _card(run, box).encode(),
    }
    return Draft("peft", files, _check(box, prompt, decode(files[WEIGHTS])[KEY]))


def _refuse(run: Finished) -> None:
    prompt, kind = run.prompt, run.config.box.kind
    if prompt.kind != "soft":
        raise Incompatible(f"PEFT holds soft prompts, and this one is {prompt.kind}; use --to text")
    if kind != "causal_lm":
        raise Incompatible(
            "PEFT's prompt tuning is for language models that go on behind a text, and box.kind "
            f"is '{kind}'; tune on a causal_lm, or use: fedbbpt predict"
        )
    if prompt.mode != "insert":
        raise Incompatible(
            "PEFT puts new tokens in front, and prompt.mode = 'add' moves the template's own; "
            "tune with prompt.mode = 'insert', or use: fedbbpt predict"
        )


def _check(box: Any, prompt: RenderedPrompt, rows: Array) -> str:
    """Scores of the base model behind the adapter's rows, as PEFT runs it, against the box's."""
    labels = [box.vocabulary.label(label) for label in prompt.labels]
    gaps = []
    for sample in SAMPLES:
        text = prompt.template.rstrip(" ").replace("{text}", sample)
        ids = box.network.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(rows) + len(ids) + max(map(len, labels)) > box.max_tokens:
            continue  # the box would cut it
        sums = np.array([_behind(box, rows, ids, label) for label in labels])
        again = box.split([prompt], [sample]).assemble([sums])
        gaps.append(apart(again.scores, box([prompt], [sample]).scores))
    if not gaps or not max(gaps) <= TOLERANCE:
        told = f"differ from the box's by {max(gaps):.2g}" if gaps else "cannot be compared"
        raise ExportError(f"behind the adapter, the model's log-probabilities {told}")
    return (
        f"behind the adapter, the model's log-probabilities for {len(gaps)} texts are the "
        f"box's to within {TOLERANCE:g}"
    )


def _behind(box: Any, rows: Array, ids: list[int], label: tuple[int, ...]) -> float:
    """Log-probability of a label's tokens behind the adapter's rows and a text."""
    torch, network = box.network.torch, box.network.network
    inputs = np.concatenate([rows, box.vocabulary.embed([*ids, *label[:-1]])])
    with torch.inference_mode():
        given = torch.from_numpy(inputs)[None].to(box.network.device)
        logits = network(inputs_embeds=given, use_cache=False).logits[0].float()
        steps = logits.log_softmax(1)[len(rows) + len(ids) - 1 :].cpu().numpy()
    return float(sum(steps[i, token] for i, token in enumerate(label)))


def _card(run: Finished, box: Any) -> str:
    """How to use the adapter, as a page."""
    template = run.prompt.template.rstrip(" ")
    labels = dict(zip(run.classes, run.prompt.labels, strict=True))
    return f"""---
base_model: {box.network.path}
library_name: peft
---
A soft prompt of {len(run.prompt.soft[0])} tokens, tuned by fedbbpt through the model's scores.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = {box.network.path!r}
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), ".").eval()
tokenizer = AutoTokenizer.from_pretrained(base)
template = {template!r}
labels = {labels!r}
# The special tokens that begin a text are in the adapter already.
inputs = tokenizer(
    template.replace("{{text}}", "..."), add_special_tokens=False, return_tensors="pt"
)
print(tokenizer.decode(model(**inputs).logits[0, -1].argmax()))  # the label comes next
```
"""
