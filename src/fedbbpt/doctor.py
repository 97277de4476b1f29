"""What a box can do, found out by asking it, and what follows for a run.

Asks about ten cheap questions with made-up texts or pictures. Nothing is raised for what a model
cannot do: it is a finding, and what depends on it is not asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from fedbbpt import eyesight, registry
from fedbbpt.boxes._remote import Remote
from fedbbpt.boxes.anthropic_http import AnthropicHttp
from fedbbpt.build import build
from fedbbpt.checks import examine
from fedbbpt.config import Config, resolve
from fedbbpt.errors import BoxError, ConfigError, FedbbptError
from fedbbpt.ledger import Ledger
from fedbbpt.needs import count_needs
from fedbbpt.patient import REPEATS, TEXTS, Finding, Patient
from fedbbpt.protocols import AtomicBox
from fedbbpt.sharing import Split, examples
from fedbbpt.trees import Tree, parse
from fedbbpt.types import RenderedPrompt

DEADLINE, TIMEOUT = 30.0, 15.0
"""Seconds for a question, where a run may wait longer."""
ASKING = "Review: {text}\nIs it positive or negative? One word:"
WORDS, POLES = ("terrible", "great"), ("negative", "positive")
PROMPTS = (
    RenderedPrompt("It was {label}.", WORDS, "label"),
    RenderedPrompt("{text} It was {mask}.", WORDS, "text"),
    RenderedPrompt(ASKING, POLES, "text"),
    RenderedPrompt("{text} It was", WORDS, "text"),
)
"""For a box of which no more is known; each takes the first that it can take."""
NAMED, SCORED = "label named in words", "log-probabilities"


class Recommended(NamedTuple):
    """What to tune and how, with the reasons, one for each choice."""

    method: str
    prompt: str
    side: str
    loss: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        box: its name, or the kind of one that could not be made.
        findings: in the order of the checks.
        requests: or calls, where nothing goes over a wire.
        tokens, usd: what they took; dollars are 0 where no price is known.
        recommended: ``None`` where nothing can be tuned.
    """

    box: str
    findings: tuple[Finding, ...]
    requests: int
    tokens: int
    usd: float
    recommended: Recommended | None

    @property
    def possible(self) -> bool:
        """Whether a run of this very config can work."""
        needed = {"box", "reachable", "key", "model", "answers", "scores", "config"}
        return not any(f.ok is False and f.check in needed for f in self.findings)

    def tree(self) -> Tree:
        """As JSON has it."""
        return {
            "box": self.box,
            "possible": self.possible,
            "findings": [finding._asdict() for finding in self.findings],
            "requests": self.requests,
            "tokens": self.tokens,
            "usd": self.usd,
            "recommended": self.recommended and self.recommended._asdict(),
        }


def doctor(path: Path, overrides: Sequence[str] = ()) -> Report:
    """Examine the box of a config file, which may hold nothing but ``[box]``.

    Args:
        path: TOML file.
        overrides: ``"section.key=value"``.

    Raises:
        UsageError: the config is at fault, or an optional package is missing.
    """
    tree = parse(path, overrides)
    whole = "data" in tree and ("prompt" in tree or "set" in tree["data"])
    for table in ("compare", "gateway"):
        tree.pop(table, None)
    if "box" not in tree:
        raise ConfigError(f"{path} has no table [box]; the doctor examines what it names")
    if not whole:
        tree = {
            "box": tree["box"],
            "data": {"train": ""},
            "prompt": {"template": ASKING, "side": "text"},
        }
    config = resolve(tree, path.parent)
    try:
        box = _quick(config)
    except BoxError as error:
        lost = Finding("box", False, str(error), "start it, or correct [box]")
        return Report(config.box.kind, (lost,), 0, 0, 0.0, None)
    split, fault = None, None
    if whole:
        try:
            split = examples(config)
        except FedbbptError as error:
            fault = Finding("config", False, str(error))
    return _report(config, box, split, fault)


