"""The rules of the house: who imports whom, how long things are, what a plug-in file holds."""

import ast
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import fedbbpt
from fedbbpt import registry

SRC = Path(fedbbpt.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
HEAVY = {"torch", "transformers", "pyarrow", "matplotlib", "PIL", "flwr", "fastapi", "httpx2"}
HEAVY |= {"mlflow", "wandb"}

PLUG_INS = {
    "aggregators",
    "boxes",
    "data",
    "optimizers",
    "prompts",
    "shields",
    "tasks",
    "trackers",
    "wrappers",
}
# From the ground up. A module imports from its own storey and from those below.
STOREYS = (
    {
        "arrays",
        "black_box",
        "errors",
        "maths",
        "post",
        "protocols",
        "random",
        "senses",
        "shielding",
        "storage",
        "tracking",
        "types",
        "writing",
    },
    PLUG_INS,
    {
        "admission",
        "budget",
        "counting",
        "drawing",
        "expected",
        "guard",
        "learned",
        "modelling",
        "objective",
        "parts",
        "phases",
        "proposing",
        "round",
        "secure",
        "till",
    },
    {"baselines", "engines"},
    {
        "advice",
        "auto",
        "build",
        "check",
        "config",
        "doors",
        "encoder",
        "gather",
        "making",
        "methods",
        "protection",
        "registry",
        "sections",
        "sets",
        "sharing",
        "stopping",
        "targets",
        "trees",
    },
    {
        "agreement",
        "alone",
        "api",
        "claims",
        "closing",
        "compare",
        "artefact",
        "books",
        "checkpoint",
        "diagnose",
        "egress",
        "egress_words",
        "exports",
        "finished",
        "following",
        "grid",
        "latents",
        "ledger",
        "mapping",
        "needs",
        "outcome",
        "pairs",
        "proposals",
        "provenance",
        "receipts",
        "record",
        "report",
        "result",
        "rundir",
        "runner",
        "trial",
        "vault",
    },
    {
        "checks",
        "cli",
        "doctor",
        "eyesight",
        "nearby",
        "patient",
        "plan",
        "rehearsal",
        "service",
        "sites",
        "testing",
        "__main__",
    },
)
# Parts are found by name; these may know some of them by sight.
KNOWS = {
    "build": {"wrappers"},
    "doors": {"wrappers"},
    "gather": {"data"},
    "proposing": {"data"},
    "sharing": {"data"},
    "targets": {"data"},
    "api": {"data"},
    "cli": PLUG_INS,
    "checks": {"boxes"},
    "doctor": {"boxes"},
    "patient": {"boxes"},
    "rehearsal": {"boxes"},
    "service": PLUG_INS,
    "testing": PLUG_INS,
    "report": {"data"},
}


class Import(NamedTuple):
    """One imported module, and whether that happens when the importing one is loaded."""

    module: str
    at_load: bool
    typing_only: bool


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def storey(name: str) -> int:
    """Which storey a module like ``fedbbpt.optimizers.es`` lives on."""
    top = name.split(".")[1]
    for number, rooms in enumerate(STOREYS):
        if top in rooms:
            return number
    raise AssertionError(f"{name} has no storey yet: give it one in tests/test_house.py")


def group(name: str) -> str:
    return name.split(".")[1]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> list[Import]:
    found: list[Import] = []

    def visit(node: ast.AST, at_load: bool, typing_only: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, at_load, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                name = inner if inner in MODULES else str(node.module)
                found.append(Import(name, at_load, typing_only))
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, at_load and not function and not guarded, typing_only or guarded)

    visit(tree(path), True, False)
    return found


def within(path: Path) -> list[Import]:
    """Imports of our own modules; the package's front door is nobody's storey."""
    return [i for i in imports(path) if i.module.startswith("fedbbpt.")]


def inner_files() -> list[Path]:
    return [path for path in FILES if module_of(path) != "fedbbpt"]


def name(path: Path) -> str:
    return str(path.relative_to(SRC))


# --- who imports whom ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", inner_files(), ids=name)
def test_imports_go_downstairs(path):
    mine = module_of(path)
    for found in within(path):
        assert storey(found.module) <= storey(mine), f"{mine} imports {found.module} from above"


@pytest.mark.parametrize(
    "path", [p for p in inner_files() if group(module_of(p)) in PLUG_INS], ids=name
)
def test_a_plug_in_knows_the_ground_floor_and_its_own_helpers(path):
    mine = module_of(path)
    for found in within(path):
        parts = found.module.split(".")
        helper = parts[1] == group(mine) and len(parts) > 2 and parts[2].startswith("_")
        assert storey(found.module) == 0 or helper, f"{mine} imports {found.module}"


@pytest.mark.parametrize("path", inner_files(), ids=name)
def test_only_those_who_make_parts_know_them(path):
    mine = module_of(path)
    if group(mine) in PLUG_INS:
        return
    for found in within(path):
        known = group(found.module)
        if known in PLUG_INS:
            allowed = KNOWS.get(group(mine), set())
            assert known in allowed, f"{mine} imports {found.module}: parts are found by name"


@pytest.mark.parametrize("path", inner_files(), ids=name)
def test_nobody_imports_the_tests_or_the_front_door(path):
    mine = module_of(path)
    for found in imports(path):
        if group(mine) not in ("testing", "cli"):
            assert not found.module.startswith("fedbbpt.testing"), f"{mine} imports the kits"
        if group(mine) not in ("cli", "__main__"):
            assert not found.module.startswith("fedbbpt.cli"), f"{mine} imports the command line"
        assert found.module.split(".")[0] not in ("tests", "pytest", "hypothesis"), mine


def test_no_two_modules_need_each_other_to_load():
    needs = {
        module: {i.module for i in imports(path) if i.at_load and i.module in MODULES}
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def load(module: str, above: tuple[str, ...]) -> None:
        circle = " -> ".join([*above[above.index(module) :], module]) if module in above else ""
        assert not circle, f"these load each other: {circle}"
        if module not in done:
            for other in sorted(needs[module] - {module}):
                load(other, (*above, module))
            done.add(module)

    for module in MODULES:
        load(module, ())


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_packages_wait_until_they_are_needed(path):
    heavy = {i.module for i in imports(path) if i.at_load and i.module.split(".")[0] in HEAVY}
    assert not heavy, f"{name(path)} imports {sorted(heavy)} when it is loaded"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_next_to_nothing():
    loaded = loaded_by("import fedbbpt")
    assert not loaded & (HEAVY | {"scipy", "numpy", "pydantic", "sklearn"})


def test_everything_but_what_is_heavy_loads_without_it():
    modules = [module for module in MODULES if not module.endswith("__main__")]
    statement = "; ".join(f"import {module}" for module in modules)
    assert not loaded_by(statement) & HEAVY


# --- how long things are -------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_is_longer_than_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_function_is_longer_than_50_lines(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 50, f"{node.name} in {name(path)} has {length} lines"


# --- what a file holds ---------------------------------------------------------------------------

EVERY = [(kind, part) for kind in registry.GROUPS for part in registry.names(kind)]


@pytest.mark.parametrize(("kind", "part"), EVERY)
def test_a_plug_in_file_defines_one_plug_in(kind, part):
    assert inspect_one(kind, part) is registry.find(kind, part)


def inspect_one(kind: str, part: str) -> type:
    """The one class of the group's kind that the file itself defines."""
    module = importlib.import_module(f"fedbbpt.{kind}.{part}")
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, registry.GROUPS[kind])
        and value.__module__ == module.__name__
    ]
    assert len(own) == 1, f"{module.__name__} defines {[c.__name__ for c in own]}"
    return own[0]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_says_what_it_is_for(path):
    doc = ast.get_docstring(tree(path)) or ""
    package = path.name == "__init__.py"
    assert doc or package, f"{name(path)} has no docstring"
    assert package or len(doc.splitlines()[0]) > 15, f"{name(path)} says only {doc!r}"


def exported(path: Path) -> list[str] | None:
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed: list[str] = ast.literal_eval(node.value)
            return listed
    return None


@pytest.mark.parametrize("path", [p for p in FILES if exported(p) is not None], ids=name)
def test_what_is_exported_is_sorted_and_there(path):
    listed = exported(path)
    assert listed == sorted(set(listed))
    module = importlib.import_module(module_of(path))
    assert [entry for entry in listed if not hasattr(module, entry)] == []


def test_the_front_door_exports_all_that_it_names():
    named = {
        alias.asname or alias.name
        for node in ast.walk(tree(SRC / "__init__.py"))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fedbbpt")
        for alias in node.names
    }
    assert named == set(fedbbpt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fedbbpt.nothing  # noqa: B018
