"""The request of an OpenAI-compatible API with the tuned prompt in it, byte for byte."""

from __future__ import annotations

import json
from typing import Any

from fedbbpt.errors import ExportError, Incompatible
from fedbbpt.exports._again import SAMPLES, Draft
from fedbbpt.finished import Finished

GAP = b"{text}"
MARK = "@@the-input-goes-here@@"


def draft(run: Finished) -> Draft:
    """One file: the request's JSON with ``{text}`` where the text goes, escaped as JSON.

    Raises:
        Incompatible: the run's box sends no such request, or none with the text in it.
        ExportError: filled in, it is not what was sent in tuning.
    """
    if run.config.box.kind != "openai_http":
        raise Incompatible(
            f"box.kind '{run.config.box.kind}' sends no requests to an OpenAI-compatible API; "
            "use --to text for the prompt in words"
        )
    if run.prompt.kind != "text":
        raise Incompatible(
            f"a prompt of kind '{run.prompt.kind}' is sent as numbers that the text changes, so no "
            "request holds it with the text left out; use: fedbbpt predict or serve-prompt"
        )
    box: Any = run.box()
    sent = box.request(run.prompt, MARK)
    form: bytes = sent.body.replace(MARK.encode(), GAP)
    if form.count(GAP) != 1:
        raise ExportError(f"the request holds {form.count(GAP)} times {{text}}; it must be once")
    for sample in SAMPLES:
        if filled(form, sample) != box.request(run.prompt, sample).body:
            raise ExportError("filled in, the request has other bytes than in tuning")
    where = f"{box.wire.url}{sent.path}"
    tested = f"filled in, {len(SAMPLES)} requests to {where} are those of tuning, byte for byte"
    return Draft("request.json", {"": form}, tested)


def filled(form: bytes, text: str) -> bytes:
    """A request with a text in its gap."""
    return form.replace(GAP, json.dumps(text, ensure_ascii=False)[1:-1].encode())
