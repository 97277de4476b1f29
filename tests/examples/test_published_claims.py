"""benchmarks/published.md: its numbers stand in the tables it links, its commands can be given."""

import re
import shlex
from pathlib import Path

import pytest

from fedbbpt.config import read
from fedbbpt.grid import plan

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "benchmarks" / "published.md"
PAGES = [PAGE, ROOT / "examples" / "published" / "README.md"]
ROWS = [
    cells
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and len(cells := line.strip("| ").split(" | ")) == 4
]
TABLE = re.compile(r"\((results/[\w-]+\.md)\)")


def commands(page):
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^(fedbbpt (?:run|compare|plan) examples/.*)$", text, re.MULTILINE)
    return fenced + re.findall(r"`(fedbbpt (?:run|compare|plan) examples/[^`]*)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_a_claim_has_a_source_and_a_status():
    claims = [row for row in ROWS if row[0] != "claim"]
    assert len(claims) > 25
    words = "reproduced|small: |ready|cannot: |measured"
    for claim, source, ours, status in claims:
        assert claim and source and ours and re.match(words, status), claim
        assert ours != "none" or status.startswith(("cannot", "ready")), claim


@pytest.mark.parametrize("row", [row for row in ROWS if TABLE.search(row[2])], ids=lambda r: r[0])
def test_numbers_stand_in_the_tables_that_are_linked(row):
    tables = [(PAGE.parent / name).read_text(encoding="utf-8") for name in TABLE.findall(row[2])]
    shares = [f"0{number}" for number in re.findall(r"(?<![\d.=])\.\d{3}\b", row[2])]
    shares += [n.replace(",", "") for n in re.findall(r"(?<![\d,])(\d[\d,]*) B\b", row[2])]
    for number in shares:
        assert any(re.search(rf"(?<![\d.]){number}(?!\d)", table) for table in tables), number


@pytest.mark.parametrize("command", [c for page in PAGES for c in commands(page)])
def test_commands_can_be_given(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    for name in ("PUBLISHED_DATA", "FEDBBPT_DATA"):
        monkeypatch.setenv(name, str(tmp_path))
    _, verb, *words = shlex.split(command)
    files = [Path(word) for word in words if word.startswith("examples/")]
    rest = words[len(files) :]
    flags, values = rest[::2], rest[1::2]
    assert set(flags) <= {"--set"} if verb != "compare" else set(flags) <= {"--sweep"}
    if verb == "compare":
        cells = plan(files, tmp_path / "ledger.sqlite", 1, values[0] if values else "").cells
        assert [cell.fault for cell in cells if cell.fault] == []
    else:
        assert read(files[0], values).budget.queries > 0
