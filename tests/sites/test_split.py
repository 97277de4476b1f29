"""A file for each client: nodes with them are the clients of one process."""

import pytest

from fedbbpt.config import Config, read
from fedbbpt.errors import UsageError
from fedbbpt.sharing import examples
from fedbbpt.sites.agreed import federated
from fedbbpt.sites.site import own_split
from fedbbpt.sites.split import parts

DIRICHLET = {"partition.kind": "dirichlet", "partition.clients": 3, "partition.shots": 6}


def test_each_node_holds_what_its_client_held(kit, tmp_path):
    path = kit.write_config(tmp_path, {**DIRICHLET, "data.classes": ["bad", "good"]})
    whole = examples(read(path))
    for file, size in parts(read(path), tmp_path / "parts").items():
        name = file.stem
        tree = federated(read(path)).tree()
        tree["data"]["train"] = str(file)
        own = own_split(Config.model_validate(tree), name)
        for kind in ("train", "holdout"):
            mine, theirs = getattr(own, kind)[name], getattr(whole, kind)[name]
            assert mine.inputs == theirs.inputs
            assert mine.targets.tolist() == theirs.targets.tolist()
        assert size == own.train[name].size + own.holdout[name].size


def test_a_folder_in_use_and_answers_in_words_are_refused(kit, tmp_path):
    config = read(kit.write_config(tmp_path, DIRICHLET))
    with pytest.raises(UsageError, match="not empty"):
        parts(config, tmp_path)
    with pytest.raises(UsageError, match="only labelled texts"):
        parts(config.model_copy(update={"task": "generate"}), tmp_path / "parts")
