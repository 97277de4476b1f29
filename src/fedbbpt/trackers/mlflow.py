"""MLflow: into a folder beside the runs, or to a server that the config names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedbbpt.errors import MissingExtra
from fedbbpt.tracking import Tracker, flat, numbers

TAG = "fedbbpt.run"
LONGEST = 500
"""Characters of a parameter that every version and backend of MLflow takes."""
MOST = 100
"""Parameters in one request, MLflow's own limit."""


class Mlflow(Tracker):
    """One MLflow run for each run; a resumed one goes on with the same.

    Args:
        uri: a folder, which gets ``mlflow.db`` and ``artifacts/``; or the address of a tracking
            server or database. If empty, $MLFLOW_TRACKING_URI, or else ``mlruns`` beside the run
            directory.
        experiment: under which name runs are gathered.
    """

    def __init__(self, uri: str = "", experiment: str = "fedbbpt") -> None:
        self._uri, self._experiment = uri, experiment
        self._client: Any = None
        self._run = ""
        self._step = 0

    def ready(self) -> None:
        """MissingExtra without MLflow."""
        if find_spec("mlflow") is None:
            raise MissingExtra("mlflow", "mlflow")

    def begin(self, run: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Find the experiment and the run, or make them; options become parameters."""
        # It would tell its makers of every use.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        uri = (
            self._uri or os.environ.get("MLFLOW_TRACKING_URI", "") or str(folder.parent / "mlruns")
        )
        place = None
        if "://" not in uri:
            home = Path(uri).absolute()
            home.mkdir(parents=True, exist_ok=True)
            uri, place = f"sqlite:///{home / 'mlflow.db'}", (home / "artifacts").as_uri()
        client = self._client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(self._experiment)
        experiment = (
            found.experiment_id if found else client.create_experiment(self._experiment, place)
        )
        same = client.search_runs([experiment], f"tags.`{TAG}` = '{run}'", max_results=1)
        if same:
            self._run = same[0].info.run_id
            client.update_run(self._run, "RUNNING")
            return
        made = client.create_run(experiment, tags={TAG: run}, run_name=folder.absolute().name)
        self._run = made.info.run_id
        parameters = list(_parameters(config))
        for start in range(0, len(parameters), MOST):
            client.log_batch(self._run, params=parameters[start : start + MOST])

    def log(self, step: int, facts: Mapping[str, float]) -> None:
        """Metrics of one step."""
        self._step = step
        self._log(facts)

    def end(self, result: Mapping[str, Any], files: Sequence[Path]) -> None:
        """The numbers of the result behind the last step, and the files as artifacts."""
        if result:
            self._step += 1
            self._log(numbers(result))
        for file in files:
            keep = self._client.log_artifacts if file.is_dir() else self._client.log_artifact
            keep(self._run, str(file), *([file.name] if file.is_dir() else []))
        self._client.set_terminated(self._run, "FINISHED" if result else "KILLED")

    def _log(self, facts: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, self._step) for key, value in facts.items()]
        self._client.log_batch(self._run, metrics=metrics)


def _parameters(config: Mapping[str, Any]) -> Iterator[Any]:
    from mlflow.entities import Param

    for key, value in flat(config).items():
        if value not in ("", [], None):
            yield Param(key, str(value)[:LONGEST])
