"""The command ``export``: what it prints and what it refuses; the forms have tests of their own."""

import pytest

TEXT_SIDE = {"prompt.side": "text", "prompt.template": "{text} It was"}


@pytest.fixture
def worded(kit, cli, tmp_path):
    """A run of words on a box that takes text alone, and its files."""
    changes = {**TEXT_SIDE, "method.name": "fedwords", "box.accepts": ["text"]}
    config, out = kit.write_config(tmp_path, changes), tmp_path / "out"
    words = ["lovely", "cold", "warm", "dull", "bright", "broken", "thing", "note"]
    assert cli("run", config, "--out", out, "--set", f"prompt.words={words}")[::2] == (0, "")
    return out


def test_the_prompt_is_shown_tested_and_written(kit, cli, worded):
    code, shown, told = cli("export", worded, "--to", "text")
    path = worded / "export" / "prompt.txt"
    assert code == 0 and path.read_text() in shown
    assert shown.startswith("{text} ") and shown.rstrip().endswith("bad = bad\ngood = good")
    assert "self-test read back, it is the tuned prompt" in told and str(path) in told
    again = cli("export", worded, "--to", "text", "--out", worded / "mine.txt")
    assert again[0] == 0 and (worded / "mine.txt").read_bytes() == path.read_bytes()


def test_what_cannot_be_exported(refused, worded):
    refused("export", worded, "--to", "yaml", names=["'yaml'", "openai"], out=worded)
    refused("export", worded, "--to", "openai", names=["'function'", "--to text"], out=worded)
    refused("export", worded, "--to", "peft", names=["soft prompts"], out=worded)
    taken = worded / "result.json" / "x"
    refused("export", worded, "--to", "text", "--out", taken, names=[taken], out=worded)


def test_an_unfinished_run_has_nothing_to_export(refused, unfinished):
    _, out = unfinished
    refused("export", out, "--to", "text", names=[f"fedbbpt resume {out}"])


def test_a_soft_prompt_has_no_words(refused, finished):
    _, out = finished
    refused("export", out, "--to", "text", names=["numbers, not of words"])
