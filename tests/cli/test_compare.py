"""What a person sees of a comparison, and what it leaves behind."""

import csv
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from scipy import stats

from fedbbpt.cli.table import aligned

METHODS = ["manual", "fedes", "local-only", {"name": "fedes", "label": "short [5]"}, "linear-probe"]


@pytest.fixture
def ask(kit, cli, tmp_path):
    """(exit code, stdout, stderr) of a comparison in ``tmp_path``/out; ``table`` is [compare]."""

    def call(*args, changes=None, **table):
        table = {"methods": METHODS, "seeds": [1, 2], "budgets": [600], **table}
        config = kit.write_config(tmp_path, {"compare": table, "prompt.dim": 4, **(changes or {})})
        return cli("compare", config, "--out", tmp_path / "out", *args)

    return call


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_numbers_of_the_table(ask, tmp_path):
    code, shown, said = ask()
    assert code == 0, said
    rows = read(tmp_path / "out" / "rows.csv")
    assert len(rows) == 10
    scores = {
        name: np.array([float(row["score"]) for row in rows if row["method"] == name])
        for name in ("manual", "fedes", "local-only")
    }
    one, other = scores["fedes"], scores["manual"]
    half = stats.t.ppf(0.975, 1) * one.std(ddof=1) / np.sqrt(2)
    line = next(line for line in shown.splitlines() if line.startswith("fedes  "))
    assert f"{one.mean():.3f} ± {half:.3f}  {(one - other).mean():+.3f}" in line
    assert "config, 600 queries, seeds 1, 2" in shown
    # What could not be run stands in the table and says why below it.
    assert re.search(r"^linear-probe +-$", shown, re.MULTILINE)
    below = shown.partition("against manual")[2]
    assert "linear-probe: linear_probe needs embeddings, but function:toy gives only" in below
    assert "federation " in below and "short [5]" in shown
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert f"| fedes | {one.mean():.3f} ± {half:.3f} | {(one - other).mean():+.3f} |" in table
    assert below.partition("\n\n")[2].splitlines()[0] in table


def test_columns_stand_below_each_other_in_a_pipe(kit, tmp_path):
    """However narrow the terminal is said to be, nothing wraps and nothing is cut off."""
    label = "a method with a name that is as long as a line of a terminal of 80 columns, or more"
    table = {"methods": ["manual", {"name": "fedes", "label": label}], "seeds": [1]}
    config = kit.write_config(tmp_path, {"compare": table, "rounds.max": 1})
    code, shown, said = kit.spawn("compare", config, "--out", tmp_path / "out", COLUMNS="40")
    assert code == 0, said
    lines = shown.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("method "))
    start = lines[head].index("score")
    assert lines[head + 1][:start].strip() == "manual" and lines[head + 1][start].isdigit()
    assert lines[head + 2][:start].strip() == label and lines[head + 2][start].isdigit()
    assert lines[head + 3] == ""
    assert re.search(r"  1 of 2  manual +  \d\.\d{3}\n", shown)


def test_aligned():
    assert aligned([["a", "b", "c"], ["long", "", "x"]]) == ["a     b  c", "long     x"]


def test_one_seed_needs_no_interval(ask, tmp_path):
    code, shown, _ = ask("--seeds", "1")
    assert code == 0 and "±" not in shown.partition("score ± 95 %")[2]
    assert {row["half_95"] for row in read(tmp_path / "out" / "curves.csv")} == {""}


