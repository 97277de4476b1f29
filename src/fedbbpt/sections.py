"""The tables of a config. Their keys are a contract."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fedbbpt.trees import Tree


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
            and ``{seed}`` is run.seed, for sets that come in one sample per seed, ``{set}`` the
            name of ``set``. Or images: a folder with one for each class in it, a tar, or a folder
            in a tar (``"x.tar/train"``).
            On many machines ``train`` is each node's own to name.
        classes: all labels there are, for a file that need not hold every one; a label that is not
            among them is refused. Those of the training file if absent.
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

    train: str = ""
    test: str = ""
    classes: list[str] = []
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


AUTO = "auto"
"""The method of a config that names none: what fits is chosen when the model is there."""


class Method(Section):
    """A preset and what was changed in it; ``base`` is a preset beneath this one.

    ``clients`` says who works together: ``"all"``; ``"pooled"``, as if one had all the data
    (simulation only); ``"alone"``, each for itself.
    """

    name: str = AUTO
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


class AdmissionTable(Section):
    """What is refused at the server whatever else an update holds (:mod:`fedbbpt.admission`).

    Attributes:
        largest: number in size, in any field.
        times: how many times as far from the broadcast as the other clients' median may a client's
            search end; without it any. To know, the server replays every search twice.
    """

    largest: float = Field(default=1e9, gt=0)
    times: float | None = Field(default=None, ge=1)


class ShieldsTable(Options):
    """A table for each shield that updates pass before they leave, by its name."""

    __pydantic_extra__: dict[str, Tree] = Field(init=False)


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


REACH = 0.2
"""Most that one example counts for where a rise in the probability of right answers is judged."""


class StopTable(Section):
    """When a search may end before its budget (:mod:`fedbbpt.stopping`).

    Attributes:
        when: "never", so that methods are compared at equal budgets; or "sure" to be better than
            the starting prompt, or not to become so.
        alpha: chance to stop wrongly, of either kind.
        looks: how often held-back examples are asked, at most. More looks find out sooner, and each
            has to be the surer.
        worth: rise in the probability of right answers below which a search is given up.
    """

    when: Literal["never", "sure"] = "never"
    alpha: float = Field(default=0.05, gt=0, lt=1)
    looks: int = Field(default=4, ge=1)
    worth: float = Field(default=0.02, gt=0, lt=REACH)


class RunTable(Section):
    """Seed, ledger and trackers; an empty ledger means one in the run directory."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    ledger: str = ""
    trackers: list[str] = []


class TrackersTable(Options):
    """A table for each tracker with options of its own, by its name."""

    __pydantic_extra__: dict[str, Tree] = Field(init=False)


class EngineTable(Options):
    """Where clients live."""

    kind: str = "local"
