"""`fedbbpt demo vision` as a newcomer runs it, and what one can do with what it leaves."""

import csv
import io
import json
import re
import sys
import time

import numpy as np
import pytest

from fedbbpt.data import digits
from fedbbpt.finished import open_run

Image = pytest.importorskip("PIL.Image", reason="the demo needs pillow")
pytest.importorskip("sklearn", reason="the demo needs scikit-learn")

LIMIT = 60.0  # it takes 5 to 10 s


@pytest.fixture(scope="module")
def demo(kit, tmp_path_factory):
    """What a run of it printed, and its directory."""
    out = tmp_path_factory.mktemp("demo") / 'an [odd] "name"'
    began = time.monotonic()
    code, shown, said = kit.spawn("demo", "vision", "--out", out, OMP_NUM_THREADS="1")
    assert (code, said) == (0, "") and time.monotonic() - began < LIMIT
    return out, shown


def test_it_says_what_is_real_and_what_is_not(demo):
    out, shown = demo
    told = " ".join(shown.split())
    for part in (
        "fictional post offices",
        "hold 150 private pictures",
        "The digits are real (scikit-learn's).",
        "What is wrong with the pictures is made by us",
        "a small network that this demo has just trained on other digits",
        f"the 748 test digits were photographed well, it would read {digits.read_well():.1%}",
        "The offices see only its probabilities",
        "No picture leaves its office",
        f"data {out}-data",
        *digits.OFFICES,
    ):
        assert part in told, part


def test_it_reads_most_of_what_it_could_not_read(kit, demo):
    out, shown = demo
    result = kit.result(out)
    before, after = result["baseline"]["accuracy"], result["tuned"]["accuracy"]
    assert f"accuracy  {before:.3f} → {after:.3f}" in shown and "is better than" in shown
    assert before < 0.6 < 0.85 < after <= digits.read_well() and result["gain_interval"][0] > 0.2
    assert (result["clients"], result["test_examples"]) == (5, 748)
    assert result["queries"]["train"] == result["queries"]["budget"] == 4000
    assert "4000 of 4000 for training" in shown and "bytes     88 up and " in shown
    assert re.search(r"time      \d+\.\d s", shown)
    assert f"pictures  {out}/pictures/before-after.png, and prompt.png beside it" in shown
    assert "prompt    9 numbers were tuned; " in shown
    assert "examples/caltech101.toml" in shown


def test_its_pictures_show_the_look(demo):
    out, _ = demo
    strip = np.asarray(Image.open(out / "pictures" / "before-after.png")) / 255
    side = (strip.shape[0] - 12) // 2
    before, after = strip[4 : 4 + side], strip[8 + side : 8 + 2 * side]
    assert after.mean() > before.mean() + 0.1  # brighter than they were taken
    prompt = np.asarray(Image.open(out / "pictures" / "prompt.png"))
    assert prompt.shape == (side + 8, 2 * side + 12, 3)
    assert "stay on this machine" in (out / "pictures" / "README.txt").read_text()


def test_resuming_it_changes_nothing_and_pays_nothing(kit, demo):
    out, _ = demo
    first, seen = kit.numbers(out), kit.contents(out / "pictures")
    code, shown, said = kit.spawn("resume", out, OMP_NUM_THREADS="1")
    assert (code, said) == (0, "") and "accuracy" in shown
    assert kit.numbers(out) == first and kit.contents(out / "pictures") == seen


def test_what_it_tuned_labels_new_pictures(cli, demo):
    out, _ = demo
    code, said, _ = cli("predict", out, "--input", f"{out}-data/test", "--output", f"{out}.csv")
    assert code == 0 and not said
    rows = list(csv.DictReader(io.StringIO(out.with_name(f"{out.name}.csv").read_text())))
    right = [row["image"].split("/")[1] == row["label"] for row in rows]
    accuracy = json.loads((out / "result.json").read_text())["tuned"]["accuracy"]
    assert len(rows) == 748 and np.mean(right) == pytest.approx(accuracy)
    assert open_run(out).pictures


def test_its_plan_is_right_and_the_doctor_is_content(kit, cli, demo):
    out, _ = demo
    code, said, _ = cli("plan", out / "config.toml", "--json")
    planned, result = json.loads(said)["queries"], kit.result(out)["queries"]
    assert code == 0
    for purse in ("train", "select", "evaluation"):
        assert planned[purse] == result[purse]
    assert planned["asked"] == planned["total"] == 4000 + 240 + 6 * 748
    code, said, _ = cli("doctor", out / "config.toml")
    assert code == 0 and "10 of 10 name classes" in said and "a run is possible" in said


def test_overwriting_it_pays_nothing_and_clears_old_pictures(kit, cli, demo):
    out, _ = demo
    (out / "pictures" / "old.png").write_bytes(b"")
    first = kit.numbers(out)["tuned"]
    code, said, _ = cli("demo", "vision", "--out", out, "--overwrite")
    assert code == 0 and "; 0 paid, " in said and kit.numbers(out)["tuned"] == first
    assert not (out / "pictures" / "old.png").exists()


def test_an_old_run_is_not_touched(refused, kit, demo):
    out, _ = demo
    data = kit.contents(out.with_name(f"{out.name}-data"))
    refused("demo", "vision", "--out", out, names=["finished run", "--overwrite"], out=out)
    assert kit.contents(out.with_name(f"{out.name}-data")) == data


# --- bad input -----------------------------------------------------------------------------------


def test_a_demo_that_does_not_exist(refused):
    refused("demo", "visoin", names=["no demo 'visoin'", "did you mean 'vision'?"])


def test_somebody_s_files_where_the_pictures_would_go(refused, tmp_path):
    other = tmp_path / "out-data" / "train"
    other.mkdir(parents=True)
    (other / "mine.png").write_text("mine")
    refused("demo", "vision", "--out", tmp_path / "out", names=["mine.png is not this demo's"])
    assert [path.name for path in tmp_path.rglob("*.png")] == ["mine.png"]


@pytest.mark.parametrize(
    ("module", "package"), [("PIL", "pillow"), ("sklearn.datasets", "scikit-learn")]
)
def test_what_is_not_installed_is_named_before_anything_is_done(
    refused, tmp_path, monkeypatch, module, package
):
    digits._digits.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    names = [f"{package} is not installed; run: pip install 'fedbbpt[vision]'"]
    refused("demo", "vision", "--out", tmp_path / "out", names=names)
    assert not (tmp_path / "out-data").exists()


def test_help_names_both(cli):
    code, said, _ = cli("demo", "--help")
    assert code == 0 and "tickets|vision" in said and "fedbbpt demo vision --out" in said
