"""From a table to what a task compares answers with: class indices, numbers or references."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedbbpt import registry
from fedbbpt.arrays import Array
from fedbbpt.config import Config
from fedbbpt.data import answers
from fedbbpt.data.load import Table, classes, numbers
from fedbbpt.errors import ConfigError

POLES = ("low", "high")
"""What a box chooses between where labels are numbers."""


class Coded(NamedTuple):
    """Labels as targets.

    Attributes:
        classes: class names in class order; the poles where labels are numbers, none where answers
            are words.
        train, test: targets.
        strata: (N,) the class of each training example, by which shots and clients are drawn; all
            examples are of one where there are no classes.
        names: of the strata.
    """

    classes: tuple[str, ...]
    train: Array
    test: Array
    strata: Array
    names: tuple[str, ...]


def coded(config: Config, train: Table, test: Table | None) -> Coded:
    """The targets of the config's task.

    Args:
        config: its ``task``; ``data.range`` and ``partition.kind`` have to suit it.
        train, test: labelled examples, or with references.

    Raises:
        ConfigError, DataError: labels, range or partition do not suit the task.
    """
    bounds, task = config.data.range, registry.find("tasks", config.task)
    if task.numbers:
        return _rated(train, test, bounds)
    if bounds is not None:
        raise ConfigError(f"data.range is for labels that are numbers, not for '{config.task}'")
    if task.words:
        answers.check_partition(config.partition.kind)
        tested = answers.targets(test) if test else np.empty(0, object)
        strata = np.zeros(len(train.labels), np.int64)
        return Coded((), answers.targets(train), tested, strata, ("all",))
    names = classes(train, test, config.data.classes)
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[label] for label in train.labels], np.int64)
    wanted = np.array([number[label] for label in test.labels] if test else [], np.int64)
    return Coded(names, labels, wanted, labels, names)


def _rated(train: Table, test: Table | None, bounds: tuple[float, float] | None) -> Coded:
    """Numbers in [0, 1], with the nearest integers of the labels as strata."""
    values = numbers(train, bounds, "training")
    tested = numbers(test, bounds, "test") if test else np.zeros(0)
    assert bounds is not None  # numbers would have refused
    low, high = bounds
    levels, strata = np.unique(np.rint(values).astype(np.int64), return_inverse=True)
    names = tuple(map(str, levels))
    scaled = [(own - low) / (high - low) for own in (values, tested)]
    return Coded(POLES, scaled[0], scaled[1], strata, names)
