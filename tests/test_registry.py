import inspect
from types import SimpleNamespace

import pytest

from fedbbpt import registry
from fedbbpt.errors import ConfigError, UnknownPart
from fedbbpt.optimizers.es import Es
from fedbbpt.registry import GROUPS

EVERY = [(group, name) for group in GROUPS for name in registry.names(group)]


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_the_file_name_is_the_plug_ins_name(group, name):
    found = registry.find(group, name)
    assert issubclass(found, GROUPS[group])
    assert found.__module__ == f"fedbbpt.{group}.{name}"
    assert not inspect.isabstract(found)


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_every_plug_in_says_what_it_is(group, name):
    line = registry.summary(group, name)
    assert len(line) > 10
    assert "\n" not in line
    assert line[0].isupper()


def test_helpers_and_packages_are_no_plug_ins():
    assert {"cmaes", "es"} <= set(registry.names("optimizers"))
    assert {"dual_encoder", "function"} <= set(registry.names("boxes"))
    for group in GROUPS:
        assert not [name for name in registry.names(group) if name.startswith("_")]
        assert registry.names(group) == sorted(registry.names(group))


@pytest.mark.parametrize(
    ("group", "name", "sentence"),
    [
        ("optimizers", "cma_es", "no optimizers plug-in is named 'cma_es'; did you mean 'cmaes'?"),
        (
            "aggregators",
            "avg",
            "no aggregators plug-in is named 'avg'; .*known: adam, cma, elect",
        ),
        ("boxes", "_encoder", "no boxes plug-in is named '_encoder'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(group, name, sentence):
    with pytest.raises(UnknownPart, match=sentence):
        registry.find(group, name)


def test_parts_come_from_options():
    assert registry.make("optimizers", "es", {}, "x") == Es()
    made = registry.make("optimizers", "es", {"pairs": 3, "sigma": 2, "shaping": "rank"}, "x")
    assert made == Es(pairs=3, sigma=2.0, shaping="rank")
    assert isinstance(made.sigma, float)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pears": 3}, "unknown key method.optimizer.pears; did you mean 'pairs'?"),
        ({"pairs": "many"}, "method.optimizer.pairs is 'many': .*integer"),
        ({"pairs": 2.5}, "method.optimizer.pairs is 2.5: .*integer"),
        ({"pairs": 0}, "es needs pairs >= 1"),
    ],
)
def test_a_bad_option_is_named(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        registry.make("optimizers", "es", options, "method.optimizer")


def test_what_the_program_supplies_is_not_the_users():
    class Vocabulary:
        hidden, std = 4, 1.0

    given = {"vocabulary": Vocabulary(), "loss_kind": "error", "unused": 1}
    task = registry.make("tasks", "classify", {}, "task", **given)
    assert task.loss_kind == "error"
    with pytest.raises(
        ConfigError, match=r"unknown key task.loss_kind; .*known: classes, guard, guard_rate"
    ):
        registry.make("tasks", "classify", {"loss_kind": "hinge"}, "task", **given)


@pytest.mark.parametrize(("group", "name", "key"), [("boxes", "function", "answer")])
def test_an_option_that_is_missing_is_named(group, name, key):
    with pytest.raises(ConfigError, match=key):
        registry.make(group, name, {}, "box")


def test_a_callable_by_its_path():
    box = registry.make("boxes", "function", {"answer": "math:hypot", "name": "h"}, "box")
    assert box.name == "function:h"
    for bad in ("math:nothing", "no.such.module:f", "math", "math:pi", ":"):
        with pytest.raises(ConfigError, match=r"box\.answer"):
            registry.make("boxes", "function", {"answer": bad}, "box")


# --- plug-ins of other packages ------------------------------------------------------------------


class Mine(Es):
    """Installed by somebody else."""


def test_other_packages_add_plug_ins(monkeypatch):
    entry = SimpleNamespace(name="mine", load=lambda: Mine)
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [entry] if group == "fedbbpt.optimizers" else []
    )
    assert "mine" in registry.names("optimizers")
    assert "mine" not in registry.names("boxes")
    assert registry.find("optimizers", "mine") is Mine
    assert registry.make("optimizers", "mine", {"pairs": 2}, "x") == Mine(pairs=2)
    assert "every registered" not in registry.summary("optimizers", "mine")


def test_names_import_no_plug_in(monkeypatch):
    entry = SimpleNamespace(name="broken", load=lambda: pytest.fail("was loaded"))
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert "broken" in registry.names("optimizers")


def test_a_file_defines_one_plug_in(monkeypatch):
    import fedbbpt.optimizers.es as module

    class Second(Es):
        pass

    Second.__module__ = module.__name__
    monkeypatch.setattr(module, "Second", Second, raising=False)
    with pytest.raises(UnknownPart, match="must define one Optimizer, not 2"):
        registry.find("optimizers", "es")
