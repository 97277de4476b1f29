"""Federations of nodes that live in folders."""

import csv
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from fedbbpt import api
from fedbbpt.config import read
from fedbbpt.sites import invitation
from fedbbpt.sites.agreed import agreed, empty, federated
from fedbbpt.sites.node import settle
from fedbbpt.testing.sites import Desk, honest


def load_kit():
    path = Path(__file__).parents[1] / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class World:
    """One config, run in one process and over nodes in folders."""

    def __init__(self, kit, folder, changes=None, **shape):
        self.kit, self.folder = kit, folder
        self.path = kit.write_config(folder, changes, **shape)
        self.config = read(self.path)
        named = ["engine.kind=flower", 'data.classes=["bad","good"]']
        self.over = federated(read(self.path, named))
        with (folder / "train.csv").open(newline="", encoding="utf-8") as file:
            self.rows = list(csv.reader(file))[1:]
        self.sites = sorted({row[2] for row in self.rows})
        self.homes = {name: self.settle(name) for name in self.sites}

    def settle(self, name, changes=()):
        invited = self.folder / "invited" / name
        invited.mkdir(parents=True, exist_ok=True)
        invitation.write(invited, invitation.invitation(self.over))
        data = self.folder / f"{name}.csv"
        own = [row[:2] for row in self.rows if row[2] == name]
        self.kit.write_table(data, own, ("text", "label"))
        return settle(invited, self.folder / "homes" / name, data, None, changes).home

    def desk(self, meddle=honest):
        return Desk(self.homes, agreed(self.over), meddle)

    @staticmethod
    def assert_same(here, there, within):
        """But for times; means are added up in another order where they are made elsewhere."""
        ours, theirs = (
            {k: v for k, v in run.result.items() if k != "seconds"} for run in (here, there)
        )
        for name in ("baseline", "tuned"):
            ours[name] = pytest.approx(ours[name], abs=within)
        assert theirs == ours

    def here(self, out="here"):
        return api.run(self.config, self.folder / out)

    def there(self, post=None, out="there", **options):
        post = post or self.desk()
        return api.run(self.over, self.folder / out, split=empty(self.over), post=post, **options)


@pytest.fixture
def kit(monkeypatch):
    kit = load_kit()
    monkeypatch.syspath_prepend(str(kit.BOXES))
    return kit


@pytest.fixture
def world(kit, tmp_path):
    def make(changes=None, **shape):
        return World(kit, tmp_path, changes, **shape)

    return make
