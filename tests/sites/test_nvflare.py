"""The same app under NVFlare, which needs an environment of its own: the extra `nvflare`.

Here is what can be told without it, and one run that is left out where NVFlare is not installed.
"""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from fedbbpt.errors import ConfigError, MissingExtra, RunDirError
from fedbbpt.sites import nvflare
from fedbbpt.sites.apps import HOMES, home_of


@pytest.mark.slow
def test_a_run_in_nvflares_simulator_is_the_run_in_one_process(world, tmp_path):
    pytest.importorskip("nvflare")
    w = world({"rounds.max": 2, "data.classes": ["bad", "good"]}, sites=("ash", "birch"))
    here, out = w.here().result, tmp_path / "there"
    where = ["--homes", str(tmp_path / "homes"), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "fedbbpt.sites.nvflare", str(w.path), *where],
        env=w.kit.environment(),
        capture_output=True,
        text=True,
        timeout=480,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    there = w.kit.numbers(out)
    for name in ("baseline", "tuned"):  # the mean over the test is added up in another order
        assert there.pop(name) == pytest.approx(here[name], abs=1e-12)
    assert there == {key: here[key] for key in there}
    assert w.kit.losses(out) == w.kit.losses(tmp_path / "here")
    for home in w.homes.values():
        assert w.kit.prompt(home) == w.kit.prompt(out)


def test_a_node_that_nvflare_starts_finds_the_home_of_its_client(world, monkeypatch):
    w = world()
    assert home_of({"home": "/some/where", "client-name": "ash"}).as_posix() == "/some/where"
    with pytest.raises(ConfigError, match=f"{HOMES} names no folder .* client 'ash'"):
        home_of({"client-name": "ash"})
    monkeypatch.setenv(HOMES, str(w.folder / "homes"))
    assert {name: home_of({"client-name": name}) for name in w.homes} == w.homes
    for told in ({"client-name": "oak"}, {"client-name": ""}, {}):
        with pytest.raises(ConfigError) as refusal:
            home_of(told)
        assert str(w.folder) not in str(refusal.value), "the server reads it"


def versions(installed):
    def version(package):
        if package not in installed:
            raise PackageNotFoundError(package)
        return installed[package]

    return version


@pytest.mark.parametrize(
    ("installed", "error", "said"),
    [
        ({"flwr": "1.33.0"}, MissingExtra, r"nvflare is not installed.*fedbbpt\[nvflare\]"),
        ({"nvflare": "2.9.0"}, MissingExtra, "flwr is not installed"),
        ({"nvflare": "2.9.0", "flwr": "1.35.0"}, ConfigError, "flwr 1.35.0 .* flwr>=1.28,<1.35"),
        ({"nvflare": "2.9.0", "flwr": "1.9.0"}, ConfigError, "flwr 1.9.0"),
    ],
)
def test_a_flower_that_nvflare_cannot_start_is_refused(
    world, tmp_path, monkeypatch, installed, error, said
):
    monkeypatch.setattr(nvflare, "version", versions(installed))
    with pytest.raises(error, match=said):
        nvflare.recipe(world().config, tmp_path / "out", 2, False, False)
    assert not (tmp_path / "out").exists()


def test_a_run_is_neither_replaced_nor_begun_again_unasked(world, monkeypatch):
    w = world({"data.classes": ["bad", "good"]})
    w.there()
    before = w.kit.contents(w.folder / "there")
    monkeypatch.setattr(nvflare, "version", versions({"nvflare": "2.9.0", "flwr": "1.34.0"}))
    with pytest.raises(RunDirError, match="--resume"):
        nvflare.recipe(w.config, w.folder / "there", 3, False, False)
    with pytest.raises(RunDirError, match="another config"):
        nvflare.recipe(w.config, w.folder / "there", 3, False, True)
    assert w.kit.contents(w.folder / "there") == before
