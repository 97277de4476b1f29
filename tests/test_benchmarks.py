"""Every table has its command, and every script of the benchmarks its table."""

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
HELPERS = {"all.py", "origin.py", "prepare.py"}

spec = spec_from_file_location("benchmarks_all", FOLDER / "all.py")
everything = module_from_spec(spec)
spec.loader.exec_module(everything)


def test_every_table_is_made_by_the_one_command():
    assert {file.stem for file in (FOLDER / "results").glob("*.md")} <= everything.TABLES.keys()


def test_every_script_makes_a_table():
    used = {table.command[0] for table in everything.TABLES.values()}
    assert {file.name for file in FOLDER.glob("*.py")} - HELPERS == used


def test_every_compared_config_has_its_table():
    configs = {file.stem for file in (FOLDER / "configs").glob("*.toml")} | {"compare-sst2"}
    tables = everything.TABLES.values()
    assert {t.command[1] for t in tables if t.command[0] == "tables.py"} == configs


def test_every_table_that_the_docs_link_to_can_be_made():
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    linked = {n for t in texts for n in re.findall(r"results/([\w-]+)\.md", t.read_text("utf-8"))}
    assert linked <= everything.TABLES.keys()


def test_the_list_names_command_and_needs():
    done = subprocess.run(
        [sys.executable, str(FOLDER / "all.py"), "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line for line in done.stdout.splitlines() if "python benchmarks/" in line]
    assert len(rows) == len(everything.TABLES)
    assert "fedbbpt[vision]" in next(row for row in rows if row.startswith("| label-mapping "))


def test_a_table_that_cannot_be_made_is_named_and_the_command_fails(tmp_path):
    """Nothing is run: the data are missing."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / "all.py"), "induction"],
        capture_output=True,
        text=True,
        env={"FEDBBPT_DATA": str(tmp_path / "nothing")},
    )
    assert done.returncode == 1
    assert "induction: FEDBBPT_DATA names no folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_is_none_is_refused():
    done = subprocess.run(
        [sys.executable, str(FOLDER / "all.py"), "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "no table nothing" in done.stderr


@pytest.mark.parametrize("name", sorted(everything.TABLES))
def test_a_table_says_how_it_was_made(name):
    """Of those that are there: which commit; every row but a few old ones names it."""
    file = FOLDER / "results" / f"{name}.md"
    if not file.is_file():
        pytest.skip("not made yet")
    text = file.read_text(encoding="utf-8")
    assert re.search(r"\bcommits?\b", text), f"{name} names no commit"
