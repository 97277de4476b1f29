"""A comparison: its grid, and that nothing is paid twice whoever dies or works beside whom."""

import csv
import json
import random
import signal
import sqlite3
import subprocess
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from fedbbpt import api
from fedbbpt.compare import LEDGER, carry_out
from fedbbpt.errors import BoxError, ConfigError
from fedbbpt.grid import file_name, plan

METHODS = ["manual", "fedes", "random-search", "local-only", "centralised"]
MOODS = ("seconds", "paid_queries")  # depend on the machine, and on who was first


def load_kit():
    path = Path(__file__).parent / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load_kit()


@pytest.fixture(autouse=True)
def toybox(monkeypatch):
    monkeypatch.syspath_prepend(kit.BOXES)
    import toybox

    return toybox


def write(folder, compare=None, changes=None, name="toy"):
    """A config with a table [compare]."""
    compare = {"methods": METHODS, "seeds": [1, 2], "budgets": [600], **(compare or {})}
    changes = {"compare": compare, "rounds.max": 3, "prompt.dim": 4, **(changes or {})}
    path = kit.write_config(folder, {k: v for k, v in changes.items() if v is not None})
    return path.rename(folder / f"{name}.toml")


def cells_of(path, *more, **options):
    return plan([path, *more], path.parent / "out" / LEDGER, **options).cells


def run(path, jobs=1, out=None, told=lambda cell, row: None, **options):
    out = out or path.parent / "out"
    return carry_out(plan([path], out / LEDGER, **options).cells, out, jobs, told)


def paid(out):
    """(rows in the ledger, distinct keys)."""
    ledger = sqlite3.connect(out / LEDGER)
    try:
        return ledger.execute("SELECT count(*), count(DISTINCT key) FROM rows").fetchone()
    finally:
        ledger.close()


def told_by(row):
    return {key: value for key, value in row.items() if key not in MOODS}


# --- the grid ------------------------------------------------------------------------------------


def test_the_order_of_the_grid(tmp_path):
    table = {
        "methods": ["manual", {"name": "fedes", "label": "long", "budgets": [900]}],
        "budgets": [600, 900],
        "sweep": {"rounds.holdout": [0.25, 0.5]},
    }
    found = [(c.setting, c.seed, c.budget, c.method) for c in cells_of(write(tmp_path, table))]
    assert found == [
        (f"rounds.holdout={value}", seed, budget, method)
        for value in (0.25, 0.5)
        for seed in (1, 2)
        for budget, method in ((600, "manual"), (900, "manual"), (900, "long"))
    ]


def test_a_cells_config_is_what_its_place_says(tmp_path):
    entry = {"name": "fedes", "set": ["method.snapshots=7", "budget.queries=1"]}
    (cell,) = cells_of(
        write(tmp_path, {"methods": [entry], "budgets": [777], "seeds": [5]}),
        sweep="partition.alpha=inf",
    )
    config = cell.config
    assert (config.method.name, config.method.snapshots) == ("fedes", 7)
    assert (config.run.seed, config.partition.alpha) == (5, float("inf"))
    assert config.budget.queries == 777  # equal for all: no method may help itself to more
    assert Path(config.run.ledger) == tmp_path / "out" / LEDGER


def test_a_row_with_another_kind_of_prompt_leaves_the_others_options(tmp_path):
    rows = ["fedes", {"name": "fedwords", "set": ["prompt.slots=2", "prompt.kind=tokens"]}]
    changes = {"prompt.kind": "soft", "prompt.mode": "insert", "prompt.tokens": 3}
    path = write(tmp_path, {"methods": rows, "seeds": [1]}, changes)
    soft, words = (cell.config.prompt for cell in cells_of(path))
    assert soft.options == {"mode": "insert", "tokens": 3, "dim": 4}
    assert words.kind == "tokens" and words.options["slots"] == 2
    assert not {"mode", "tokens", "dim"} & words.options.keys()
    assert (words.template, words.side) == (soft.template, soft.side)


@pytest.mark.parametrize(
    ("seeds", "asked", "found"),
    [
        (3, None, [0, 1, 2]),
        (None, None, [0, 1, 2, 3, 4]),
        ([7, 9, 4], 2, [7, 9]),
        ([7], 3, [0, 1, 2]),
    ],
)
def test_seeds(tmp_path, seeds, asked, found):
    path = write(tmp_path, {"methods": ["manual"], "seeds": seeds} if seeds else None)
    if seeds is None:
        path = write(tmp_path, changes={"compare": {"methods": ["manual"]}})
    assert [cell.seed for cell in cells_of(path, seeds=asked)] == found


