"""The config: TOML in, one checked object out. Its keys are a contract."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedbbpt import sets
from fedbbpt.errors import ConfigError, UnknownPart, closest
from fedbbpt.trees import Tree, locate, merge, parse, without_none


class Section(BaseModel):
    """Keys that do not exist are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Options(Section):
    """A table whose further keys are options of the plug-in that it names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> Tree:
        """The keys that are the plug-in's own."""
        return dict(self.model_extra or {})


class Data(Section):
    """Files, relative to the config, and what is in them.

    Attributes:
        train, test: CSV, TSV (also as .txt), JSONL or Parquet, also gzipped; $VARS are expanded
            and ``{seed}`` is run.seed, for sets that come in one sample per seed. Or images: a
            folder with one for each class in it, a tar, or a folder in a tar (``"x.tar/train"``).
        layout: of folders of images. image: instead of text, the column of paths to images.
        pixels: images are shrunk to so many on the shorter side when they are read; 0 for never.
        corrupt: what to do with images that cannot be read.
        test_limit: most test examples to score on, always the same random ones; 0 for all. Every
            snapshot of a search is scored on each of them.
        set: a well-known data set (:mod:`fedbbpt.sets`); its facts stand in for absent keys.
        text: column of the texts; or a form with columns in braces, which is how a task with two
            sentences is read: ``"{premise} ? {hypothesis}"``. Of a list the first that fits.
        label: column of the labels; of a list the first that is there.
        site: column that names the holder of each example; it may be absent.
        columns: names of the columns of a CSV or TSV file that does not begin with them.
        repeats: a column that rows may hold several times in a row; the first counts.
        names: better names for some labels, such as {"0" = "negative"}.
        blank: what to do with examples without a text: "refuse" the file, or "drop" them.
        positive: the class that F1 looks for; the last in alphabetical order if absent.
        range: least and greatest label where labels are numbers (task = "rate").
        separator: between right answers in a cell, for task = "generate" (:mod:`.data.answers`).
    """

    train: str
    test: str = ""
    test_limit: int = Field(default=0, ge=0)
    set: str = ""
    layout: Literal["class", "site/class"] = "class"
    image: str = ""
    pixels: int = Field(default=512, ge=0)
    corrupt: Literal["skip", "refuse"] = "skip"
    text: str | list[str] = Field(default="text", min_length=1)
    label: str | list[str] = Field(default="label", min_length=1)
    site: str = "site"
    columns: list[str] = []
    repeats: str = ""
    names: dict[str, str] = {}
    blank: Literal["refuse", "drop"] = "refuse"
    positive: str = ""
    range: tuple[float, float] | None = None
    separator: str = ""


class Partition(Section):
    """Which example belongs to which client; ``only`` keeps one client and leaves the rest out."""

    kind: str = "column"
    alpha: float = 1.0
    clients: int = 10
    labels_per_client: int = 2
    shots: int | None = Field(default=None, ge=1)
    only: str = ""


class Box(Options):
    """The model, or in ``[writer]`` the one that writes for it; further keys are its options."""

    kind: str = "dual_encoder"
    attempts: int = Field(default=3, ge=1)


class PromptTable(Options):
    """Where the prompt goes; further keys are options of the prompt.

    ``vocabulary``: where candidates come from; "auto" is ``words`` if given, else "near".
    ``mapping``: how a classifier's own classes become those of the task: by the ``labels``, by
    "counts" of what it answers to the clients' training examples, or "learned" from these.
    """

    kind: str = "soft"
    side: Literal["label", "text", "image"] = "label"
    template: str = ""
    mapping: Literal["names", "counts", "learned"] = "names"
    labels: dict[str, str] = {}
    per_class: bool | Literal["auto"] = "auto"
    vocabulary: Literal["auto", "near", "file", "public", "clients"] = "auto"
    public: str = ""
    min_clients: int = Field(default=2, ge=1)


class Part(Options):
    """An optimiser, aggregator or baseline by name."""

    name: str


class Method(Section):
    """A preset and what was changed in it; ``base`` is a preset beneath this one.

    ``clients`` says who works together: ``"all"``; ``"pooled"``, as if one had all the data
    (simulation only); ``"alone"``, each for itself.
    """

    name: str = "fedes"
    base: str = ""
    clients: Literal["all", "pooled", "alone"] = "all"
    kind: Literal["search", "baseline"] = "search"
    directions: Literal["auto", "shared", "distinct", "fixed"] = "auto"
    wire: Literal["replay", "state"] = "replay"
    loss: str = "cross_entropy"
    margin: float = 2.0
    guard: str = "none"
    guard_rate: float = 0.6
    snapshots: int = Field(default=20, ge=1)
    optimizer: Part = Part(name="es")
    aggregator: Part = Part(name="adam")
    baseline: Part | None = None