def test_curves_are_what_the_runs_say(kit, ask, tmp_path):
    ask(seeds=[1], changes={"rounds.max": 3})
    out = tmp_path / "out"
    points = [row for row in read(out / "curves.csv") if row["method"] == "fedes"]
    events = kit.events(out / "runs" / "config" / "as-is" / "fedes" / "600-1", "snapshot")
    assert [(int(row["queries"]), float(row["score"])) for row in points] == [
        (event["queries"], pytest.approx(event["test_score"], abs=1e-5)) for event in events
    ]
    picture = (out / "curves-config.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and picture[12:16] == b"IHDR"
    width, height = (int.from_bytes(picture[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (960, 600) and picture[-8:-4] == b"IEND"


def test_a_sweep_makes_a_table_and_a_picture_of_each_value(ask, tmp_path):
    sweep = "partition.alpha=inf,0.5"
    partition = {"kind": "dirichlet", "clients": 3, "alpha": 1.0}
    code, shown, said = ask(
        "--sweep", sweep, "--seeds", "1", changes={"partition": partition}, budgets=[400, 600]
    )
    assert code == 0, said
    for value in ("inf", "0.5"):
        assert (tmp_path / "out" / f"curves-config-partition.alpha={value}.png").is_file()
        for budget in (400, 600):
            assert f"config, partition.alpha={value}, {budget} queries, seeds 1" in shown
            where = f"config, partition.alpha={value} at {budget}: federation "
            assert where in shown
    assert len(read(tmp_path / "out" / "rows.csv")) == 2 * 2 * 5


def test_two_files_and_two_processes(kit, cli, tmp_path):
    table = {"methods": ["manual", "fedes"], "seeds": [1, 2], "budgets": [400]}
    first = kit.write_config(tmp_path / "one", {"compare": table}).rename(tmp_path / "one/one.toml")
    other = kit.write_config(tmp_path / "two").rename(tmp_path / "two/two.toml")
    out = tmp_path / "out"
    code, _, said = cli("compare", first, other, "--out", out, "--jobs", "2")
    assert code == 0, said
    assert [row["data"] for row in read(out / "rows.csv")] == ["one"] * 4 + ["two"] * 4
    assert (out / "curves-one.png").is_file() and (out / "curves-two.png").is_file()
    again = cli("compare", first, other, "--out", out)
    assert again[0] == 0 and "one, 400 queries, seed 1\n  1 of 8  manual" in again[1]


def test_a_baseline_by_name(ask):
    assert "against fedes" in ask(baseline="fedes")[1]


def test_refusals(kit, refused, ask, tmp_path):
    config = kit.write_config(tmp_path)
    refused("compare", config, names=["has no table [compare]", "methods = [...]"])
    table = {"methods": ["fedes"], "sede": 3}
    config = kit.write_config(tmp_path, {"compare": table})
    refused("compare", config, names=["unknown key compare.sede", "did you mean"])
    refused("compare", tmp_path / "missing.toml", names=["missing.toml"])
    config = kit.write_config(tmp_path, {"compare": {"methods": ["manual"]}})
    refused("compare", config, "--out", config, names=["is a file"], out=config)
    refused("compare", config, "--out", tmp_path, names=["holds no comparison"], out=tmp_path)
    refused("compare", config, "--out", tmp_path / "out", "--jobs", "0", names=["--jobs is 0"])


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"methods": ["fedess", "fede"]}, ["'fedess'", "did you mean 'fedes'"]),
        ({"methods": ["fedes"], "budgets": [1, 2]}, ["no method could be run", "needs "]),
        ({"methods": ["linear-probe"]}, ["no method could be run", "needs embeddings"]),
    ],
)
def test_if_nothing_could_be_run_that_is_no_success(ask, options, names):
    code, _, said = ask(**options)
    assert code == 2 and said.count("\n") == 1
    assert all(name in said for name in names)


def test_without_matplotlib_there_are_tables(ask, monkeypatch, tmp_path):
    import builtins

    real = builtins.__import__

    def lacking(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", lacking)
    code, shown, _ = ask("--seeds", "1")
    assert code == 0 and "no pictures: matplotlib is not installed" in shown
    assert "fedbbpt[plots]" in shown and not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted(kit, tmp_path, jobs):
    """As a terminal does it: every process hears of it, one says a sentence, none stays."""
    table = {"methods": ["fedes", "random-search"], "seeds": 9}
    config, log = kit.write_config(tmp_path, {"compare": table}), tmp_path / "asked"
    victim = subprocess.Popen(
        kit.command("compare", config, "--out", tmp_path / "out", "--jobs", jobs),
        env=kit.environment(TOYBOX_SLEEP="0.02", TOYBOX_LOG=str(log)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell's background job hands down a deaf ear for Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
    )
    patience = time.monotonic() + 60
    while not log.exists() and time.monotonic() < patience:
        time.sleep(0.002)
    time.sleep(0.5)  # the second process, too, is past its imports
    os.killpg(victim.pid, signal.SIGINT)
    _, said = victim.communicate(timeout=60)
    asked = log.stat().st_size
    assert victim.returncode == 130
    assert said.decode() == (
        "fedbbpt: interrupted; give the same command again to go on, nothing is paid twice\n"
    )
    time.sleep(0.1)
    assert log.stat().st_size == asked
