"""What a model behind an API can do: a function for each check, about ten cheap requests in all."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np

from fedbbpt.boxes._choices import begun_by
from fedbbpt.boxes._wire import Again
from fedbbpt.boxes.vllm_http import VllmHttp, packed
from fedbbpt.errors import BoxError, FedbbptError
from fedbbpt.patient import (
    REPEATS,
    SPOKEN,
    TEXTS,
    UNREADABLE,
    Finding,
    Patient,
    heard,
    png,
    tops_of,
    words_of,
)

SAME = 1e-9
"""Log-probabilities closer than this are the same number."""
NOISY = 0.05
"""Spread of one text's log-probabilities, in nats, from which a step should ask more examples."""
OPENAI, ANTHROPIC = "x-ratelimit-limit-", "anthropic-ratelimit-"


# --- is anybody there? ---------------------------------------------------------------------------


def reachable(patient: Patient) -> Finding:
    """The list of models, which costs nothing; any reply will do."""
    wire = patient.box.wire
    patient.requests += 1
    try:
        wire.get("/models")
    except Again as error:
        if "cannot be reached" not in str(error) and "no reply" not in str(error):
            return Finding("reachable", None, f"{wire.url} lists no models ({error})")
        later = f"a run would ask again for {patient.deadline:g} s (box.deadline) and then give up"
        return Finding("reachable", False, f"{wire.url}: {error}", f"check box.url; {later}")
    return Finding("reachable", True, wire.url)


def key(patient: Patient) -> Finding:
    """Whether the server takes the key, or wants none."""
    try:
        patient.answer(patient.first())
    except BoxError as error:
        if patient.status in (401, 403):
            return Finding("key", False, str(error), "set the variable and try again")
    named = patient.box.wire.key_env
    return Finding("key", True, f"${named} is sent" if os.environ.get(named) else "none is asked")


def model(patient: Patient) -> Finding:
    """Which model answers; where log-probabilities are refused, a label in words will do."""
    ways = [way for way in (patient.first(), patient.worded) if way is not None]
    for way in ways:
        try:
            data = patient.answer(way).data
        except BoxError as error:
            if way is not ways[-1] and patient.status == 400:
                continue  # it may be the log-probabilities that are refused
            return Finding("model", False, str(error), "correct box.model or box.url")
        asked, told = getattr(patient.box, "model", ""), str(data.get("model") or "not named")
        # A version or a revision may follow the name.
        same = told.startswith(asked) or told == "not named"
        return Finding("model", True, told, "" if same else f"box.model is '{asked}'")
    raise AssertionError("there is always one way to ask")


# --- what does it say? ---------------------------------------------------------------------------


def log_probabilities(patient: Patient) -> Finding:
    """Whether they are there, finite, and not the same for two texts."""
    name, way = "log-probabilities", patient.scored
    advice = "set box.scores = 'labels' and method.loss = 'error'"
    if not patient.prompt.labels:
        return Finding(name, None, "not needed: the answers are words")
    if way is None:
        return Finding(name, None, "this API has none", "method.loss = 'error'")
    try:
        rows = [patient.read(way, text).row.tolist() for text in range(len(TEXTS))]
        tops = [tops_of(patient.answer(way, text).data) for text in range(len(TEXTS))]
    except UNREADABLE as error:
        none = patient.answers(way) and not isinstance(error, Again)
        return Finding(name, False, "its replies hold none" if none else str(error), advice)
    if tops[0] == tops[1] and rows[0] == rows[1]:
        return Finding(name, False, "the same for two different texts: they are not real", advice)
    return Finding(name, True, "real numbers, and others for another text")


def listed(patient: Patient) -> Finding:
    """How many tokens are listed, and whether the labels are among them."""
    name, way = "labels among the likeliest tokens", patient.scored
    if way is None or not hasattr(way, "tops"):
        return Finding(name, None, "not asked for by place in a list")
    try:
        tops = [tops_of(patient.answer(way, text).data) for text in range(len(TEXTS))]
    except UNREADABLE:
        tops = []
    if not any(tops):
        return Finding(name, None, "there is no list")
    labels = patient.prompt.labels
    met = {begun_by(token, labels) for found in tops for token in found}
    lacking = [label for i, label in enumerate(labels) if i not in met]
    seen = f"{max(map(len, tops))} tokens of {way.tops} asked for"
    if not lacking:
        return Finding(name, True, f"{seen}; every label is among them")
    missing = ", ".join(f"'{label}'" for label in lacking)
    return Finding(
        name,
        False,
        f"{seen}; {missing} not among them",
        "name the labels in the template, so that the model begins with one of them",
    )


def named(patient: Patient) -> Finding:
    """Whether a reply in words names a label."""
    name, way = "label named in words", patient.worded
    if way is None:
        return Finding(name, None, "not asked for")
    try:
        read = [patient.read(way, text) for text in range(len(TEXTS))]
    except UNREADABLE as error:
        return Finding(name, False, str(error))
    found = sum(reply.named for reply in read)
    advice = "ask for one of the labels and nothing else in the template"
    seen = f"in {found} of {len(read)} replies"
    return Finding(name, found > 0, seen, "" if found == len(read) else advice)