class Rounds(Section):
    """How long, and how much of it between two merges.

    ``batch``: examples that a client asks about in a step, 0 for all; ``holdout``: the share of
    its examples that it keeps for selection.
    """

    max: int = Field(default=1000, ge=1)
    steps: int = Field(default=1, ge=1)
    batch: int = Field(default=0, ge=0)
    clients_per_round: int | None = Field(default=None, ge=1)
    holdout: float = Field(default=0.25, ge=0, lt=1)


class BudgetTable(Section):
    """What may be spent; a cap that is absent does not bind.

    Attributes:
        queries: training queries, over all clients together.
        tokens, usd: of all requests over a wire, those of selection and evaluation too.
        client_queries, client_tokens, client_usd: the same for each client.
    """

    queries: int = Field(default=4000, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    usd: float | None = Field(default=None, gt=0)
    client_queries: int | None = Field(default=None, ge=1)
    client_tokens: int | None = Field(default=None, ge=1)
    client_usd: float | None = Field(default=None, gt=0)


class RunTable(Section):
    """Seed and ledger; an empty ledger means one in the run directory."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    ledger: str = ""


class EngineTable(Options):
    """Where clients live."""

    kind: str = "local"


class Config(Section):
    """Everything a run needs to know."""

    task: str = "classify"
    metric: str = "auto"
    data: Data
    partition: Partition = Partition()
    box: Box = Box()
    writer: Box | None = None
    prompt: PromptTable
    method: Method = Method()
    rounds: Rounds = Rounds()
    budget: BudgetTable = BudgetTable()
    run: RunTable = RunTable()
    engine: EngineTable = EngineTable()

    def tree(self) -> Tree:
        """As nested dicts without empty values, every default written out."""
        return without_none(self.model_dump())

    def toml(self) -> str:
        """As TOML."""
        return tomli_w.dumps(self.tree())


def presets() -> list[str]:
    """Names of the methods shipped with the package."""
    folder = files("fedbbpt.methods")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name[-5:] == ".toml")


def read(path: Path, overrides: Sequence[str] = ()) -> Config:
    """A config file with its preset underneath and overrides on top.

    Args:
        path: TOML file; its ``[data]`` paths are relative to its folder.
        overrides: ``"section.key=value"`` with the value in TOML (a bare word is a string).

    Raises:
        ConfigError, UnknownPart: one sentence that names the key.
    """
    others = ("compare", "gateway")  # tables for other commands
    tree = {key: own for key, own in parse(path, overrides).items() if key not in others}
    return resolve(tree, path.parent)


def resolve(tree: Tree, folder: Path) -> Config:
    """A checked config from nested dicts.

    Args:
        tree: as TOML gives it.
        folder: what relative paths are relative to.
    """
    method = tree.get("method", {})
    if not isinstance(method, dict):
        raise ConfigError(f"method is {method!r}; write a table: [method] name = ...")
    preset = _preset(method.get("name", "fedes"))
    base = method.get("base") or preset.get("method", {}).get("base")
    if base:
        preset = merge(_preset(base), preset)
    for name in (base or "", method.get("name", "")):
        preset = merge(preset, sets.published(tree, name))
    tree = merge(preset, tree)
    tree = merge(sets.facts(tree), tree)
    locate(tree, folder)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(sentence(error)) from None
    if not config.prompt.template and config.prompt.side != "image":
        raise ConfigError("the config lacks prompt.template; write one, or name a known data.set")
    return config


def _preset(name: object) -> Tree:
    if name not in presets():
        raise UnknownPart(f"no method is named '{name}'; {closest(str(name), presets())}")
    return tomllib.loads((files("fedbbpt.methods") / f"{name}.toml").read_text("utf-8"))


def sentence(error: ValidationError, model: Any = None, table: str = "") -> str:
    """The first fault in words, with the closest key for an unknown one.

    Args:
        error: what pydantic says.
        model: of what; the whole config if absent.
        table: where it stands.
    """
    first, path, model = error.errors()[0], [table] if table else [], model or Config
    # Behind the key, pydantic also names the member of a union that it tried.
    for part in first["loc"]:
        if isinstance(part, int):  # a place in a list
            model = next(iter(get_args(model)), None)
            continue
        fields: dict[str, Any] = getattr(model, "model_fields", {})
        if part not in fields:
            break
        path.append(str(part))
        model = fields[str(part)].annotation
    where = ".".join(path)
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return f"unknown key {'.'.join([*path, key])}; {closest(key, fields)}"
    if first["type"] == "missing":
        key = ".".join([*path[:1] * bool(table), *(str(part) for part in first["loc"])])
        return f"the config lacks {key}"
    here = path[bool(table) :]
    tried = [e["msg"] for e in error.errors() if list(map(str, e["loc"]))[: len(here)] == here]
    return f"{where} is {first['input']!r}: {', or '.join(tried)}"
