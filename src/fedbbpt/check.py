"""Do the parts fit? Judged from the capabilities they declare, when the federation is built."""

from __future__ import annotations

from collections.abc import Iterable

from fedbbpt.baselines import Baseline
from fedbbpt.black_box import AtomicBox
from fedbbpt.errors import Incompatible
from fedbbpt.parts import Parts
from fedbbpt.protocols import Aggregator, Prompt, Task
from fedbbpt.types import Picture

ROOM = 256
"""Tokens that a question to a writer may well take."""


def check_prompt(kind: str, prompt: type[Prompt], box: AtomicBox, side: str) -> None:
    """Refuse a kind of prompt that a box cannot take, before one is made.

    Args:
        kind: the prompt's plug-in name; ``prompt``: its class.
        box: the leaf box.
        side: where the prompt is to stand.

    Raises:
        Incompatible: the box does not take it.
    """
    sends = prompt.sends_to(box)
    if not sends <= box.accepts:
        instead = ""
        if "text" in box.accepts:
            instead = "; take prompt.kind = 'tokens', which are words"
        elif box.accepts == {"image"}:
            instead = "; take a method for images, such as 'fedlook'"
        raise Incompatible(
            f"{kind} prompts send {_list(sends)}, but {box.name} accepts only "
            f"{_list(box.accepts)}{instead}"
        )
    if side not in box.sides:
        raise Incompatible(
            f"prompt.side is '{side}', but {box.name} takes prompts only on: {_list(box.sides)}"
        )
    if kind == "visual" and box.vision is None:
        raise Incompatible(
            f"{kind} prompts need the size of the model's images, and {box.name} does not say it"
        )
    if sends & {"soft", "tokens"} and box.vocabulary is None:
        raise Incompatible(f"{kind} prompts need the box's vocabulary, and {box.name} has none")


def check_mapping(kind: str, prompt: Prompt, box: AtomicBox) -> None:
    """Refuse to count the classes of a box that has none of its own, or for a prompt of texts.

    Raises:
        Incompatible: the two need no label mapping.
    """
    if not prompt.maps:
        raise Incompatible(
            f"prompt.mapping 'counts' and 'learned' are for visual prompts, not for {kind}"
        )
    if "classes" not in box.gives:
        raise Incompatible(
            "prompt.mapping 'counts' and 'learned' need a classifier with classes of its own, and "
            f"{box.name} has none"
        )


def check_inputs(inputs: Iterable[object], box: AtomicBox) -> None:
    """Refuse images for a box that takes texts, and the reverse; the first input tells.

    Raises:
        Incompatible: it cannot take them.
    """
    first = next(iter(inputs), None)
    if isinstance(first, Picture) and "image" not in box.accepts:
        raise Incompatible(f"the examples are images, but {box.name} takes texts")
    if isinstance(first, str) and box.accepts == {"image"}:
        raise Incompatible(f"the examples are texts, but {box.name} takes images")


def check_baseline(kind: str, baseline: Baseline, box: AtomicBox) -> None:
    """Refuse a baseline that needs more than a box gives.

    Raises:
        Incompatible: it does.
    """
    lacking = baseline.needs - box.gives
    if lacking:
        raise Incompatible(
            f"{kind} needs {_list(lacking)}, but {box.name} gives only {_list(box.gives)}"
        )


def check_writer(prompt: Prompt, writer: AtomicBox) -> None:
    """Refuse a model that cannot write instructions as they are to be written.

    Raises:
        Incompatible: it gives no text, or takes no soft prompts where these are to be searched.
    """
    assert prompt.writing is not None
    if "text" not in writer.gives:
        raise Incompatible(
            f"{writer.name} cannot write instructions, for it gives {_list(writer.gives)}; name a "
            "model that answers in words in the table [writer]"
        )
    if writer.max_tokens is not None and writer.max_tokens < ROOM:
        raise Incompatible(
            f"{writer.name} cuts texts at {writer.max_tokens} tokens, and a writer is shown "
            f"several examples; set max_tokens = {2 * ROOM} in the table [writer]"
        )
    if prompt.writing.writer == "soft" and not (
        "soft" in writer.accepts and writer.vocabulary is not None
    ):
        raise Incompatible(
            f"prompt.writer is 'soft', but {writer.name} accepts only {_list(writer.accepts)}; "
            "name an open model in the table [writer], or set prompt.writer = 'pool'"
        )


