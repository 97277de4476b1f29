import pytest

from fedbbpt.config import read, resolve
from fedbbpt.errors import ConfigError
from fedbbpt.trees import locate, merge, override


def test_a_seed_in_a_path_is_the_runs_seed_and_overrides_come_first(tmp_path):
    (tmp_path / "a.toml").write_text(
        'data = {train = "16-{seed}/train.tsv", test = "test.tsv"}\nprompt = {template = "{label}"}'
    )
    plain, other = read(tmp_path / "a.toml"), read(tmp_path / "a.toml", ["run.seed=42"])
    assert plain.data.train == str(tmp_path / "16-0" / "train.tsv")
    assert other.data.train == str(tmp_path / "16-42" / "train.tsv")
    assert other.data.test == str(tmp_path / "test.tsv")
    # What a run directory keeps is the file that was read.
    assert resolve(other.tree() | {"run": {"seed": 7}}, tmp_path).data.train == other.data.train


def test_paths_are_made_absolute_and_variables_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("SETS", "here")
    tree = {"data": {"train": "$SETS/a.csv", "test": ""}, "run": 3}
    locate(tree, tmp_path)
    assert tree["data"] == {"train": str(tmp_path / "here" / "a.csv"), "test": ""}
    with pytest.raises(ConfigError, match=r"data\.train is '\$NO_SUCH/a', but \$NO_SUCH is not"):
        locate({"data": {"train": "$NO_SUCH/a"}}, tmp_path)


@pytest.mark.parametrize("model", ["minilm", "org/name", "package.module:name", "m.onnx:x"])
def test_a_model_may_be_a_name_and_a_file_of_one_is_a_path(tmp_path, model):
    tree = {"box": {"model": model, "vocabulary": "nets/a.tflite"}}
    locate(tree, tmp_path)
    assert tree["box"] == {"model": model, "vocabulary": str(tmp_path / "nets" / "a.tflite")}


def test_a_part_that_is_named_anew_keeps_no_old_options():
    below = {"part": {"name": "a", "lr": 1}, "other": {"x": 1, "y": [1, 2]}}
    above = {"part": {"name": "b"}, "other": {"y": [3]}}
    assert merge(below, above) == {"part": {"name": "b"}, "other": {"x": 1, "y": [3]}}
    assert merge(below, {"part": {"rate": 2}})["part"] == {"name": "a", "lr": 1, "rate": 2}


@pytest.mark.parametrize(("item", "value"), [("a.b=3", 3), ("a.b=[1]", [1]), ("a.b=word", "word")])
def test_an_override_is_toml_or_a_word(item, value):
    tree = {"a": {"c": 1}}
    override(tree, item)
    assert tree == {"a": {"c": 1, "b": value}}