def _quick(config: Config, **changes: Any) -> Any:
    """The box of a config with a short deadline."""
    options = {**config.box.options, **changes}
    takes = signature(registry.find("boxes", config.box.kind)).parameters
    for name, most in (("deadline", DEADLINE), ("timeout", TIMEOUT)):
        if name in takes:
            options[name] = min(options.get(name, takes[name].default), most)
    return registry.make("boxes", config.box.kind, options, "box")


def _report(config: Config, box: AtomicBox, split: Split | None, fault: Finding | None) -> Report:
    prompt = _prompt(config, box, split)
    if isinstance(box, Remote):
        patient = _patient(config, box, prompt)
        found, spent = examine(patient), (patient.requests, patient.tokens, patient.usd)
    elif "image" in box.accepts:
        labels = prompt.labels if split else ()
        found, spent = list(eyesight.examine(box, prompt, labels)), (eyesight.ASKED, 0, 0.0)
    else:
        found, spent = list(_local(box, prompt)), (REPEATS, 0, 0.0)
    answered = not any(f.ok is False and f.check in ("reachable", "key", "model") for f in found)
    scored = _ok(found, SCORED) or not isinstance(box, Remote)
    named = _ok(found, NAMED)
    if answered and isinstance(box, Remote):
        found.append(_scores(box, scored, named))
    if answered:
        refused = any(f.check == "embeddings" and f.ok is False for f in found)
        found.append(fault or _fit(config, box, split, refused))
    useful = _ok(found, "answers") if not isinstance(box, Remote) else scored or named
    advice = _recommend(box, scored) if answered and useful else None
    return Report(box.name, tuple(found), *spent, advice)


def _patient(config: Config, box: Remote, prompt: RenderedPrompt) -> Patient:
    """With both ways to ask, where the box has a choice."""
    takes = signature(registry.find("boxes", config.box.kind)).parameters
    scored: Remote | None = box
    worded: Remote | None = None
    if "scores" in takes:
        scored = _quick(config, scores="logprobs")
        typed = getattr(box, "api", "") == "systemone"
        worded = None if typed else _quick(config, scores="labels")
    elif isinstance(box, AnthropicHttp):
        scored, worded = None, box
    deadline = config.box.options.get("deadline", takes["deadline"].default)
    return Patient(box, scored, worded, prompt, float(deadline))


def _prompt(config: Config, box: AtomicBox, split: Split | None) -> RenderedPrompt:
    """The config's own prompt; else the first made-up one that the box takes."""
    words = config.prompt.labels
    if split is not None:
        labels = tuple(words.get(name, name.replace("_", " ")) for name in split.classes)
        return RenderedPrompt(config.prompt.template, labels, config.prompt.side)
    for prompt in PROMPTS:
        try:
            if prompt.side in box.sides:
                box.prepare(prompt)
                return prompt
        except FedbbptError:
            continue
    return PROMPTS[-1]


# --- boxes that send no bill ---------------------------------------------------------------------


def _local(box: AtomicBox, prompt: RenderedPrompt) -> Iterator[Finding]:
    """What any box is asked: a model on this machine, a function, a gateway's."""
    takes = f"takes {_list(box.accepts)} on the {_list(box.sides)} side"
    yield Finding("capabilities", True, f"{takes}; gives {_list(box.gives)}")
    rows, seconds = [], []
    try:
        box.prepare(prompt)
        for _ in range(REPEATS):
            began = time.perf_counter()
            rows.append(box([prompt], TEXTS).scores[0])
            seconds.append(time.perf_counter() - began)
    except Exception as error:  # whatever a user's function raises is a finding
        yield Finding("answers", False, f"{type(error).__name__}: {error}")
        return
    yield _sound(np.array(rows))
    spread = float(np.nan_to_num(np.ptp(np.array(rows), axis=0)).max())
    same = f"{REPEATS} times the same" if spread == 0 else f"within {spread:.2g} nats"
    yield Finding("repeatable", spread == 0, same)
    yield Finding("latency", True, f"{median(seconds):.3f} s for {len(TEXTS)} texts, the median")


