"""What a box can do, found out by asking it, and what follows for a run.

Asks about ten cheap questions with made-up texts or pictures. Nothing is raised for what a model
cannot do: it is a finding, and what depends on it is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from fedbbpt import eyesight, nearby, registry
from fedbbpt.advice import WORDY, Recommended, recommend
from fedbbpt.auto import settle
from fedbbpt.black_box import AtomicBox
from fedbbpt.boxes._remote import Remote
from fedbbpt.boxes.anthropic_http import AnthropicHttp
from fedbbpt.build import build
from fedbbpt.checks import examine
from fedbbpt.config import Config, resolve
from fedbbpt.errors import BoxError, ConfigError, FedbbptError
from fedbbpt.ledger import Ledger
from fedbbpt.needs import count_needs, trials
from fedbbpt.patient import SPOKEN, Finding, Patient
from fedbbpt.sharing import Split, examples
from fedbbpt.trees import Tree, parse
from fedbbpt.types import RenderedPrompt
from fedbbpt.writing import HERE

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
            config = settle(config, box, split).config
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
        found, spent = list(nearby.examine(box, prompt)), (nearby.asked(box), 0, 0.0)
    answered = not any(f.ok is False and f.check in ("reachable", "key", "model") for f in found)
    scored = _ok(found, SCORED) or not isinstance(box, Remote)
    named, spoken = _ok(found, NAMED), _ok(found, SPOKEN)
    labelled = bool(prompt.labels) and (scored or named)
    if answered and isinstance(box, Remote):
        if not prompt.labels:
            found.append(Finding("answers", spoken, "words, and no labels are asked for"))
        elif labelled or split is not None or not spoken:
            found.append(_scores(box, scored, named))
    if answered:
        refused = any(f.check == "embeddings" and f.ok is False for f in found)
        found.append(fault or _fit(config, box, split, refused))
    if not answered:
        return Report(box.name, tuple(found), *spent, None)
    useful = labelled or spoken if isinstance(box, Remote) else _ok(found, "answers")
    advice = recommend(box, scored) if labelled else WORDY
    if not useful:
        return Report(box.name, tuple(found), *spent, None)
    if labelled and spoken and split is None:
        also = "fedinstruct instead, for answers in words (task = 'generate')"
        advice = advice._replace(reasons=(*advice.reasons, also))
    return Report(box.name, tuple(found), *spent, advice)


def _patient(config: Config, box: Remote, prompt: RenderedPrompt) -> Patient:
    """With both ways to ask for a label, where the box has a choice and labels are asked for."""
    takes = signature(registry.find("boxes", config.box.kind)).parameters
    scored: Remote | None = box
    worded: Remote | None = None
    if not prompt.labels:
        scored = None
    elif "scores" in takes:
        scored = _quick(config, scores="logprobs")
        typed = getattr(box, "api", "") == "systemone"
        worded = None if typed else _quick(config, scores="labels")
    elif isinstance(box, AnthropicHttp):
        scored, worded = None, box
    deadline = config.box.options.get("deadline", takes["deadline"].default)
    return Patient(box, scored, worded, prompt, float(deadline))


def _prompt(config: Config, box: AtomicBox, split: Split | None) -> RenderedPrompt:
    """The config's own prompt if the box can answer it; else the first made-up one it takes."""
    words = config.prompt.labels
    if split is not None and (split.classes or "text" in box.gives):
        labels = tuple(words.get(name, name.replace("_", " ")) for name in split.classes)
        instruction = str(config.prompt.options.get("instruction", ""))
        template = config.prompt.template.replace(HERE, instruction)
        return RenderedPrompt(template, labels, config.prompt.side)
    if "scores" not in box.gives and "text" in box.gives:
        return RenderedPrompt(ASKING, (), "text")
    for prompt in PROMPTS:
        try:
            if prompt.side in box.sides:
                box.prepare(prompt)
                return prompt
        except FedbbptError:
            continue
    return PROMPTS[-1]


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
        federation = build(config.at_home(), split, Ledger(), box)
        needs = count_needs(federation)
    except FedbbptError as error:
        return Finding("config", False, str(error))
    if refused and "soft" in federation.parts.prompt.sends:
        advice = "start vLLM with --enable-prompt-embeds, or set prompt.kind = 'tokens'"
        return Finding("config", False, "soft prompts need embeddings, which are refused", advice)
    step = (sum(needs.step.values()) + needs.common) * trials(federation)
    return Finding("config", True, f"its parts fit; a step of all clients costs {step} queries")
