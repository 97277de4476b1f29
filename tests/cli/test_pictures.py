"""Runs on images: told what was left out, resumed on the same files, and asked about new ones."""

import csv
import io
import json
import tarfile

import numpy as np
import pytest

from fedbbpt.cli import show
from fedbbpt.outcome import Outcome

Image = pytest.importorskip("PIL.Image")

NOTE = "2 of 26 training images could not be read and were left out: "
REASONS = "ash/bad/torn.png (truncated), ash/good/list.txt (not an image)"
LACKING = "1 of 3 sites hold no images of some classes: cedar (bad)"


def shade(seed, label):
    rng = np.random.default_rng(seed)
    low = 120 if label == "good" else 0
    return rng.integers(low, low + 135, (9, 12, 3), dtype=np.uint8)


def draw(path, seed, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shade(seed, label)).save(path)
    return path


@pytest.fixture
def config(kit, tmp_path):
    """A config with images at three sites, of which one lacks a class."""
    for s, site in enumerate(("ash", "birch", "cedar")):
        for i in range(8):
            label = "good" if i % 2 or site == "cedar" else "bad"
            draw(tmp_path / "train" / site / label / f"{i}.png", 10 * s + i, label)
    for i in range(10):
        label = ("good", "bad")[i % 2]
        draw(tmp_path / "test" / label / f"{i}.png", 100 + i, label)
    torn = (tmp_path / "train" / "ash" / "good" / "1.png").read_bytes()
    (tmp_path / "train" / "ash" / "bad" / "torn.png").write_bytes(torn[:200])
    (tmp_path / "train" / "ash" / "good" / "list.txt").write_text("no")
    changes = {
        "data": {"train": "train", "test": "test", "layout": "site/class"},
        "box": {"answer": "picturebox:answer", "accepts": ["soft", "image"]}
        | {"kind": "function", "name": "toy"},
    }
    return kit.write_config(tmp_path, changes)


@pytest.fixture
def ended(cli, config, tmp_path):
    out = tmp_path / "out"
    assert cli("run", config, "--out", out)[::2] == (0, "")
    return out


def sentences(kit, out):
    return [event["sentence"] for event in kit.events(out, "note")]


def test_a_run_says_what_it_left_out(kit, cli, config, tmp_path):
    out = tmp_path / "out"
    code, said, _ = cli("run", config, "--out", out)
    assert code == 0 and kit.result(out)["test_examples"] == 10
    assert f"warning   {NOTE}{REASONS}\n" in said and f"warning   {LACKING}\n" in said
    assert "copy examples/caltech101.toml" in said and "\npictures  " not in said
    assert sentences(kit, out) == [NOTE + REASONS, LACKING]
    assert kit.result(out)["tuned"]["accuracy"] > 0.8
    # Each by itself: said once for all.
    changes = ("--set", "method.name=local-only", "--set", "partition.kind=iid")
    few = ("--set", "partition.clients=2", "--set", "data.corrupt=skip")
    said = cli("run", config, "--out", tmp_path / "alone", *changes, *few)[1]
    assert said.count(NOTE) == 1 and LACKING not in said


def test_a_prompt_that_changes_no_image_says_so(tmp_path, capsys):
    (tmp_path / "prompt").mkdir()
    (tmp_path / "prompt" / "prompt.json").write_text('{"pictures": true, "side": "image"}')
    outcome = Outcome({"stopped": "budget"}, None, tmp_path, {})
    show._where(outcome)
    said = capsys.readouterr().out
    assert "pictures  none: the chosen prompt leaves every image as it is" in said
    assert "copy examples/caltech101.toml" in said


def test_a_run_that_was_cut_off_goes_on_to_the_same_end(kit, cli, config, ended, break_after):
    cut = ended.parent / "cut"
    break_after(60)
    assert cli("run", config, "--out", cut)[0] == 1
    break_after()
    # What a system leaves beside images changes nothing; an image does.
    (config.parent / "train" / ".DS_Store").write_bytes(b"x")
    assert cli("resume", cut)[0] == 0
    assert kit.numbers(cut) == kit.numbers(ended)
    assert kit.prompt(cut) == kit.prompt(ended) and kit.losses(cut) == kit.losses(ended)
    assert sentences(kit, cut) == sentences(kit, ended)


@pytest.mark.parametrize("change", ["other pixels", "another name", "one more"])
def test_a_run_on_images_that_have_changed(refused, config, ended, change):
    path = config.parent / "train" / "birch" / "good" / "1.png"
    if change == "other pixels":
        draw(path, 77, "good")
    elif change == "another name":
        path.rename(path.with_name("11.png"))
    else:
        draw(path.with_name("11.png"), 78, "good")
    refused("resume", ended, names=["data.train has changed"], out=ended)