def check_examples(baseline: Baseline, task: Task, pictures: bool) -> None:
    """Refuse a baseline that learns classes for a task of numbers, or one of texts for pictures.

    Raises:
        Incompatible: it does.
    """
    if pictures and not baseline.pictures:
        raise Incompatible(f"{_name(baseline)} works on texts, and the examples are images")
    if task.words and not baseline.words:
        raise Incompatible(
            f"{_name(baseline)} learns classes, but the answers of this task are words"
        )
    if task.numbers and not baseline.numbers:
        raise Incompatible(
            f"{_name(baseline)} learns classes, but the labels of this task are numbers"
        )


def check_moves(prompt: Prompt) -> None:
    """Refuse a search over a prompt that cannot move.

    Raises:
        Incompatible: its points have no numbers.
    """
    if 0 in prompt.space.shape:
        raise Incompatible(
            f"{_name(prompt)} prompts have nothing to search; set prompt.kind = 'soft' or 'tokens'"
        )


def check(parts: Parts, box: AtomicBox, steps: int) -> None:
    """Refuse parts that do not fit, in one plain sentence.

    Args:
        parts: the method's parts.
        box: the leaf box.
        steps: local steps per round.

    Raises:
        Incompatible: two parts do not fit.
    """
    prompt, optimizer, aggregator = parts.prompt, parts.optimizer, parts.aggregator
    needed = "text" if parts.task.words else "scores"
    if needed not in box.gives:
        raise Incompatible(f"{box.name} gives {_list(box.gives)}; this task needs {needed}")
    if prompt.space.kind not in optimizer.spaces:
        raise Incompatible(
            f"{_name(optimizer)} searches {_list(optimizer.spaces)} spaces, "
            f"but {_name(prompt)} prompts need a {prompt.space.kind} one"
        )
    fields = set(optimizer.state._fields)
    lacking = {*aggregator.needs, *aggregator.fields(optimizer)} - fields
    if lacking or not aggregator.fields(optimizer):
        reason = f"its state has no {_list(lacking)}" if lacking else "its state has no mean"
        raise Incompatible(
            f"{_name(aggregator)} cannot merge the states of {_name(optimizer)}: {reason}"
        )
    if optimizer.learns:
        _check_learner(parts)
    if aggregator.shared and parts.directions != "shared":
        raise Incompatible(
            f"{_name(aggregator)} compares what clients say of the same candidates; "
            "set method.directions = 'shared'"
        )
    if parts.directions == "shared" and steps > 1:
        raise Incompatible(
            f"rounds.steps is {steps}, but shared directions allow one step per round: "
            "after it the clients' candidates differ; set method.directions = 'distinct'"
        )


def _check_learner(parts: Parts) -> None:
    """An optimiser that learns from scores needs all of them, on the same examples."""
    name, loss = _name(parts.optimizer), getattr(parts.task, "loss_kind", "")
    if parts.task.words or parts.task.extends or loss != "cross_entropy":
        raise Incompatible(
            f"{name} minimises the cross-entropy of scores; leave method.loss and method.guard "
            "away, or take method.name = 'fedes'"
        )
    if parts.wire == "replay":
        raise Incompatible(
            f"{name} learns from scores that stay at the clients, so the server cannot repeat its "
            "search; set method.wire = 'state'"
        )
    if parts.batch:
        raise Incompatible(
            f"{name} follows each example from round to round; leave rounds.batch away"
        )


def check_clients(aggregator: Aggregator, active: int) -> None:
    """Refuse a merge of more clients than are active in a round.

    Raises:
        Incompatible: there are too few.
    """
    if active < aggregator.least:
        raise Incompatible(
            f"{_name(aggregator)} needs {aggregator.least} clients in every round, and only "
            f"{active} take part in one; take a merge for fewer, such as 'median'"
        )


def _name(part: object) -> str:
    return type(part).__name__.lower()


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
