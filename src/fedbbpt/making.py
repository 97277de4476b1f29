"""Config -> parts: what a table names, made with what else the config and the model say of it."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from fedbbpt import registry
from fedbbpt.baselines import Baseline
from fedbbpt.black_box import AtomicBox
from fedbbpt.check import check_mapping, check_prompt
from fedbbpt.config import Config
from fedbbpt.errors import ConfigError, closest
from fedbbpt.gather import Gathered
from fedbbpt.parts import zero
from fedbbpt.protocols import Optimizer, Prompt, Task
from fedbbpt.sections import Part, PromptTable
from fedbbpt.sharing import Split


def part(group: str, table: Part, where: str) -> Any:
    """A plug-in with its own options.

    Args:
        group: folder of plug-ins; ``table``: names one; ``where``: the table stands.

    Raises:
        UsageError: there is none of that name, or it has no such option.
    """
    return registry.make(group, table.name, table.options, where)


def prompt(
    config: Config, split: Split, box: AtomicBox, baseline: Baseline | None, gathered: Gathered
) -> Prompt:
    """The prompt of a config over the classes that were found.

    Raises:
        UsageError: the box does not take it, or an option is wrong.
    """
    table = config.prompt
    kind, options = table.kind, table.options
    if baseline is not None:
        kind, options = baseline.prompt, {}
    words = _words(table, split.classes)
    made = registry.find("prompts", kind)
    check_prompt(kind, made, box, table.side)
    takes, sends = signature(made).parameters, made.sends_to(box)
    given: dict[str, Any] = {}
    if "per_class" in takes:
        # Two classes differ by one direction, which a common prompt moves as well as two. A
        # prompt of plain text has one template.
        several = table.side == "label" and len(words) > 2 and "text" not in sends
        given["per_class"] = several if table.per_class == "auto" else table.per_class
    elif table.per_class is True and baseline is None:
        raise ConfigError(f"{kind} prompts cannot be made per class")
    if table.vocabulary != "auto" and "offered" not in takes and baseline is None:
        raise ConfigError(f"{kind} prompts have no candidates; leave prompt.vocabulary away")
    found: Prompt = registry.make(
        "prompts",
        kind,
        options,
        "prompt",
        vocabulary=box.vocabulary,
        template=table.template,
        labels=words,
        side=table.side,
        seed=config.run.seed,
        sends=sends,
        offered=gathered.words,
        vision=box.vision,
        mapping=None,
        **given,
    )
    counted = table.mapping != "names" and (baseline is None or "classes" in baseline.needs)
    if counted and baseline is None:
        check_mapping(kind, found, box)
    if not counted:
        box.prepare(zero(found))
    return found


def _words(table: PromptTable, classes: Sequence[str]) -> list[str]:
    """What each class is called in prompts."""
    for name in table.labels:
        if name not in classes:
            raise ConfigError(f"prompt.labels names '{name}'; {closest(name, classes)}")
    words = [table.labels.get(name, name.replace("_", " ")) for name in classes]
    if len(set(words)) < len(words) or not all(word.strip() for word in words):
        raise ConfigError(f"prompt.labels must give every class a word of its own, not {words}")
    return words


def task(config: Config, split: Split, box: AtomicBox) -> Task:
    """What makes an answer good.

    Raises:
        UsageError: the task does not know the loss, the metric or the class that is named.
    """
    method, positive = config.method, config.data.positive or "".join(split.classes[-1:])
    if positive and positive not in split.classes:
        raise ConfigError(f"data.positive is '{positive}'; {closest(positive, split.classes)}")
    made: Task = registry.make(
        "tasks",
        config.task,
        {},
        "task",
        loss_kind=method.loss,
        margin=method.margin,
        guard=method.guard,
        guard_rate=method.guard_rate,
        vocabulary=box.vocabulary,
        measure=config.metric,
        classes=len(split.classes),
        positive=split.classes.index(positive) if positive else 0,
    )
    return made


def optimizer(config: Config, prompt: Prompt, box: AtomicBox) -> Optimizer[Any]:
    """The search, for rounds that share the budget out where a candidate's price is known before
    anybody's examples are: where it does not depend on them.
    """
    made: Optimizer[Any] = part("optimizers", config.method.optimizer, "method.optimizer")
    price = len(box.split([zero(prompt)], ()).atoms) if made.learns else 0
    if not price:
        return made
    queries = config.budget.queries // config.rounds.max
    return made.sized(prompt.space, queries // (1 if prompt.space.separable else price))


def directions(config: Config) -> str:
    """Shared where a candidate does not depend on the examples, and steps allow it."""
    wanted = config.method.directions
    if wanted != "auto":
        return wanted
    shared = config.prompt.side == "label" and config.rounds.steps == 1
    return "shared" if shared else "distinct"
