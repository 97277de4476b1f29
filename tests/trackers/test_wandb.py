"""Weights & Biases as it is, offline: what it writes to the disk."""

from importlib.util import find_spec

import pytest

from fedbbpt.errors import ConfigError, MissingExtra
from fedbbpt.registry import make
from fedbbpt.testing.trackers import CONFIG, FACTS, LAWS, RESULT, run_directory
from fedbbpt.trackers import wandb as plug_in
from fedbbpt.trackers.wandb import Wandb

needed = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
quiet = pytest.mark.filterwarnings("ignore")


@needed
@quiet
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_laws(law, tmp_path):
    law(lambda folder: Wandb(folder=str(folder)), tmp_path)


@needed
@quiet
def test_an_offline_run_is_beside_the_run_directory(tmp_path, capfd):
    path, files = run_directory(tmp_path)
    tracker = Wandb(project="tests")
    tracker.begin("abc", path, CONFIG)
    tracker.log(0, FACTS)
    tracker.end(RESULT, files)
    (file,) = (tmp_path / "runs" / "wandb").glob("offline-run-*-abc/run-abc.wandb")
    written = file.read_bytes()
    for word in (b"queries", b"tuned.accuracy", b"gain_interval.low", b"prompt/prompt.json"):
        assert word in written
    assert capfd.readouterr() == ("", "")


def test_only_offline_and_online(tmp_path):
    with pytest.raises(ConfigError, match=r"trackers\.wandb\.mode is 'cloud'"):
        make("trackers", "wandb", {"mode": "cloud"}, "trackers.wandb")


def test_without_wandb_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(plug_in, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'fedbbpt\[wandb\]'"):
        Wandb().ready()
