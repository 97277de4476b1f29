"""``method = "auto"``: what fits a model, the data and the budget, down to step sizes."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import NamedTuple

from fedbbpt import registry
from fedbbpt.advice import WORDY, Recommended, recommend
from fedbbpt.black_box import AtomicBox
from fedbbpt.config import Config, resolve
from fedbbpt.sections import AUTO
from fedbbpt.sharing import Split, examples
from fedbbpt.trees import Tree, merge

ROUNDS = (4, 16)
"""Fewest and most rounds of a search by a linear model."""
CANDIDATES = 4
"""Fewest candidates of such a round, for each class."""
STEPS = 5
"""Fewest steps of a search for words."""
WIDTH = (4, 20)
"""Fewest and most words that one of its steps tries."""


class Settled(NamedTuple):
    """A config that names its method.

    Attributes:
        box: the model, if it had to be made, or was.
        why: a sentence for each choice; none where the config named its method.
    """

    config: Config
    box: AtomicBox | None
    why: tuple[str, ...] = ()


def settle(config: Config, box: AtomicBox | None = None, split: Split | None = None) -> Settled:
    """Choose, where the config leaves it open; what it does say stands.

    Args:
        config: any.
        box: the model, if it is there already.
        split: the examples, likewise.

    Raises:
        UsageError: the box cannot be made, a file is at fault, or the config does not fit what was
            chosen.
    """
    if config.method.name != AUTO:
        return Settled(config, box)
    if box is None:
        box = registry.make("boxes", config.box.kind, config.box.options, "box")
    split = examples(config) if split is None else split
    size, classes = sum(batch.size for batch in split.train.values()), len(split.classes)
    advice = _advice(config, box)
    sized, reason = _sized(advice.method, config.budget.queries, size, classes)
    method = sized["method"]["name"]
    chosen: Tree = {"prompt": {"kind": advice.prompt, "side": advice.side}}
    if method in ("fedwords", "fedlinear"):
        chosen["method"] = {"loss": advice.loss}
    if advice.side == "image" and "classes" not in box.gives:
        chosen["prompt"]["mapping"] = "names"
    own = config.model_dump(exclude_unset=True)
    own["method"] = {**own.get("method", {}), "name": method}
    why = (reason,) if method == "manual" else (*advice.reasons, reason)
    return Settled(resolve(merge(merge(chosen, sized), own), Path()), box, tuple(filter(None, why)))


def _advice(config: Config, box: AtomicBox) -> Recommended:
    if registry.find("tasks", config.task).words:
        return WORDY
    scored = "scores" in box.gives and not getattr(box, "worded", False)
    # A template says where it stands: it has a gap for texts, or for labels.
    gap = "text" if "{text}" in config.prompt.template else "label"
    sides = box.sides & {gap} if "{" + gap + "}" in config.prompt.template else box.sides
    advice = recommend(box, scored, sides or box.sides)
    kind = _kind(config, advice.prompt)
    if kind == advice.prompt:
        return advice
    method = {"tokens": "fedwords", "instruction": "fedinstruct", "visual": "fedlook"}.get(kind)
    method = method or ("fedlinear" if advice.side == "label" and scored else "fedes")
    reason = f"{method} because [prompt] asks for {kind} prompts"
    return advice._replace(method=method, prompt=kind, reasons=(reason, *advice.reasons[-1:]))


def _kind(config: Config, recommended: str) -> str:
    """Of prompt: the one that the config names, or whose options it has."""
    table = config.prompt
    if "kind" in table.model_fields_set:
        return table.kind
    for kind in dict.fromkeys((recommended, "soft", "tokens")):
        if table.options.keys() <= signature(registry.find("prompts", kind)).parameters.keys():
            return kind
    return recommended


def _sized(method: str, budget: int, examples: int, classes: int) -> tuple[Tree, str]:
    """Step sizes for a budget, and why."""
    if method == "fedlinear":
        rounds = (budget - examples) // (classes * (1 + CANDIDATES))
        if rounds < 1:
            return {"method": {"name": "manual"}}, (
                f"manual because {budget} queries are too few to search with {examples} examples "
                f"and {classes} classes"
            )
        rounds = min(max(rounds, ROUNDS[0]), ROUNDS[1])
        return {"method": {"name": method}, "rounds": {"max": rounds}}, (
            f"{rounds} rounds, among which the budget of {budget} queries is shared out"
        )
    if method == "fedwords" and examples:
        width = min(max(budget // (STEPS * examples) - 1, WIDTH[0]), WIDTH[1])
        return {"method": {"name": method, "optimizer": {"width": width}}}, (
            f"{width} words in each step, so that {budget} queries pay for some steps"
        )
    return {"method": {"name": method}}, ""
