"""What a person may ask the command itself."""

import re

import pytest

from fedbbpt import registry
from fedbbpt.config import presets
from fedbbpt.errors import ConfigError


def plain(shown):
    """Without the colours that some terminals are given."""
    return re.sub("\x1b\\[[0-9;]*m", "", shown)


NAMES = (
    "demo run plan doctor resume compare predict export serve-model serve-prompt certs list"
).split()


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself_by_an_example(cli, name):
    code, shown, _ = cli(name, "--help")
    assert code == 0 and f"Example: fedbbpt {name}" in plain(shown)
    assert name in cli("--help")[1]


@pytest.mark.parametrize("group", [None, "methods", *registry.GROUPS])
def test_list_names_every_part(cli, group):
    code, shown, _ = cli("list", *filter(None, [group]))
    assert code == 0
    shown = plain(shown)
    for name in [group] if group else ["methods", *registry.GROUPS]:
        assert name in shown
        parts = presets() if name == "methods" else registry.names(name)
        assert parts and all(f"  {part} " in shown for part in parts)


def test_a_group_that_does_not_exist(refused):
    refused("list", "optimisers", names=["'optimisers'", "did you mean 'optimizers'"])


def test_debug_shows_where_it_failed(cli, tmp_path):
    with pytest.raises(ConfigError):
        cli("--debug", "run", tmp_path / "missing.toml", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