def test_the_command_lines_sweep_takes_the_place_of_the_configs(tmp_path):
    path = write(tmp_path, {"methods": ["manual"], "seeds": 1, "sweep": {"run.seed": [8]}})
    found = cells_of(path, sweep="rounds.holdout=0.2, 0.3")
    assert [cell.setting for cell in found] == ["rounds.holdout=0.2", "rounds.holdout=0.3"]
    assert [cell.config.rounds.holdout for cell in found] == [0.2, 0.3]


def test_two_files(tmp_path):
    """The first table counts for files without one, wherever it stands."""
    bare = write(tmp_path / "a", changes={"compare": None}, name="bare")
    full = write(tmp_path / "b", {"methods": ["manual", "fedes"], "baseline": "fedes"}, name="full")
    planned = plan([bare, full], tmp_path / LEDGER)
    assert [cell.data for cell in planned.cells] == ["bare"] * 4 + ["full"] * 4
    assert planned.baseline == "fedes"
    assert Path(planned.cells[0].config.data.train) == tmp_path / "a" / "train.csv"


def test_a_fault_is_that_cells_own(tmp_path):
    entry = {"name": "fedes", "label": "odd", "set": ["method.optimizer.pear=3", "rounds.step=2"]}
    found = cells_of(write(tmp_path, {"methods": ["manual", entry], "seeds": 1}))
    assert (found[0].fault, found[1].config) == ("", None)
    assert "unknown key rounds.step" in found[1].fault


