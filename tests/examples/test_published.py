"""examples/published: every config on every set that its README lists, one round end to end.

The models are small and random, of the families that the configs name; where the local test
material is, RoBERTa has the published vocabulary. Changed are paths, URLs and sizes alone.
"""

import json
import os
import re
import shlex
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from random import Random

import numpy as np
import pytest
import tomli_w

from fedbbpt import api, registry, sets
from fedbbpt.compare import LEDGER, carry_out
from fedbbpt.config import read
from fedbbpt.grid import plan
from fedbbpt.prompts.soft import Soft
from fedbbpt.record import read_lines
from fedbbpt.testing.simulated_llm import SimulatedLlm
from fedbbpt.trees import parse

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")

TESTS = Path(__file__).parents[1]
FOLDER = TESTS.parent / "examples" / "published"
LISTED = {
    Path(config).stem: names.split(",")
    for config, names in re.findall(
        r"^fedbbpt compare (\S+) --sweep data\.set=(\S+)$",
        (FOLDER / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
}
FEDBPT = ["fedbpt-sst2", "fedbpt-agnews", "fedbpt-yelp"]
RUNS = [(name, f"partition.kind={kind}") for name in FEDBPT for kind in ("iid", "dirichlet")]
RUNS += [(name, f"data.set={one}") for name, listed in LISTED.items() for one in listed]

CLAIMS = (TESTS.parent / "benchmarks" / "published.md").read_text(encoding="utf-8")
COMMANDS = [
    words
    for command in re.findall(r"`fedbbpt run examples/published/([^`]+ --set [^`]+)`", CLAIMS)
    if (Path((words := shlex.split(command))[0]).stem, words[-1]) not in RUNS or len(words) > 3
]

LABELS = "bad great World Sports Business Tech terrible yes no maybe".split()
WORDS = (
    "the film was a good one and so it had to be as on in at we see men go by far new old".split()
)
COLUMNS = {  # as the hub has them
    "sst2": ("sentence",),
    "cola": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "rte": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "qnli": ("question", "sentence"),
    "mnli": ("premise", "hypothesis"),
    "agnews": ("text",),
    "yelp": ("text",),
}
CLASSES = {"mnli": 3, "agnews": 4}
SIZES = {
    "fedbpt": {"partition.shots": 3, "partition.clients": 2},
    "bdpl": {"partition.shots": 10, "partition.clients": 5, "prompt.candidates": 12},
    "blackvip": {"partition.shots": 5, "rounds.batch": 2},
    "instructzero": {
        "partition.shots": 15,
        "prompt.again": 0,
        "prompt.proposals": 1,
        "writer.reply_tokens": 8,
        "data.test_limit": 3,
    },
}


# --- small models --------------------------------------------------------------------------------


def kit(name):
    """What makes small random models in the tests of a box."""
    path = TESTS / "boxes" / f"test_{name}.py"
    spec = spec_from_file_location(f"{name}_models", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.CORPUS = [" ".join([*LABELS, *WORDS])] * 8
    return module


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    models = kit("masked_lm")
    models.LONGEST = 512
    vocabulary = Path(os.environ.get("FEDBBPT_DATA", "")) / "models" / "roberta_tokenizer"
    if vocabulary.is_dir():
        models.make_tokenizer = lambda _: transformers.RobertaTokenizer.from_pretrained(vocabulary)
    return models.make_model("roberta", tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    models = kit("clip")
    models.LONGEST = 77
    return str(models.make_model("legacy", tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def mae(tmp_path_factory):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder = {f"decoder_{key}": value for key, value in small.items()}
    decoder["decoder_intermediate_size"] = 16
    shape = {"intermediate_size": 16, "image_size": 16, "patch_size": 4}
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mae")
    config = transformers.ViTMAEConfig(**small, **decoder, **shape)
    transformers.ViTMAEModel(config).save_pretrained(folder)
    facts = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return str(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    models = kit("causal_lm")
    models.LONGEST = 1024
    return models.make_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def chat():
    with SimulatedLlm(seed=0, embedding="ngrams", key="secret") as running:
        yield running


# --- small data ----------------------------------------------------------------------------------


@pytest.fixture
def published_data(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    monkeypatch.setenv("PUBLISHED_DATA", str(folder))
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    return folder


def named(name):
    return {"data": {"set": name}}


def write_texts(folder, name):
    """Parquet as the hub has it: labels are numbers, and further columns are there."""
    import pyarrow

    chance = Random(0)
    for part, size in (("train", 64), ("test", 4)):
        labels = [i % CLASSES.get(name, 2) for i in range(size)]
        table = {c: [" ".join(chance.choices(WORDS, k=9)) for _ in labels] for c in COLUMNS[name]}
        place = folder / name / f"{part}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pyarrow.table({**table, "label": labels, "idx": range(size)}), place)


def write_images(folder, name):
    """A folder for each class."""
    names = ["Forest", *sets.facts(named(name)).get("data", {}).get("names", ["7"])][:2]
    numbers = np.random.default_rng(0)
    for part, count in (("train", 5), ("test", 2)):
        for one in names:
            place = folder / name / part / one
            place.mkdir(parents=True)
            for i in range(count):
                pixels = numbers.integers(0, 256, (20, 18, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")


def example_of(task, i):
    """One example with the fields that the task's files have."""
    one, other = f"small thing {i}", f"large thing {i}"
    if task == "cause_and_effect":
        return {"cause": one, "effect": other}
    if task == "common_concept":
        return {"items": [one, other], "concept": "things", "all_common_concepts": ["things"]}
    others = {"rhymes": "other_rhymes", "word_in_context": "possible_outputs"}
    key = others.get(task, "possible_translations" if task.startswith("translation") else "")
    return {"input": one, "output": other} | ({key: [f"huge thing {i}"]} if key else {})


def write_tasks(folder, task):
    for part, size in (("induce", 15), ("execute", 5)):
        place = folder / "induction" / "raw" / part / f"{task}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        examples = {str(i + 1): example_of(task, i) for i in range(size)}
        place.write_text(json.dumps({"metadata": {}, "examples": examples}))


def changes_for(name, chosen, folder, request):
    """Writes the data of a set; what to change in the config that names it."""
    sizes = SIZES[name.partition("-")[0]]
    if name == "blackvip":
        write_images(folder, chosen)
        found = {"box.model": "clip", "prompt.encoder": "mae"}
    elif name == "instructzero":
        write_tasks(folder, chosen.partition("/")[2])
        chat = request.getfixturevalue("chat")
        sizes = {**sizes, "box.url": chat.url, "box.model": chat.name}
        found = {"writer.model": "llama"}
    else:
        write_texts(folder, chosen)
        found = {"box.model": "roberta"}
    paths = {key: request.getfixturevalue(model) for key, model in found.items()}
    changed = {"rounds.max": 1, "run.seed": 0, **sizes, **paths}
    return [f"{key}={json.dumps(value)}" for key, value in changed.items()]


# --- the runs ------------------------------------------------------------------------------------


def test_the_readme_lists_all_that_there_is():
    assert {path.stem for path in FOLDER.glob("*.toml")} == {*FEDBPT, *LISTED}
    assert set(LISTED["bdpl"]) == set("mnli qqp sst2 mrpc cola qnli rte".split())
    published = {n for n in sets.names() if sets.published(named(n), "fed-bbpt-vision")}
    assert set(LISTED["blackvip"]) == published and len(published) == 17
    family = [name for name in sets.names() if name.startswith("induction/")]
    assert sorted(LISTED["instructzero"]) == family and len(family) == 33


@pytest.mark.parametrize(
    ("name", "setting"), RUNS, ids=[f"{name}-{s.partition('=')[2]}" for name, s in RUNS]
)
def test_one_round(name, setting, published_data, tmp_path, request):
    path = FOLDER / f"{name}.toml"
    asked = setting.partition("=")[2] if name in LISTED else parse(path)["data"]["set"]
    overrides = [setting, *changes_for(name, asked, published_data, request)]
    result = api.run(read(path, overrides), tmp_path / "run").result
    merged = [e for e in read_lines(tmp_path / "run" / "events.jsonl") if e["event"] == "merge"]
    assert sum(event["phase"] == "search" for event in merged) == 1
    assert result["metric"] == sets.facts(named(asked))["metric"]
    scores = [result[when][result["metric"]] for when in ("baseline", "tuned")]
    assert result["test_examples"] > 0 and np.isfinite(scores).all()


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[2::2])[:60])
def test_the_commands_of_the_claims(words, published_data, tmp_path, request):
    path, changes = FOLDER / words[0], words[2::2]
    given = dict(change.split("=", 1) for change in changes)
    asked = given.get("data.set", parse(path)["data"]["set"])
    changes += changes_for(path.stem, asked, published_data, request)
    if given.get("box.kind") == "causal_lm":
        changes.append(f"box.model={request.getfixturevalue('llama')}")
    result = api.run(read(path, changes), tmp_path / "run").result
    assert result["queries"]["train"] > 0
    assert given.get("method.name", result["method"]) == result["method"]


@pytest.mark.parametrize("name", ["fedbpt-sst2", *LISTED])
def test_every_row_of_a_comparison(name, published_data, tmp_path, request):
    path = FOLDER / f"{name}.toml"
    asked = parse(path)["data"]["set"]
    tree = parse(path, [*changes_for(name, asked, published_data, request), "compare.seeds=[0]"])
    for row in tree["compare"]["methods"]:
        if "prompt.kind=tokens" in str(row):
            row["set"].append("prompt.candidates=12")  # small vocabularies have no 200 words
    (tmp_path / "small.toml").write_text(tomli_w.dumps(tree))
    cells = plan([tmp_path / "small.toml"], tmp_path / LEDGER).cells
    rows = carry_out(cells, tmp_path / "out", 1, lambda cell, row: None)
    assert len(rows) == len(tree["compare"]["methods"])
    assert [row["note"] for row in rows] == [""] * len(rows)


# --- with the published vocabulary ---------------------------------------------------------------


@pytest.mark.parametrize("name", FEDBPT)
def test_the_fifty_words_are_the_published_tokens(name, data_folder, roberta, published_data):
    config = read(FOLDER / f"{name}.toml", [f"box.model={roberta}"])
    box = registry.make("boxes", "masked_lm", config.box.options, "box")
    classes = sorted(config.prompt.labels)
    words = [config.prompt.labels[one] for one in classes]
    given = {"template": config.prompt.template, "labels": words, "side": "text"}
    options = {**config.prompt.options, "vocabulary": box.vocabulary, **given}
    prompt = Soft(**options)
    assert prompt.space.shape == (500,) and prompt.matrix.shape == (500, 50 * box.vocabulary.hidden)
    start = prompt.render(np.zeros((1, 500)))[0]
    np.testing.assert_array_equal(start.soft[0], box.vocabulary.embed(range(1000, 1050)))
    (ids, places, soft), _ = box._inputs(start, "a lovely film")
    assert places.tolist() == [*range(1, 51)] and soft.shape == (50, box.vocabulary.hidden)
    plain = box.vocabulary.tokenise  # leaves masks out
    text = config.prompt.template.replace("{text}", "a lovely film")
    assert [i for i in ids[51:-1] if i != box.vocabulary._mask_id] == plain(text)
