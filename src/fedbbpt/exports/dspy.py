"""The tuned prompt as the saved state of ``dspy.Predict``."""

from __future__ import annotations

import json
from typing import Any

from fedbbpt.errors import ExportError, Incompatible
from fedbbpt.exports._again import Draft, compare, templates
from fedbbpt.finished import Finished
from fedbbpt.types import RenderedPrompt

START, STOP = "<prompt>\n", "\n</prompt>"
CHOICE = "one of: "
ANSWER = "${answer}"
"""What DSPy itself writes of a field of which nothing is said."""


def draft(run: Finished) -> Draft:
    """One file, for ``dspy.Predict("text -> label").load("dspy.json")`` (DSPy 2.5 or later); of a
    prompt without labels for ``dspy.Predict("text -> answer")``.

    DSPy writes a request of its own around instructions and fields, so what it sends is not what
    was sent in tuning, and its accuracy has to be measured anew.

    Raises:
        Incompatible: the prompt is not made of words, or not for a language model.
        ExportError: what would be written is not what was tuned.
    """
    if run.prompt.side != "text":
        raise Incompatible(
            "DSPy asks a language model about a text, and this prompt stands on the label side, "
            "where an encoder compares it with texts; use --to text"
        )
    labels = run.prompt.labels
    if any("," in label for label in labels):
        raise Incompatible("DSPy is given the labels with commas between; one of them holds one")
    (template,) = templates(run)
    system = run.config.box.options.get("system", "")
    instructions = (
        f"{system}\n\n".lstrip() + "Answer as this prompt is answered, with {text} filled in:\n"
        f"{START}{template}{STOP}"
    )
    state: dict[str, Any] = {
        "traces": [],
        "train": [],
        "demos": [],
        "signature": {
            "instructions": instructions,
            "fields": [
                {"prefix": "Text:", "description": "${text}"},
                {"prefix": "Label:", "description": CHOICE + ", ".join(labels)}
                if labels
                else {"prefix": "Answer:", "description": ANSWER},
            ],
        },
        "lm": None,
        "metadata": {"dependency_versions": {}},
    }
    written = json.dumps(state, indent=2, ensure_ascii=False) + "\n"
    tested = compare(run, [_read(json.loads(written))])
    return Draft(
        "dspy.json",
        {"": written.encode()},
        f"{tested}; DSPy words its requests in its own way, so measure again there",
    )


def _read(state: dict[str, Any]) -> RenderedPrompt:
    """The prompt in a state."""
    _, found, rest = state["signature"]["instructions"].partition(START)
    template, _, _ = rest.rpartition(STOP)
    said = state["signature"]["fields"][1]["description"]
    if not found or not (said == ANSWER or said.startswith(CHOICE)):
        raise ExportError("the state holds no prompt")
    labels = () if said == ANSWER else tuple(said.removeprefix(CHOICE).split(", "))
    return RenderedPrompt(template, labels, "text")
