"""Weights & Biases: offline unless the config says otherwise; `wandb sync` sends it later."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from fedbbpt.errors import MissingExtra
from fedbbpt.tracking import Tracker, numbers


class Wandb(Tracker):
    """One W&B run for each run, under the same id when it is resumed.

    Args:
        project, entity: where runs are gathered.
        mode: ``"offline"`` writes to the disk and asks no server; ``"online"`` sends at once.
        folder: of the offline runs (in ``wandb/`` there); if empty, that of the run directory.
    """

    def __init__(
        self,
        project: str = "fedbbpt",
        entity: str = "",
        mode: Literal["offline", "online"] = "offline",
        folder: str = "",
    ) -> None:
        self._project, self._entity, self._mode, self._folder = project, entity, mode, folder
        self._run: Any = None

    def ready(self) -> None:
        """MissingExtra without wandb."""
        if find_spec("wandb") is None:
            raise MissingExtra("wandb", "wandb")

    def begin(self, run: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Open the run; it says nothing on the terminal and reads no code."""
        # It would report errors of its own to its makers.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        home = Path(self._folder or folder.parent)
        home.mkdir(parents=True, exist_ok=True)
        self._name = folder.absolute().name
        self._run = wandb.init(
            project=self._project,
            entity=self._entity or None,
            name=self._name,
            id=run,
            # Without a server nobody knows what was there before.
            resume="allow" if self._mode == "online" else None,
            dir=str(home),
            mode=self._mode,
            config=dict(config),
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )

    def log(self, step: int, facts: Mapping[str, float]) -> None:
        """One row of its history."""
        self._run.log(dict(facts), step=step)

    def end(self, result: Mapping[str, Any], files: Sequence[Path]) -> None:
        """The numbers of the result as its summary, and the files as one artifact."""
        import wandb

        self._run.summary.update(numbers(result))
        if files:
            kept = wandb.Artifact(f"run-{self._run.id}", type="run")
            for file in files:
                # Of a whole folder it would speak on the terminal.
                for one in sorted(file.iterdir()) if file.is_dir() else [file]:
                    kept.add_file(str(one), str(one.relative_to(file.parent)))
            self._run.log_artifact(kept)
        self._run.finish(exit_code=0 if result else 1)