def _sound(rows: Any) -> Finding:
    """Whether (R, B, C) scores are log-probabilities that differ between two texts."""
    if not np.isfinite(rows).all():
        return Finding("answers", False, "scores that are not finite")
    if np.abs(np.logaddexp.reduce(rows, axis=-1)).max() > 1e-3:
        return Finding("answers", False, "scores whose probabilities do not add up to one")
    if np.array_equal(rows[0, 0], rows[0, 1]):
        return Finding("answers", False, "the same scores for two different texts")
    return Finding("answers", True, "log-probabilities, and others for another text")


# --- what follows --------------------------------------------------------------------------------


def _ok(findings: Sequence[Finding], check: str) -> bool:
    return any(finding.ok is True and finding.check == check for finding in findings)


def _scores(box: Remote, scored: bool, named: bool) -> Finding:
    """Whether the box as it is configured gets anything to learn from."""
    if getattr(box, "worded", isinstance(box, AnthropicHttp)):
        more = "box.scores = 'auto' would learn more from as many requests" if scored else ""
        return Finding("scores", named, "the label that a reply names", more)
    advice = "set box.scores = 'labels' and method.loss = 'error'" if named else ""
    return Finding("scores", scored, "log-probabilities of the labels", "" if scored else advice)


def _fit(config: Config, box: AtomicBox, split: Split | None, refused: bool) -> Finding:
    """Whether a run of this config would be refused before it began."""
    if split is None:
        return Finding("config", None, "holds [box] alone")
    try:
        federation = build(config, split, Ledger(), box)
        needs = count_needs(federation)
    except FedbbptError as error:
        return Finding("config", False, str(error))
    if refused and "soft" in federation.parts.prompt.sends:
        advice = "start vLLM with --enable-prompt-embeds, or set prompt.kind = 'tokens'"
        return Finding("config", False, "soft prompts need embeddings, which are refused", advice)
    step = sum(needs.step.values()) + needs.common
    return Finding("config", True, f"its parts fit; a step of all clients costs {step} queries")


def _recommend(box: AtomicBox, scored: bool) -> Recommended:
    """By what the box takes and what came back."""
    loss = "cross_entropy" if scored else "error"
    told = "its log-probabilities are real" if scored else "only the label that a reply names is"
    why = [f"loss {loss} because {told}" + ("" if scored else " sure")]
    if "embeddings" in box.gives:
        why.append("linear-probe is the rival to beat: a query for each example is all it needs")
    if box.accepts == {"image"}:
        why.insert(0, "fedlook because few numbers can be learned by differences: a look has nine")
        if "classes" in box.gives:
            why.insert(
                1, "it also learns what the model's own classes mean, by the clients' counts"
            )
        else:
            why.insert(1, "set prompt.mapping = 'names': the model has no classes of its own")
        return Recommended("fedlook", "visual", "image", loss, tuple(why))
    soft = "soft" in box.accepts and box.vocabulary is not None
    if "label" in box.sides:
        pictures = "image" in box.sides
        method, prompt = ("fedes", "soft") if soft and not pictures else ("fedwords", "tokens")
        why.insert(0, "label side because there a candidate is paid once for all clients")
        if pictures:
            why.insert(0, "fedwords because words about images went further than soft prompts")
        elif soft:
            why.insert(0, "fedes because soft prompts are taken; fedwords for words one can read")
        return Recommended(method, prompt, "label", loss, tuple(why))
    if soft:
        why.insert(0, "fedwords because on the text side soft prompts over-fit few examples")
    else:
        why.insert(0, "fedwords because the API takes text only")
    if box.vocabulary is None:
        why.append("give prompt.words, or prompt.vocabulary = 'clients': its tokens are not known")
    return Recommended("fedwords", "tokens", "text", loss, tuple(why))


def _list(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
