"""MLflow as it is: a run in a database of its own, seen through MLflow's own client."""

from importlib.util import find_spec

import pytest

from fedbbpt.errors import MissingExtra
from fedbbpt.testing.trackers import CONFIG, FACTS, LAWS, RESULT, run_directory
from fedbbpt.trackers import mlflow as plug_in
from fedbbpt.trackers.mlflow import LONGEST, Mlflow

needed = pytest.mark.skipif(find_spec("mlflow") is None, reason="MLflow is not installed")
# Of MLflow and what it is made of.
quiet = pytest.mark.filterwarnings("ignore")


@needed
@quiet
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_laws(law, tmp_path):
    law(lambda folder: Mlflow(str(folder)), tmp_path)


@needed
@quiet
def test_a_resumed_run_is_one_run_with_all_its_numbers(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path, files = run_directory(tmp_path)
    first = Mlflow()
    first.begin("abc", path, CONFIG)
    first.log(0, FACTS)
    first.end({}, ())
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlruns' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fedbbpt").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "KILLED"
    second = Mlflow()
    second.begin("abc", path, CONFIG)
    second.log(1, {**FACTS, "loss": 0.25})
    second.end(RESULT, files)
    (run,) = client.search_runs([experiment])
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert run.data.params["method.optimizer.sigma"] == "1.0"
    assert len(run.data.params["prompt.template"]) == LONGEST
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((m.step, m.value) for m in losses) == [(0, 0.7), (1, 0.25)]
    assert run.data.metrics["tuned.accuracy"] == 0.75
    assert run.data.metrics["gain_interval.low"] == -0.125
    assert "tuned.loss" not in run.data.metrics and "cost_usd" not in run.data.metrics
    kept = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert kept == {"prompt", "report.html", "result.json"}


def test_without_mlflow_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(plug_in, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'fedbbpt\[mlflow\]'"):
        Mlflow().ready()
