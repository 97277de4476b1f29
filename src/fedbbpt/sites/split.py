"""One table as a file for each client, to rehearse a federation on one machine."""

from __future__ import annotations

import csv
from pathlib import Path

from fedbbpt.config import Config
from fedbbpt.errors import ConfigError, RunDirError
from fedbbpt.sharing import examples


def parts(config: Config, out: Path) -> dict[Path, int]:
    """Write each client's training examples, in the order and with the names of a run in one
    process, so that a node with such a file is that client.

    Args:
        config: its ``data.train`` and ``partition`` say what, and how.
        out: a folder that is not there yet, or empty.

    Returns:
        The number of examples in each file.

    Raises:
        UsageError: the data cannot be divided so, or are no labelled texts.
    """
    if config.task != "classify":
        raise ConfigError(f"only labelled texts can be split, and task is '{config.task}'")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunDirError(f"{out} is not empty; choose another --out")
    tree = config.tree()
    tree["data"]["test"], tree["rounds"]["holdout"] = "", 0.0
    whole = examples(Config.model_validate(tree))
    if whole.pictures:
        raise ConfigError("only labelled texts can be split, and these are images")
    out.mkdir(parents=True, exist_ok=True)
    made = {}
    for name in whole.clients:
        batch, file = whole.train[name], out / f"{name}.csv"
        with file.open("w", newline="", encoding="utf-8") as opened:
            rows = csv.writer(opened)
            rows.writerow(("text", "label"))
            labels = (whole.classes[target] for target in batch.targets)
            rows.writerows(zip(batch.inputs, labels, strict=True))
        made[file] = batch.size
    return made