def spoken(patient: Patient) -> Finding:
    """Whether a plain question is answered in words; length and time of the reply."""
    if "text" not in patient.box.gives:
        return Finding(SPOKEN, None, "not a part of this API")
    try:
        return heard(*patient.told())
    except (FedbbptError, LookupError, TypeError, ValueError) as error:
        return Finding(SPOKEN, False, str(error))


def repeatable(patient: Patient) -> Finding:
    """Spread of the log-probabilities of one text; of labels, whether they stay the same."""
    if not patient.prompt.labels:
        return Finding("repeatable", None, "there are no scores to compare")
    found = patient.repeated()
    if found is None:
        return Finding("repeatable", None, "no reply to repeat")
    spread = float(np.ptp(np.array([read.row for read in found[1]]), axis=0).max())
    if spread < SAME:
        return Finding("repeatable", True, f"{len(found[1])} times the same")
    advice = "a step needs more examples to see past it" if spread > NOISY else ""
    return Finding("repeatable", spread <= NOISY, f"within {spread:.2g} nats", advice)


def temperature(patient: Patient) -> Finding:
    """Whether temperature 0 gives the same words each time."""
    way = patient.box
    if patient.prompt.labels:
        found = patient.repeated()
        if found is None or getattr(patient.box, "api", "") == "systemone":
            return Finding("temperature 0", None, "there are no words to compare")
        way, _ = found
    try:
        said = {words_of(patient.answer(way, 0, time).data) for time in range(REPEATS)}
    except UNREADABLE as error:
        return Finding("temperature 0", None, str(error))
    advice = "" if len(said) == 1 else "the server may ignore it: look at its documentation"
    return Finding("temperature 0", len(said) == 1, " / ".join(sorted(said))[:60], advice)


def embeddings(patient: Patient) -> Finding:
    """Whether a prompt may be sent as embeddings, vLLM's way: what soft prompts need."""
    box = patient.box
    if getattr(box, "api", "messages") == "messages" and not isinstance(box, VllmHttp):
        return Finding("embeddings", None, "not a part of this API")
    try:
        if box.vocabulary is not None:
            soft = (np.zeros((1, box.vocabulary.hidden), np.float32),)
            prompt = replace(patient.prompt, soft=soft, mode="insert")
            body = json.loads(box.request(prompt, TEXTS[0]).body)
        else:
            # The size is made up; a server that minds the size takes embeddings.
            rows = packed(np.zeros((4, 8), np.float32))
            body = {"prompt": None, "prompt_embeds": rows, "max_tokens": 1}
    except ImportError:
        return Finding("embeddings", None, "asking needs torch")
    return Finding("embeddings", *patient.probe("/completions", body, "hidden"))


def images(patient: Patient) -> Finding:
    """Whether a message may hold an image."""
    if getattr(patient.box, "api", "") != "chat":
        return Finding("images", None, "not a part of this API")
    url = "data:image/png;base64," + base64.b64encode(png(32)).decode()
    parts = [
        {"type": "text", "text": "Which colour?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 1}
    return Finding("images", *patient.probe("/chat/completions", body))


def latency(patient: Patient) -> Finding:
    """The median of all good replies."""
    if not patient.seconds:
        return Finding("latency", None, "no reply")
    return Finding("latency", True, f"{median(patient.seconds):.3f} s, the median")


def limits(patient: Patient) -> Finding:
    """What the headers say of requests and tokens a minute."""
    told = {
        name: value
        for name, value in patient.headers.items()
        if name.startswith(OPENAI) or (name.startswith(ANTHROPIC) and name.endswith("-limit"))
    }
    if not told:
        return Finding("limits", None, "the headers tell none")
    seen = ", ".join(f"{name}: {value}" for name, value in sorted(told.items()))
    advice = "box.requests_per_minute and box.tokens_per_minute keep a run inside them"
    return Finding("limits", True, seen, advice)


def price(patient: Patient) -> Finding:
    """Whether dollars can be counted and capped."""
    known = patient.box.price
    if known is None:
        return Finding("price", None, "not known", "give box.prices to plan and cap dollars")
    return Finding("price", True, f"${known.input:g} and ${known.output:g} for a million tokens")


CHECKS: tuple[Callable[[Patient], Finding], ...] = (
    reachable,
    key,
    model,
    log_probabilities,
    listed,
    named,
    spoken,
    temperature,
    repeatable,
    embeddings,
    images,
    latency,
    limits,
    price,
)
NEEDED = ("reachable", "key", "model")
"""Without these there is nothing more to find out."""


def examine(patient: Patient) -> list[Finding]:
    """Every check in turn; after one of the first three has failed, none."""
    found: list[Finding] = []
    for check in CHECKS:
        found.append(check(patient))
        if found[-1].ok is False and found[-1].check in NEEDED:
            break
    return found
