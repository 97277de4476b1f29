"""Config -> federation: makes the parts, wires budget and ledger around the box, checks the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np

from fedbbpt import registry, secure
from fedbbpt.baselines import Baseline
from fedbbpt.black_box import AtomicBox
from fedbbpt.budget import FEDERATION, Budget
from fedbbpt.check import (
    check,
    check_baseline,
    check_examples,
    check_inputs,
    check_mapping,
    check_moves,
    check_prompt,
    check_writer,
)
from fedbbpt.config import Config
from fedbbpt.doors import Doors, Shelf, writer_of
from fedbbpt.encoder import encoder
from fedbbpt.errors import ConfigError, closest
from fedbbpt.gather import Gathered, gather
from fedbbpt.parts import Client, Parts, zero
from fedbbpt.phases import PHASES
from fedbbpt.post import Post
from fedbbpt.proposing import PROPOSE
from fedbbpt.protection import check_shields, notes, shields_of
from fedbbpt.protocols import Engine, Prompt, Task
from fedbbpt.sections import Part
from fedbbpt.sharing import TESTER, Split
from fedbbpt.types import Batch


@dataclass(frozen=True)
class Federation:
    """Everything a run is made of.

    Attributes:
        doors: the way to the models.
        clients: names of those that train; ``holders``: those with test examples.
        gathered: candidates that a corpus or the clients named before the prompt was made.
    """

    config: Config
    parts: Parts
    engine: Engine
    doors: Doors
    split: Split
    baseline: Baseline | None
    gathered: Gathered

    @property
    def box(self) -> AtomicBox:
        """The model with its timer and retries."""
        return self.doors.box

    @property
    def budget(self) -> Budget:
        """Of all accounts."""
        return self.doors.budget

    @property
    def clients(self) -> tuple[str, ...]:
        """Names of the clients that train."""
        return self.split.clients

    def holders(self, kind: str) -> list[str]:
        """Names of those who hold examples of a kind ("train", "holdout" or "test")."""
        batches: Mapping[str, Batch] = getattr(self.split, kind)
        return [name for name, batch in batches.items() if batch.size]

    @property
    def test_examples(self) -> int:
        """Number of test examples; those that every client is scored on count once."""
        return sum({id(batch): batch.size for batch in self.split.test.values()}.values())


def build(
    config: Config,
    split: Split,
    shelf: Shelf,
    box: AtomicBox | None = None,
    post: Post | None = None,
) -> Federation:
    """A federation ready for its first round.

    Args:
        config: what is wanted.
        split: the examples, from :func:`fedbbpt.sharing.examples`.
        shelf: where what is paid is kept; it need not be open yet.
        box: a box made already; else the one that the config names.
        post: the way to clients on other machines.

    Raises:
        UsageError: a part does not exist, an option is wrong, or two parts do not fit.
    """
    if box is None:
        box = registry.make("boxes", config.box.kind, config.box.options, "box")
    check_inputs((x for batch in split.train.values() for x in batch.inputs), box)
    shields = shields_of(config)
    split = replace(split, notes=(*split.notes, *notes(config, shields)))
    method, baseline, phases = config.method, _baseline(config, box), dict(PHASES)
    phases |= secure.PHASES if secure.summing(shields) else {}
    if baseline is not None:
        phases |= {phase.name: phase for phase in baseline.phases}
        if baseline.everyone and TESTER in split.test:
            split = replace(split, test=dict.fromkeys(split.clients, split.test[TESTER]))
    trained = {name: split.train[name] for name in split.clients}
    gathered = gather(config, trained) if baseline is None else Gathered()
    parts = Parts(
        optimizer=_part("optimizers", method.optimizer, "method.optimizer"),
        prompt=_prompt(config, split, box, baseline, gathered),
        task=_task(config, split, box),
        aggregator=_part("aggregators", method.aggregator, "method.aggregator"),
        directions=_directions(config),
        wire=method.wire,
        phases={**phases, **gathered.phases, PROPOSE.name: PROPOSE},
        batch=config.rounds.batch if baseline is None else 0,
        counts=config.prompt.mapping != "names" and baseline is None,
        shields=shields,
    )
    _check(parts, box, baseline, config.rounds.steps, split.pictures)
    doors = Doors(config, split, shelf, box, _writer(config, parts.prompt, box))
    engine = _engine(config, parts, split, doors, shelf, post)
    return Federation(config, parts, engine, doors, split, baseline, gathered)


def _check(
    parts: Parts,
    box: AtomicBox,
    baseline: Baseline | None,
    steps: int,
    pictures: bool,
) -> None:
    check(parts, box, steps)
    if baseline is None:
        check_moves(parts.prompt)
        check_shields(parts, steps)
    else:
        check_examples(baseline, parts.task, pictures)
        baseline.prepare(zero(parts.prompt), box)


def _engine(
    config: Config, parts: Parts, split: Split, door: Doors, shelf: Shelf, post: Post | None
) -> Engine:
    nothing = Batch((), np.zeros(0, np.int64))

    def client(name: str) -> Client:
        return Client(
            name,
            split.train.get(name, nothing),
            split.holdout.get(name, nothing),
            split.test.get(name, nothing),
            lambda job, phase: door(name, job, phase),
            vault=shelf,
            public=name == TESTER,
        )

    clients = {name: client(name) for name in dict.fromkeys([*split.clients, *split.test])}
    engine: Engine = registry.make(
        "engines",
        config.engine.kind,
        registry.suited("engines", config.engine.kind, config.engine.options),
        "engine",
        parts=parts,
        clients=clients,
        federation=lambda job, phase: door(FEDERATION, job, phase),
        report=door.budget.report,
        post=post,
    )
    return engine


def _writer(config: Config, prompt: Prompt, box: AtomicBox) -> AtomicBox:
    """The model that writes instructions, where they are written; else the box itself."""
    writer = writer_of(config, box, prompt.writing)
    if prompt.writing is not None:
        check_writer(prompt, writer)
        if prompt.writing.writer == "pool":  # if it cannot be loaded, before anything is paid
            encoder(prompt.writing.encoder)
    elif config.writer is not None:
        raise ConfigError("the table [writer] is for prompt.kind = 'instruction'")
    return writer


def _part(group: str, table: Part, where: str) -> Any:
    return registry.make(group, table.name, table.options, where)


def _baseline(config: Config, box: AtomicBox) -> Baseline | None:
    """The rival, where the method is one."""
    table = config.method.baseline
    if (config.method.kind == "baseline") != (table is not None):
        raise ConfigError(
            "method.kind = 'baseline' and the table [method.baseline] need each other"
        )
    if table is None:
        return None
    baseline: Baseline = _part("baselines", table, "method.baseline")
    check_baseline(table.name, baseline, box)
    return baseline


def _prompt(
    config: Config, split: Split, box: AtomicBox, baseline: Baseline | None, gathered: Gathered
) -> Prompt:
    table = config.prompt
    kind, options = table.kind, table.options
    if baseline is not None:
        kind, options = baseline.prompt, {}
    for name in table.labels:
        if name not in split.classes:
            raise ConfigError(f"prompt.labels names '{name}'; {closest(name, split.classes)}")
    words = [table.labels.get(name, name.replace("_", " ")) for name in split.classes]
    if len(set(words)) < len(words) or not all(word.strip() for word in words):
        raise ConfigError(f"prompt.labels must give every class a word of its own, not {words}")
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
    prompt: Prompt = registry.make(
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
        check_mapping(kind, prompt, box)
    if not counted:
        box.prepare(zero(prompt))
    return prompt


def _task(config: Config, split: Split, box: AtomicBox) -> Task:
    method, positive = config.method, config.data.positive or "".join(split.classes[-1:])
    if positive and positive not in split.classes:
        raise ConfigError(f"data.positive is '{positive}'; {closest(positive, split.classes)}")
    task: Task = registry.make(
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
    return task


def _directions(config: Config) -> str:
    """Shared where a candidate does not depend on the examples, and steps allow it."""
    wanted = config.method.directions
    if wanted != "auto":
        return wanted
    shared = config.prompt.side == "label" and config.rounds.steps == 1
    return "shared" if shared else "distinct"