def test_a_run_on_a_table_whose_images_have_changed(kit, cli, refused, config, tmp_path):
    paths = sorted((tmp_path / "train").rglob("?.png"))
    rows = [(str(p.relative_to(tmp_path)), p.parts[-2], p.parts[-3]) for p in paths]
    rows.append(("train/gone.png", "bad", "ash"))
    kit.write_table(tmp_path / "images.csv", rows, ("path", "label", "site"))
    out = tmp_path / "listed"
    table = ("--set", "data.train=images.csv", "--set", "data.image=path")
    said = cli("run", config, *table, "--out", out)[1]
    assert "1 of 25 training images could not be read" in said and LACKING in said
    assert cli("resume", out)[0] == 0
    draw(paths[0], 77, "good")
    refused("resume", out, names=["data.train has changed"], out=out)


def test_images_that_must_all_be_whole(refused, config, tmp_path):
    strict = ("--set", "data.corrupt=refuse")
    names = ["ash/bad/torn.png cannot be read (truncated)"]
    refused("run", config, *strict, "--out", tmp_path / "out", names=names)


# --- predict -------------------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path):
    """New images in folders of no meaning, and something that is not one."""
    folder = tmp_path / "new"
    for i, label in enumerate(("good", "bad", "good")):
        draw(folder / "some" / f"{i}.png", 200 + i, label)
    (folder / "notes.txt").write_text("no")
    return folder


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_new_images_get_labels(cli, ended, fresh, tmp_path, monkeypatch):
    code, said, told = cli("predict", ended, "--input", fresh)
    found = lines(said)
    assert code == 0 and [list(row) for row in found] == [["image", "label", "probability"]] * 4
    assert [row["image"] for row in found] == ["notes.txt", *(f"some/{i}.png" for i in range(3))]
    assert [row["label"] for row in found] == [None, "good", "bad", "good"]
    assert found[0]["probability"] is None and all(r["probability"] >= 0.5 for r in found[1:])
    assert "1 of 4 input images could not be read and have no label: notes.txt (not an" in told
    assert "3 images answered by function:toy" in told
    with tarfile.open(tmp_path / "new.tar.gz", "w:gz") as whole:
        whole.add(fresh, "new")
    monkeypatch.setattr("fedbbpt.cli.use.CHUNK", 2)
    assert cli("predict", ended, "--input", tmp_path / "new.tar.gz" / "new")[1] == said
    target = tmp_path / "answers.csv"
    assert cli("predict", ended, "--input", fresh / "some", "--output", target)[0] == 0
    answers = list(csv.DictReader(io.StringIO(target.read_text())))
    assert [(row["image"], row["label"]) for row in answers] == [
        (f"{i}.png", found[i + 1]["label"]) for i in range(3)
    ]
    one = lines(cli("predict", ended, "--input", fresh / "some" / "1.png")[1])
    assert one == [found[2] | {"image": "1.png"}]


def test_a_table_of_new_images_keeps_its_columns(cli, ended, fresh):
    source = fresh / "all.csv"
    source.write_text("id,image,label\n7,some/0.png,?\n8,gone.png,?\n9,some/1.png,?\n")
    code, said, told = cli("predict", ended, "--input", source)
    found = list(csv.DictReader(io.StringIO(said)))
    assert code == 0 and [row["id"] for row in found] == ["7", "8", "9"]
    assert [row["prediction"] for row in found] == ["good", "", "bad"]
    assert [row["label"] for row in found] == ["?"] * 3 and found[1]["probability"] == ""
    assert "gone.png (does not exist)" in told


def test_images_that_cannot_be_asked_about(kit, cli, refused, ended, tmp_path):
    for name in ("missing", "missing.tar", "missing.csv"):
        refused("predict", ended, "--input", tmp_path / name, names=[name, "does not exist"])
    (tmp_path / "empty").mkdir()
    refused("predict", ended, "--input", tmp_path / "empty", names=["holds no images"])
    (tmp_path / "torn.png").write_bytes(b"x")
    code, said, told = cli("predict", ended, "--input", tmp_path / "torn.png")
    assert (code, lines(said)[0]["label"]) == (2, None) and "(not an image)" in told
    (tmp_path / "a.csv").write_text("picture\nx.png\n")
    refused("predict", ended, "--input", tmp_path / "a.csv", names=["no column 'image'"])
    # A run on texts knows nothing of images.
    config, out = kit.write_config(tmp_path / "texts"), tmp_path / "texts" / "out"
    assert cli("run", config, "--out", out)[0] == 0
    refused("predict", out, "--input", tmp_path / "test", names=["is a directory"])
