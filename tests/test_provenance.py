"""With what a run was begun."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from fedbbpt import provenance


def test_what_is_loaded_is_named_with_its_version():
    found = provenance.versions()
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert ("torch" in found) == ("torch" in sys.modules)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_commit_has_a_plus_where_the_sources_differ_from_it(tmp_path, monkeypatch):
    source = tmp_path / "src" / "fedbbpt" / "provenance.py"
    source.parent.mkdir(parents=True)
    source.write_text("first\n")
    monkeypatch.setattr(provenance, "__file__", str(source))
    provenance.commit.cache_clear()
    assert provenance.commit() == ""  # no checkout

    def git(*words):
        options = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        done = subprocess.run(
            ["git", *options, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    head = git("rev-parse", "--short", "HEAD")
    for change, wanted in (("first\n", head), ("second\n", head + "+")):
        source.write_text(change)
        provenance.commit.cache_clear()
        assert provenance.commit() == wanted
    provenance.commit.cache_clear()
