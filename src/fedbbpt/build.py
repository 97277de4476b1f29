"""Config -> federation: makes the parts, wires budget and ledger around the box, checks the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedbbpt import making, registry, secure
from fedbbpt.baselines import Baseline
from fedbbpt.black_box import AtomicBox
from fedbbpt.budget import FEDERATION, Budget
from fedbbpt.check import (
    check,
    check_baseline,
    check_examples,
    check_inputs,
    check_moves,
    check_writer,
)
from fedbbpt.config import Config
from fedbbpt.doors import Doors, Shelf, writer_of
from fedbbpt.encoder import encoder
from fedbbpt.errors import ConfigError
from fedbbpt.gather import Gathered, gather
from fedbbpt.modelling import LEARN
from fedbbpt.parts import Client, Parts, Phase, zero
from fedbbpt.phases import PHASES
from fedbbpt.post import Post
from fedbbpt.proposing import PROPOSE
from fedbbpt.protection import check_shields, notes, shields_of
from fedbbpt.protocols import Engine, Optimizer, Prompt
from fedbbpt.sharing import TESTER, Split
from fedbbpt.shielding import Shield
from fedbbpt.stopping import check_stop
from fedbbpt.stopping import phases as looks
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
    baseline = _baseline(config, box)
    if baseline and baseline.everyone and TESTER in split.test:
        split = replace(split, test=dict.fromkeys(split.clients, split.test[TESTER]))
    own = {name: split.train[name] for name in split.clients}
    gathered = Gathered() if baseline else gather(config, own)
    prompt = making.prompt(config, split, box, baseline, gathered)
    optimizer = making.optimizer(config, prompt, box)
    parts = Parts(
        optimizer,
        prompt,
        making.task(config, split, box),
        making.part("aggregators", config.method.aggregator, "method.aggregator"),
        making.directions(config),
        config.method.wire,
        {**_phases(config, optimizer, baseline, shields), **gathered.phases},
        batch=config.rounds.batch if baseline is None else 0,
        counts=config.prompt.mapping != "names" and baseline is None,
        shields=shields,
    )
    _check(parts, box, baseline, config.rounds.steps, split.pictures)
    check_stop(config, parts)
    doors = Doors(config, split, shelf, box, _writer(config, prompt, box))
    engine = _engine(config, parts, split, doors, shelf, post)
    return Federation(config, parts, engine, doors, split, baseline, gathered)


def _phases(
    config: Config,
    optimizer: Optimizer[Any],
    baseline: Baseline | None,
    shields: Sequence[Shield],
) -> dict[str, Phase]:
    """All that any part needs, by name."""
    own = baseline.phases if baseline else (LEARN,) if optimizer.learns else ()
    summing = secure.PHASES if secure.summing(shields) else {}
    named = {phase.name: phase for phase in (*PHASES.values(), PROPOSE, *own)}
    return named | summing | looks(config)


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


def _baseline(config: Config, box: AtomicBox) -> Baseline | None:
    """The rival, where the method is one."""
    table = config.method.baseline
    if (config.method.kind == "baseline") != (table is not None):
        raise ConfigError(
            "method.kind = 'baseline' and the table [method.baseline] need each other"
        )
    if table is None:
        return None
    baseline: Baseline = making.part("baselines", table, "method.baseline")
    check_baseline(table.name, baseline, box)
    return baseline