FAULTS = {
    "no table": ({"compare": None}, {}, ["has no table [compare]", "methods = [...]"]),
    "key": ({"compare.seedz": 3}, {}, ["unknown key compare.seedz", "did you mean 'seeds'"]),
    "entry": (
        {"compare.methods": [{"name": "fedes", "lable": "x"}]},
        {},
        ["unknown key compare.methods.lable", "did you mean 'label'"],
    ),
    "no methods": ({"compare.methods": []}, {}, ["compare.methods", "at least 1"]),
    "no name": ({"compare.methods": [{"label": "x"}]}, {}, ["lacks compare.methods", "name"]),
    "method": ({"compare.methods": ["fedess"]}, {}, ["'fedess'", "did you mean 'fedes'"]),
    "baseline": ({"compare.baseline": "manuel"}, {}, ["'manuel'", "did you mean 'manual'"]),
    "seeds": ({"compare.seeds": 0}, {}, ["compare.seeds is 0", "greater than or equal to 1"]),
    "budgets": ({"compare.budgets": [-5]}, {}, ["compare.budgets is -5"]),
    "two keys": ({"compare.sweep": {"a.b": [1], "a.c": [1]}}, {}, ["compare.sweep", "at most 1"]),
    "one value": ({"compare.sweep": {"a.b": 1}}, {}, ["compare.sweep is 1", "list"]),
    "twice": ({"compare.methods": ["fedes", "fedes"]}, {}, ["twice for fedes", "label"]),
    "seed twice": ({"compare.seeds": [1, 1]}, {}, ["twice for manual", "seed 1"]),
    "places": (
        {"compare.methods": [{"name": "fedes", "label": "a/b"}, {"name": "fedes", "label": "a:b"}]},
        {},
        ["twice for a:b"],
    ),
    "sweep": ({}, {"sweep": "rounds.holdout"}, ["--sweep 'rounds.holdout'", "section.key=a,b,c"]),
    "hole": ({}, {"sweep": "rounds.holdout=0.2,,0.3"}, ["--sweep", "section.key=a,b,c"]),
    "swept key": ({}, {"sweep": "rounds.hold=0.2"}, ["rounds.hold", "did you mean 'holdout'"]),
    "no test": ({"data": {"train": "train.csv"}}, {}, ["data.test", "test examples"]),
    "word": ({"method": "fedes"}, {}, ["method is 'fedes'", "[method]"]),
    "never": (
        {"compare.methods": [{"name": "fedes", "budgets": [7]}]},
        {},
        ["none of the methods", "600"],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_comparison_that_cannot_be_made(tmp_path, case):
    changes, options, names = FAULTS[case]
    table = {k.partition(".")[2]: v for k, v in changes.items() if k.startswith("compare.")}
    tree = {k: v for k, v in changes.items() if not k.startswith("compare.")}
    path = write(tmp_path, table, tree)
    with pytest.raises(ConfigError) as caught:
        cells_of(path, **options)
    for name in names:
        assert name in str(caught.value)


def test_files_of_one_name(tmp_path):
    paths = [write(tmp_path / folder) for folder in "ab"]
    with pytest.raises(ConfigError, match="the same name"):
        cells_of(*paths)


def test_a_file_name_leads_nowhere_else():
    for text in ("../x", "a/b", "..", ".", "a\\b", "a\0b", 'p:*?"<>|'):
        assert Path("runs", file_name(text)).parent == Path("runs")
        assert not set(file_name(text)) & set('/\\:*?"<>|\0') and file_name(text) not in (".", "..")
    assert file_name("BDPL's update, alpha=0.1") == "BDPL's update, alpha=0.1"


# --- what is paid --------------------------------------------------------------------------------


def test_nothing_is_paid_twice_and_everyone_is_charged_in_full(tmp_path):
    path = write(tmp_path, {"budgets": [400, 900], "seeds": [1]})
    rows = run(path)
    assert [row["note"] for row in rows] == [""] * 10
    count, distinct = paid(tmp_path / "out")
    assert count == distinct == sum(row["paid_queries"] for row in rows) > 0
    for cell, row in zip(cells_of(path), rows, strict=True):
        table = cell.config.run.model_copy(update={"ledger": ""})
        own = cell.config.model_copy(update={"run": table})
        alone = api.run(own, tmp_path / "own" / cell.folder).result
        for purse in ("train", "select", "evaluation"):
            assert row[f"{purse}_queries"] == alone["queries"][purse]
        assert row["train_queries"] <= row["budget"]
        assert row["score"] == alone["tuned"]["accuracy"]


def test_the_curve_is_what_the_events_say(tmp_path):
    path = write(tmp_path, {"methods": ["fedes", "manual", "local-only"], "seeds": [1]})
    fedes, manual, alone = run(path)
    out = tmp_path / "out" / cells_of(path)[0].folder
    seen = [(e["queries"], e["test_score"]) for e in kit.events(out, "snapshot")]
    assert fedes["curve"] == seen and len(seen) > 2 and seen[0][0] == 0
    assert manual["curve"] == []
    # Everyone alone: queries of all together, mean of the clients' scores.
    each = out.parents[1] / "local-only" / out.name / "clients"
    ends = [kit.events(folder, "snapshot")[-1] for folder in sorted(each.iterdir())]
    assert len(ends) == 3
    queries, score = alone["curve"][-1]
    assert queries == max(3 * end["queries"] for end in ends)
    assert score == pytest.approx(sum(end["test_score"] for end in ends) / 3)


def test_what_cannot_be_run_says_why(tmp_path):
    entries = ["manual", "linear-probe", "fedes", {"name": "fedes", "label": "odd", "set": ["a=b"]}]
    rows = run(write(tmp_path, {"methods": entries, "seeds": [1], "budgets": [50]}))
    notes = [row["note"] for row in rows]
    assert notes[0] == "" and "needs embeddings" in notes[1] and "unknown key a" in notes[3]
    needs = int(notes[2].removeprefix("needs "))
    rows = run(write(tmp_path, {"methods": ["fedes"], "seeds": [1], "budgets": [needs - 1, needs]}))
    assert rows[0]["note"] == f"needs {needs}" and rows[1]["train_queries"] == needs


# --- going on ------------------------------------------------------------------------------------


def test_finished_runs_are_only_read(tmp_path, monkeypatch):
    path = write(tmp_path)
    first = run(path)
    monkeypatch.setattr(api, "run", lambda *a, **k: pytest.fail("ran again"))
    monkeypatch.setattr(api, "resume", lambda *a, **k: pytest.fail("resumed"))
    assert run(path) == first


def test_other_options_are_run_anew_with_what_is_paid(tmp_path):
    first = run(write(tmp_path))
    again = run(write(tmp_path, changes={"method.snapshots": 2}))
    assert sum(row["paid_queries"] for row in again) < sum(row["paid_queries"] for row in first)
    assert max(len(row["curve"]) for row in again) < max(len(row["curve"]) for row in first)
    count, distinct = paid(tmp_path / "out")
    assert count == distinct


def test_other_data_are_run_anew(tmp_path):
    path = write(tmp_path, {"seeds": 1})
    first = run(path)
    with (tmp_path / "test.csv").open("a", encoding="utf-8") as file:
        file.write("a lovely new text,good,ash\n")
    for before, after in zip(first, run(path), strict=True):
        assert after["evaluation_queries"] > before["evaluation_queries"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_box_that_fails_ends_it_and_is_gone_on_with(tmp_path, monkeypatch, toybox, jobs):
    path, told = write(tmp_path), []
    whole = run(path, out=tmp_path / "whole")
    monkeypatch.setattr(toybox, "calls", 0)
    monkeypatch.setenv("TOYBOX_FAULT", "raise")
    monkeypatch.setenv("TOYBOX_AFTER", "40")
    with pytest.raises(BoxError, match="the toy broke"):
        run(path, jobs, told=lambda cell, row: told.append(row))
    monkeypatch.delenv("TOYBOX_FAULT")
    rows = run(path)
    assert (jobs == 2 or told) and len(told) < len(rows)
    assert [told_by(row) for row in rows] == [told_by(row) for row in whole]
    assert paid(tmp_path / "out") == paid(tmp_path / "whole")


def start(*args, **environment):
    return subprocess.Popen(
        kit.command(*args),
        env=kit.environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def table_of(out):
    with (out / "rows.csv").open(encoding="utf-8", newline="") as file:
        return [told_by(row) for row in csv.DictReader(file)]


def test_killed_again_and_again_it_ends_with_the_same_rows(tmp_path):
    path, out, whole = write(tmp_path), tmp_path / "out", tmp_path / "whole"
    assert kit.spawn("compare", path, "--out", whole)[0] == 0
    chance, log = random.Random(3), tmp_path / "asked"
    log.touch()
    for _ in range(3):
        before = log.stat().st_size
        victim = start("compare", path, "--out", out, TOYBOX_SLEEP="0.01", TOYBOX_LOG=str(log))
        # Imports take their time: a moment is one of those in which the box is asked.
        patience = time.monotonic() + 60
        while log.stat().st_size == before and victim.poll() is None:
            assert time.monotonic() < patience
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.4))
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        assert victim.returncode == -signal.SIGKILL
    code, _, said = kit.spawn("compare", path, "--out", out)
    assert code == 0, said
    assert table_of(out) == table_of(whole)
    assert paid(out) == paid(whole) and paid(out)[0] == paid(out)[1]


# --- several processes ---------------------------------------------------------------------------


def test_two_processes_give_the_same_rows_and_pay_once(tmp_path):
    path = write(tmp_path, {"methods": ["manual", "fedes", "local-only"]})
    one, two = run(path, out=tmp_path / "one"), run(path, jobs=2, out=tmp_path / "two")
    for ours, theirs in zip(one, two, strict=True):
        for key, value in told_by(ours).items():
            number = isinstance(value, float)
            assert theirs[key] == (pytest.approx(value, abs=1e-9) if number else value)
    assert paid(tmp_path / "one") == paid(tmp_path / "two")
    assert paid(tmp_path / "two")[0] == sum(row["paid_queries"] for row in two)


def test_what_two_comparisons_ask_at_once_is_paid_once(tmp_path):
    """Side by side on one ledger from the first query on, with a box slow enough to collide."""
    log, ledger = tmp_path / "asked", tmp_path / "ledger.sqlite"
    config = kit.write_config(tmp_path, {"run.ledger": str(ledger), "rounds.max": 3})
    both = [
        start("run", config, "--out", tmp_path / name, TOYBOX_SLEEP="0.02", TOYBOX_LOG=str(log))
        for name in ("one", "two")
    ]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    asked = [line.split()[0] for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(asked) == len(set(asked))
    one, two = (json.loads((tmp_path / n / "result.json").read_text()) for n in ("one", "two"))
    assert one["queries"]["paid"] + two["queries"]["paid"] == len(asked)
    assert one["tuned"] == two["tuned"]


def test_a_killed_neighbour_is_not_waited_for(tmp_path):
    log, ledger = tmp_path / "asked", tmp_path / "ledger.sqlite"
    config = kit.write_config(tmp_path, {"run.ledger": str(ledger), "rounds.max": 2})
    slow = start("run", config, "--out", tmp_path / "one", TOYBOX_SLEEP="60", TOYBOX_LOG=str(log))
    patience = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size) and time.monotonic() < patience:
        time.sleep(0.002)
    other = start("run", config, "--out", tmp_path / "two", TOYBOX_LOG=str(log))
    with pytest.raises(subprocess.TimeoutExpired):  # what it needs first, the other is paying for
        other.wait(2.5)
    slow.kill()
    slow.communicate()
    said = other.communicate(timeout=60)
    assert other.returncode == 0, said


@pytest.mark.parametrize("jobs", [0, -1])
def test_the_number_of_processes(tmp_path, jobs):
    with pytest.raises(ConfigError, match=f"--jobs is {jobs}"):
        run(write(tmp_path), jobs=jobs)
