"""The facts about well-known sets, and the sets themselves where the local test material is."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedbbpt import registry, sets
from fedbbpt.boxes._mapped import Mapped
from fedbbpt.config import read, resolve
from fedbbpt.errors import ConfigError, DataError, UnknownPart
from fedbbpt.sharing import examples

HERE = Path.cwd()


def tree(name, **sections):
    return {"data": {"set": name, "train": "train.tsv"}, **sections}


# --- facts ---------------------------------------------------------------------------------------

PICTURES = {
    # set: template; beta, gamma, c and eps as BlackVIP's docs/configuration.md has them
    "caltech101": ("a photo of a {label}.", 0.9, 0.2, 0.005, 0.2),
    "oxford_pets": ("a photo of a {label}, a type of pet.", 0.9, 0.1, 0.01, 1.0),
    "stanford_cars": ("a photo of a {label}.", 0.9, 0.2, 0.01, 0.3),
    "flowers102": ("a photo of a {label}, a type of flower.", 0.5, 0.2, 0.02, 1.0),
    "food101": ("a photo of {label}, a type of food.", 0.9, 0.1, 0.01, 0.3),
    "fgvc_aircraft": ("a photo of a {label}, a type of aircraft.", 0.3, 0.1, 0.01, 0.5),
    "sun397": ("a photo of a {label}.", 0.5, 0.1, 0.01, 1.0),
    "dtd": ("{label} texture.", 0.7, 0.2, 0.01, 0.3),
    "svhn": ("This is a photo of a {label}", 0.9, 0.2, 0.005, 1.0),
    "eurosat": ("a centered satellite photo of {label}.", 0.9, 0.2, 0.005, 0.4),
    "resisc45": ("This is a photo of a {label}", 0.95, 0.1, 0.01, 0.3),
    "clevr": ("This is a photo of {label} objects", 0.9, 0.2, 0.005, 1.0),
    "ucf101": ("a photo of a person doing {label}.", 0.9, 0.1, 0.01, 0.3),
    "imagenet": ("a photo of a {label}.", 0.9, 0.2, 0.005, 0.3),
    "biased_mnist": ("This is a photo of {label}", 0.9, 0.1, 0.01, 1.0),
    "loc_mnist": ("This is a photo of {label}", 0.9, 0.1, 0.005, 1.0),
    "loc_mnist_1to4": ("This is a photo of {label}", 0.95, 0.1, 0.01, 1.0),
    # nothing published: the preset's own
    "clothing": ("a photo of a {label}.", 0.9, 0.1, 0.01, 1.0),
    "sign_digits": ("a photo of a hand sign for the number {label}.", 0.9, 0.1, 0.01, 1.0),
}
VISION = {"name": "fed-bbpt-vision"}
TASKS = [name for name in sets.names() if name.startswith("induction/")]
OTHERS = [name for name in sets.names() if name not in TASKS]


@pytest.mark.parametrize("name", sorted(set(OTHERS) - set(PICTURES)))
def test_every_set_has_a_prompt_for_every_place(name):
    words = set()
    for side, kind, mask in (
        ("label", "dual_encoder", 0),
        ("text", "causal_lm", 0),
        ("text", "masked_lm", 1),
    ):
        config = resolve(tree(name, prompt={"side": side}, box={"kind": kind}), HERE)
        template = config.prompt.template
        assert template.count(f"{{{side}}}") == 1 and template.count("{mask}") == mask
        words.add(tuple(config.prompt.labels.items()))
    (labels,) = words
    named = set(config.data.names.values()) or {"low", "high"}
    assert set(dict(labels)) == named and len(set(dict(labels).values())) == len(labels)
    assert not config.data.positive or config.data.positive in named
    assert (config.task == "rate") == (config.metric == "spearman") == bool(config.data.range)


def test_the_metrics_of_glue():
    found = {name: resolve(tree(name), HERE).metric for name in OTHERS}
    others = {"cola": "matthews", "mrpc": "f1", "qqp": "f1", "stsb": "spearman"}
    assert found == {name: others.get(name, "accuracy") for name in OTHERS}


def test_the_tasks_of_instruction_induction_differ_in_their_metric(tmp_path):
    assert len(TASKS) == 24 + 9
    own = {"prompt": {"side": "text"}, "method": {"name": "fedinstruct"}}
    found = {name: resolve(tree(name, **own), HERE) for name in TASKS}
    assert {(config.task, config.prompt.template) for config in found.values()} == {
        ("generate", "{instruction}\n\nInput: {text}\nOutput:")
    }
    metrics = {name.partition("/")[2]: config.metric for name, config in found.items()}
    assert {name: metric for name, metric in metrics.items() if metric != "exact"} == {
        "common_concept": "f1",
        "informal_to_formal": "f1",
        "orthography_starts_with": "set",
        "taxonomy_animal": "set",
        "synonyms": "contains",
    }
    for name in ("induction", "induction/", "induction/add", "sst2/a"):
        with pytest.raises(UnknownPart, match=f"no data set is named '{name}'; "):
            resolve(tree(name, **own), HERE)


@pytest.mark.parametrize(("name", "folder"), [("rte", "rte"), ("induction/sum", "sum")])
def test_a_path_may_name_the_set(tmp_path, monkeypatch, name, folder):
    monkeypatch.setenv("PLACE", str(tmp_path / "there"))
    data = {"set": name, "train": "$PLACE/{set}/{seed}.tsv", "test": "{set}.tsv"}
    prompt = {"side": "text", "vocabulary": "public", "public": "$PLACE/{set}.txt"}
    config = resolve({"data": data, "prompt": prompt, "run": {"seed": 3}}, tmp_path)
    assert config.data.train == str(tmp_path / "there" / folder / "3.tsv")
    assert config.data.test == str(tmp_path / f"{folder}.tsv")
    assert config.prompt.public == str(tmp_path / "there" / f"{folder}.txt")


def test_an_encoder_is_a_path_or_a_name(tmp_path):
    for given, found in (("./mae", str(tmp_path / "mae")), ("facebook/vit-mae-base",) * 2):
        config = resolve(tree("dtd", method=VISION, prompt={"encoder": given}), tmp_path)
        assert config.prompt.options["encoder"] == found


def test_what_the_user_writes_wins_and_the_rest_is_the_sets():
    own = tree(
        "rte", metric="f1", prompt={"template": "So: {label}", "labels": {"entailment": "so"}}
    )
    own["data"] |= {"text": "{premise} {hypothesis}", "names": {"2": "unclear"}}
    config = resolve(own, HERE)
    assert (config.metric, config.prompt.template) == ("f1", "So: {label}")
    assert config.data.text == "{premise} {hypothesis}"
    assert config.prompt.labels == {"entailment": "so", "not_entailment": "no"}
    names = {"0": "entailment", "1": "not_entailment", "2": "unclear"}
    assert config.data.names == names


def test_a_set_beneath_a_preset_with_a_prompt_of_its_own():
    config = resolve(tree("sst2", method={"name": "fed-bbpt-text"}, prompt={"side": "text"}), HERE)
    assert config.prompt.kind == "tokens" and config.prompt.template == "{text} it was"


@pytest.mark.parametrize("name", ["stsb", "snli", "cola", "eurosat"])
def test_the_resolved_config_reads_back_as_it_is(tmp_path, name):
    config = resolve(tree(name), tmp_path)
    (tmp_path / "config.toml").write_text(config.toml())
    assert read(tmp_path / "config.toml") == config


@pytest.mark.parametrize("name", PICTURES)
def test_sets_of_pictures_bring_what_was_published(name):
    template, beta, gamma, c, eps = PICTURES[name]
    config = resolve(tree(name, method=VISION), HERE)
    assert (config.prompt.kind, config.prompt.side) == ("visual", "image")
    assert (config.prompt.template, config.metric) == (template, "accuracy")
    a, alpha = {"loc_mnist": (0.01, 0.5), "loc_mnist_1to4": (0.02, 0.5)}.get(name, (0.01, 0.4))
    assert config.method.optimizer.options == {
        "a": a,
        "c": c,
        "alpha": alpha,
        "gamma": gamma,
        "o": 1.0,
        "beta": beta,
        "draws": 5,
        "directions": "segmented-uniform",
    }
    registry.make("optimizers", "spsa", config.method.optimizer.options, "method.optimizer")
    assert config.prompt.options == {"form": "coordinator", "eps": eps}
    assert (config.rounds.batch, config.method.aggregator.name) == (128, "mean")
    # On the label side of another method the same template, and nothing else of it.
    config = resolve(tree(name), HERE)
    assert config.prompt.template == template and not config.prompt.options
    assert config.method.optimizer.name == "es"


def test_what_the_user_writes_wins_over_what_was_published():
    optimizer, prompt = {"beta": 0.1, "alpha": 0.602}, {"eps": 0.7}
    own = tree("flowers102", method={**VISION, "optimizer": optimizer}, prompt=prompt)
    config = resolve(own, HERE)
    assert config.prompt.options["eps"] == 0.7
    options = config.method.optimizer.options
    picked = [options[key] for key in ("beta", "alpha", "gamma", "c")]
    assert picked == [0.1, 0.602, 0.2, 0.02]


def test_another_part_takes_none_of_what_was_published():
    own = {"method": {**VISION, "optimizer": {"name": "es"}}, "prompt": {"kind": "soft"}}
    config = resolve(tree("flowers102", **own), HERE)
    assert not config.method.optimizer.options and not config.prompt.options


def test_what_was_published_beneath_another_preset():
    config = resolve(tree("svhn", method={"name": "local-only", "base": VISION["name"]}), HERE)
    assert config.method.clients == "alone" and config.method.optimizer.options["c"] == 0.005


def test_sets_and_templates_that_are_not_there():
    with pytest.raises(UnknownPart, match="no data set is named 'sst-2'; did you mean 'sst2'"):
        resolve(tree("sst-2"), HERE)
    with pytest.raises(ConfigError, match=r"lacks prompt\.template; write one, or name a known"):
        own = {"data": {"train": "a.csv"}, "prompt": {"side": "text"}}
        resolve({**own, "method": "fedes"}, HERE)
    with pytest.raises(ConfigError, match=r"prompt\.side is 'both'"):
        resolve(tree("sst2", prompt={"side": "both"}), HERE)


def test_a_pair_without_its_second_sentence(tmp_path):
    (tmp_path / "train.tsv").write_text("index\tsentence1\tlabel\n0\tA man eats.\tentailment\n")
    with pytest.raises(DataError, match=r"no column 'sentence2'.*known: index, label, sentence1"):
        examples(resolve(tree("rte"), tmp_path))


# --- the sets ------------------------------------------------------------------------------------

GLUE = {
    # set: files for training and testing, examples in them, test examples by class
    "sst2": ("SST-2/train.tsv.gz", "SST-2/dev.tsv", 67349, {"negative": 428, "positive": 444}),
    "cola": ("CoLA/train.tsv.gz", "CoLA/dev.tsv", 8551, {"acceptable": 721, "unacceptable": 322}),
    "rte": ("RTE/train.tsv.gz", "RTE/dev.tsv", 2490, {"entailment": 146, "not_entailment": 131}),
    "mrpc": (
        "MRPC/msr_paraphrase_train.txt.gz",
        "MRPC/msr_paraphrase_test.txt.gz",
        4076,
        {"different": 578, "equivalent": 1147},
    ),
    "wnli": ("WNLI/train.tsv", "WNLI/dev.tsv", 635, {"entailment": 31, "not_entailment": 40}),
    "qnli": (
        "k-shot/QNLI/8-{seed}/train.tsv",
        "QNLI/dev.tsv.gz",
        16,
        {"entailment": 2702, "not_entailment": 2761},
    ),
    "mnli": (
        "k-shot/MNLI/8-{seed}/train.tsv",
        "k-shot/MNLI/8-{seed}/dev_matched.tsv",
        24,
        dict.fromkeys(["contradiction", "entailment", "neutral"], 8),
    ),
    "snli": (
        "k-shot/SNLI/8-{seed}/train.tsv",
        "k-shot/SNLI/8-{seed}/dev.tsv",
        24,
        dict.fromkeys(["contradiction", "entailment", "neutral"], 8),
    ),
    "qqp": (
        "k-shot/QQP/8-{seed}/train.tsv",
        "k-shot/QQP/8-{seed}/dev.tsv",
        16,
        {"different": 8, "duplicate": 8},
    ),
}


def shared(folder, name, train, test, seed=0, **data):
    data = {"set": name, "train": str(folder / train), "test": str(folder / test), **data}
    sections = {"partition": {"kind": "iid", "clients": 3}, "run": {"seed": seed}}
    return examples(resolve({"data": data, **sections}, HERE))


def size(split):
    return sum(batch.size for part in (split.train, split.holdout) for batch in part.values())


@pytest.mark.parametrize("name", GLUE)
def test_a_task_of_glue(data_folder, name):
    train, test, count, by_class = GLUE[name]
    folder = data_folder / "text" / "glue"
    for seed in (13, 21, 42, 87, 100) if "{seed}" in train else (0,):
        split = shared(folder, name, train, test, seed)
        assert split.classes == tuple(sorted(by_class)) and size(split) == count
        held = split.test["(test)"]
        assert dict(Counter(split.classes[t] for t in held.targets)) == by_class


def test_similarity_of_sentences(data_folder):
    folder = data_folder / "text" / "glue" / "STS-B"
    split = shared(folder, "stsb", "train.tsv.gz", "dev.tsv.gz")
    held = split.test["(test)"]
    assert size(split) == 5749 and held.size == 1500 and split.classes == ("low", "high")
    targets = np.concatenate([held.targets, *(batch.targets for batch in split.train.values())])
    assert targets.min() == 0.0 and targets.max() == 1.0
    assert (
        held.inputs[0] == "A man with a hard hat is dancing. A man wearing a hard hat is dancing."
    )
    assert held.targets[0] == 1.0


def test_a_quote_in_glue_is_a_character(data_folder):
    folder = data_folder / "text" / "glue" / "RTE"
    texts = shared(folder, "rte", "train.tsv.gz", "dev.tsv").test["(test)"].inputs
    there = (folder / "dev.tsv").read_text(encoding="utf-8").count('"')
    assert sum(text.count('"') for text in texts) == there > 100


@pytest.mark.parametrize(
    ("name", "folder", "train", "test"),
    [
        ("sst2", "sst-2", 32, 1821),
        ("cr", "cr", 31, 1999),  # a row of each has no text
        ("agnews", "agnews", 64, 7600),
    ],
)
def test_few_shot_sets_come_in_one_file_per_seed(data_folder, name, folder, train, test):
    files = data_folder / "text" / "fewshot" / folder
    split = shared(files, name, "16-{seed}/train.tsv", "test.tsv.gz", 13)
    other = shared(files, name, "16-{seed}/train.tsv", "test.tsv.gz", 21)
    assert size(split) == train and split.test["(test)"].size == test
    assert split.train["client-00"].inputs != other.train["client-00"].inputs


def test_a_set_under_names_of_its_own(data_folder):
    ready = data_folder / "text" / "ready"
    split = shared(ready, "agnews", "agnews.train.csv", "agnews.test.csv")
    assert split.classes == ("business", "sports", "technology", "world")


@pytest.mark.parametrize(("name", "count"), [("caltech101", 101), ("clothing", 10)])
def test_classes_have_names_that_a_classifier_knows(data_folder, name, count):
    lines = data_folder / "models" / "coral_mobilenet" / "imagenet_labels.txt"
    box = {"kind": "image_classifier", "model": "m.tflite"}
    config = resolve(tree(name, box=box, prompt={"side": "image"}), HERE)
    labels = config.prompt.labels
    assert len(labels) == count and not config.prompt.template
    known = Mapped("known", lines.read_text(encoding="utf-8").splitlines()).named(
        tuple(labels.values())
    )
    # No class of the model counts for two of the task.
    assert known.sum(axis=0).max() == 1 and known.sum(axis=1).min() >= 1
    other = resolve(tree(name, box={"kind": "clip", "model": "m"}), HERE).prompt
    assert other.template == "a photo of a {label}." and not other.labels
