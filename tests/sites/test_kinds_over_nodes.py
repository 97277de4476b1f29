"""What the parts learn on the way reaches the nodes: written instructions and label mappings."""

import csv
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import tomli_w

from fedbbpt import api
from fedbbpt.config import read
from fedbbpt.sites import invitation
from fedbbpt.sites.agreed import agreed, empty, federated
from fedbbpt.sites.node import settle
from fedbbpt.testing.simulated_llm import SimulatedLlm, examples
from fedbbpt.testing.sites import Desk

SCHOOLS = ("school-0", "school-1", "school-2")


def both(folder, tree, data):
    """(the run in one process, the run over nodes with these files by name)."""
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    here = api.run(path, folder / "here")
    over = federated(read(path, ["engine.kind=flower"]))
    homes = {}
    for name, file in data.items():
        invited = folder / "invited" / name
        invited.mkdir(parents=True)
        invitation.write(invited, invitation.invitation(over))
        own = [f"box.url={tree['box']['url']}"] if "url" in tree["box"] else ["data.layout=class"]
        homes[name] = settle(invited, folder / "homes" / name, file, None, own).home
    desk = Desk(homes, agreed(over))
    there = api.run(over, folder / "there", split=empty(over), post=desk)
    return here, there


def same(here, there):
    ours, theirs = dict(here.result), dict(there.result)
    for result in (ours, theirs):
        queries = result["queries"]
        result["queries"] = {k: v for k, v in queries.items() if k not in ("paid", "cached")}
        for key in ("seconds", "bytes", "cost_usd"):
            del result[key]
    for key in ("baseline", "tuned"):
        ours[key] = pytest.approx(ours[key], abs=1e-9)
    assert theirs == ours
    prompts = [(run.path / "prompt" / "prompt.safetensors").read_bytes() for run in (here, there)]
    assert prompts[0] == prompts[1]


def test_instructions_that_nodes_had_written_are_chosen_among_as_in_one_process(tmp_path):
    cards = [(text, right[0]) for text, right in examples("plural", 36)]
    with (tmp_path / "all.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("input", "output", "site"))
        table.writerows((*card, SCHOOLS[i % 3]) for i, card in enumerate(cards[:30]))
    with (tmp_path / "test.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("input", "output"), *cards[30:]])
    data = {}
    for i, name in enumerate(SCHOOLS):
        data[name] = tmp_path / f"{name}.csv"
        with data[name].open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("input", "output"), *cards[:30][i::3]])
    with SimulatedLlm(seed=0, embedding="ngrams") as server:
        box = {"kind": "openai_http", "url": server.url, "model": server.name, "key_env": ""}
        tree = {
            "task": "generate",
            "data": {"train": "all.csv", "test": "test.csv"},
            "box": box,
            "prompt": {"instruction": "Write the word.", "encoder": "ngrams", "proposals": 3},
            "method": {"name": "fedinstruct"},
            "budget": {"queries": 160},
        }
        here, there = both(tmp_path, tree, data)
    assert there.result["tuned"]["exact"] > there.result["baseline"]["exact"]
    same(here, there)


def test_a_label_mapping_that_nodes_have_counted_is_that_of_one_process(tmp_path, monkeypatch):
    Image = pytest.importorskip("PIL.Image")
    boxes = Path(__file__).parents[1] / "cli"
    monkeypatch.syspath_prepend(str(boxes))
    spec = spec_from_file_location("sightbox_here", boxes / "sightbox.py")
    toy = module_from_spec(spec)
    spec.loader.exec_module(toy)

    def draw(folder, pairs):
        for i, (array, kind) in enumerate(pairs):
            path = folder / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)

    for k, name in enumerate(SCHOOLS):
        draw(tmp_path / "train" / name, toy.pictures(9, 100 * k))
    draw(tmp_path / "test", toy.pictures(9, 9000))
    tree = toy.tables(prompt__mapping="learned", method__snapshots=2, budget__queries=200)
    classes = sorted(folder.name for folder in (tmp_path / "test").iterdir())
    tree["data"] = {"train": "train", "test": "test", "layout": "site/class", "classes": classes}
    data = {name: tmp_path / "train" / name for name in SCHOOLS}
    same(*both(tmp_path, tree, data))
