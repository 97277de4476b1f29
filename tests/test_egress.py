"""What is said to leave a site bounds what leaves it, and what has left is kept to the byte."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections import defaultdict
from dataclasses import replace
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt import api
from fedbbpt.arrays import wire_bytes
from fedbbpt.boxes.function import Function
from fedbbpt.build import build
from fedbbpt.config import presets, resolve
from fedbbpt.egress import EgressLog, statement
from fedbbpt.engines.local import Local
from fedbbpt.ledger import Ledger
from fedbbpt.record import read_lines
from fedbbpt.sharing import TESTER, share_out, tables
from fedbbpt.testing.toys import ToyEncoder, toy_batch
from fedbbpt.writing import ASK

HERE = Path(__file__).parent


def load(name):
    spec = spec_from_file_location(name, HERE / "cli" / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Slopes(ToyEncoder):
    """The toy encoder, which any preset for texts can ask, with gradients that lead nowhere."""

    gives = ToyEncoder.gives | {"gradients"}

    def gradient(self, prompt, examples, targets):
        return 1.0, np.full((len(prompt.soft), *prompt.soft[0].shape), 1e-3)


def settings(name):
    return tomllib.loads((files("fedbbpt.methods") / f"{name}.toml").read_text("utf-8"))


def kind_of(name):
    """Which examples a preset is for."""
    preset = settings(name)
    below = preset.get("method", {}).get("base")
    below = below if below in presets() else "fedes"
    prompt = {**(settings(below).get("prompt", {}) if below else {}), **preset.get("prompt", {})}
    if prompt.get("side") == "image":
        return "pictures"
    return "instructions" if prompt.get("kind") == "instruction" else "texts"


def texts(name, words=("bad", "good", "odd")):
    def pairs(seed, size):
        batch = toy_batch(size, len(words), seed)
        return [(text, words[i]) for text, i in zip(batch.inputs, batch.targets, strict=True)]

    tree = {
        "prompt": {"template": "It was {label} ."},
        "method": {"name": name},
        "rounds": {"max": 3, "holdout": 0.25},
        "budget": {"queries": 3000},
    }
    if name != "fed-bbpt-text" and settings(name).get("prompt", {}).get("kind") == "tokens":
        tree["prompt"] |= {"slots": 2, "candidates": 8}
    sites = {f"site {k}": pairs(k, 12 + 3 * k) for k in range(3)}
    return tree, sites, pairs(9, 9), Slopes()


def pictures(name):
    sight = load("sightbox")
    tree = sight.tables(**{"method.name": name})
    del tree["box"], tree["prompt"]["form"]
    if name == "label-mapping":
        tree["method"] = {"name": name}
    if name == "fed-bbpt-vision":
        del tree["prompt"]["mapping"]
        tree["prompt"]["labels"] = sight.NAMED
    tree["rounds"] = {"max": 3, "batch": 4}
    sites = {f"site {k}": sight.pictures(12 + k, 100 * k) for k in range(3)}
    return tree, sites, sight.pictures(9, 9000), None


def instructions(name):
    def answer(prompts, examples):
        (prompt,) = prompts
        if prompt.template == ASK:
            said = "Say it again.\nSay it twice.\nSag es zwölfmal, 日本語で!\n" + "Sing it. " * 30
            return [[f"{said}\nSay it {len(x) % 17} times." for x in examples]]
        return [[f"{x} {x}" if "twice" in prompt.template else x for x in examples]]

    words = "ash fir oak elm yew box bay fig hop ivy".split()
    every = [(f"{a} {b}", f"{a} {b} {a} {b}") for a in words for b in words]
    tree = {
        "task": "generate",
        "prompt": {"instruction": "Say it.", "encoder": "ngrams", "writer": "pool"},
        "method": {"name": name},
        "rounds": {"max": 6},
        "budget": {"queries": 3000},
    }
    tree["prompt"]["proposals"] = 4
    sites = {f"site {k}": every[9 * k : 9 * k + 9] for k in range(3)}
    return tree, sites, every[-8:], Function(answer, gives=["text"])


MAKERS = {"texts": texts, "pictures": pictures, "instructions": instructions}


def made(folder, name, words=None, **changes):
    """(config, split, box) of a small federation."""
    given = {} if words is None else {"words": words}
    tree, sites, test, box = MAKERS[kind_of(name)](name, **given)
    for path, value in changes.items():
        *names, key = path.split("__")
        place = tree
        for table in names:
            place = place.setdefault(table, {})
        place[key] = value
    if box is None:
        tree["box"] = load("sightbox").tables()["box"]
    config = resolve({"data": {"train": ""}, **tree}, folder)
    train, tested = tables(sites, test, config.data, config.task)
    # A test set for every site, as where each is a node of its own.
    names = sorted(sites)
    owners = tuple(names[i % len(names)] for i in range(len(tested.inputs)))
    return config, share_out(config, train, tested._replace(sites=owners)), box


@pytest.fixture
def sent(monkeypatch):
    """phase -> [arrays], of all that clients of this process send."""
    if "sightbox" not in sys.modules:
        monkeypatch.setitem(sys.modules, "sightbox", load("sightbox"))
    seen, plain = defaultdict(list), Local.map

    def noted(self, job, clients):
        updates = plain(self, job, clients)
        seen[job.phase] += [u.arrays for u in updates if u.client != TESTER]
        return updates

    monkeypatch.setattr(Local, "map", noted)
    return seen


def compared(folder, sent, name, **changes):
    """The statement of a federation, held against all that a run of it sent."""
    config, split, box = made(folder, name, **changes)
    federation = build(config, split, Ledger(), box)
    sent.clear()
    said = statement(federation, config)
    assert not sent, "a statement asked a client"
    out = folder / "out"
    api.run(config, out, box=box, split=split)
    rows = {row.phase: row for row in said.rows}
    assert set(sent) <= set(rows)
    for phase, each in sent.items():
        row = rows[phase]
        declared = {field.name: field for field in row.fields}
        for arrays in each:
            assert wire_bytes(arrays) <= max(row.bytes, wire_bytes({})), phase
            assert set(arrays) <= set(declared), phase
            for key, array in arrays.items():
                field = declared[key]
                assert str(array.dtype) == field.dtype and array.ndim == len(field.shape)
                assert all(np.array(array.shape) <= field.shape), (phase, key)
    return said, rows, out


@pytest.mark.parametrize("name", sorted({*presets()} - {"auto"}))
def test_the_statement_of_every_preset_bounds_what_a_run_sends(tmp_path, sent, name):
    _, rows, out = compared(tmp_path, sent, name)
    assert sent["setup"]
    if "search" not in rows:
        return
    assert sent["search"] and (sent["select"] or name == "fedwords")  # which holds none back
    # What the books say went up is what was looked at here, and what was declared to the byte. Of
    # instructions the pool may be smaller than what could be tried at a time.
    runs = [out] if name != "local-only" else [*(out / "clients").iterdir()]
    events = [e for run in runs for e in read_lines(run / "events.jsonl") if e["event"] == "client"]
    up = [event["bytes_up"] for event in events if event["phase"] == "search"]
    assert max(up) == max(map(wire_bytes, sent["search"])) <= rows["search"].bytes
    assert max(up) == rows["search"].bytes or kind_of(name) == "instructions"


@pytest.mark.parametrize("name", ["fedes", "fedavg-bbt", "fed-bbpt-text", "fedinstruct"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("wire", ["replay", "state"])
def test_steps_and_wires_are_in_it(tmp_path, sent, name, steps, wire):
    changes = {"rounds__steps": steps, "method__wire": wire}
    if kind_of(name) == "texts":
        changes["method__directions"] = "distinct"
    elif steps > 1:
        changes |= {"method__directions": "distinct"}
    _, rows, _ = compared(tmp_path, sent, name, **changes)
    assert rows["search"].bytes == max(map(wire_bytes, sent["search"]))


def test_classes_and_snapshots_are_in_it(tmp_path, sent):
    _, rows, _ = compared(tmp_path, sent, "fedes", method__snapshots=7)
    shapes = {field.name: field.shape for field in rows["select"].fields}
    assert shapes == {"losses": (9,), "squares": (9,), "answers": (9, 3), "labels": (3,)}


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews", "spearman"])
def test_what_a_metric_needs_is_in_it(tmp_path, sent, metric):
    changes = {"metric": metric, "words": ("bad", "good")}
    if metric == "spearman":
        changes |= {"task": "rate", "data": {"range": [0, 9]}, "words": ("1", "7", "8")}
    _, rows, _ = compared(tmp_path, sent, "fedes", **changes)
    assert len(rows["evaluate"].fields) == len(sent["evaluate"][0]) > 1
    assert all(field.meaning for field in rows["evaluate"].fields)


def test_words_that_sites_share_are_in_it(tmp_path, sent):
    encoder = ToyEncoder()
    box = Function(lambda p, x: encoder(p, x).scores, "text", accepts=("text",))
    prompt = {"vocabulary": "clients", "kind": "tokens", "side": "text", "place": "after"}
    prompt |= {"template": "{text} It was", "slots": 2, "candidates": 4}
    config, split, _ = made(tmp_path, "fedone", prompt=prompt)
    federation = build(config, split, Ledger(), box)
    (row,) = [r for r in statement(federation, config).rows if r.phase == "vocabulary"]
    assert "at least 2 sites" in row.purpose
    first, second = sent["vocabulary"][:3], sent["vocabulary"][3:]
    # Each site's two messages together, as the row has them.
    together = [{**one, **other} for one, other in zip(first, second, strict=True)]
    assert 0 < max(map(wire_bytes, together)) <= row.bytes
    declared = {field.name: field.shape for field in row.fields}
    assert declared["hashes"] == max(arrays["hashes"].shape for arrays in first)


# --- shields -------------------------------------------------------------------------------------

CLIP, NOISE = {"clip": {"norm": 1.0}}, {"noise": {"epsilon": 3.0}}
SHIELDS = [CLIP, CLIP | {"quantise": {"bits": 8}}, CLIP | NOISE, {"mask": {}}, CLIP | {"mask": {}}]


@pytest.mark.parametrize("shields", SHIELDS, ids=lambda each: "-".join(each))
def test_what_shields_make_of_it_is_in_it(tmp_path, sent, shields):
    for package in ("cryptography", "dp_accounting"):
        pytest.importorskip(package)
    said, rows, _ = compared(tmp_path, sent, "fedes", shields=shields)
    assert rows["search"].bytes == max(map(wire_bytes, sent["search"])) > 0
    assert rows["search"].shields == tuple(shields)
    assert len(said.shields) == len(shields) and said.shields[0] in " ".join(said.shields)
    silent = "noise" in shields
    for phase in ("select", "evaluate"):
        assert bool(rows[phase].fields) is not silent and bool(rows[phase].bytes) is not silent
    assert ("nothing leaves" in said.text()) is silent
    if "mask" in shields:
        assert rows["search"].fields[0].name == "words"
        for phase in ("advertise", "share", "answer"):
            assert rows[phase].bytes == max(map(wire_bytes, sent[phase]))


def test_a_large_secure_sum_is_said_to_be_large(tmp_path, sent):
    """One row for each client, though far fewer stand-ins are asked."""
    pytest.importorskip("cryptography")
    config, split, box = made(tmp_path, "fedes", shields={"mask": {}})
    rows = {}
    for sites in (5, 40):
        names = [f"site {k}" for k in range(sites)]
        many = {kind: dict.fromkeys(names, getattr(split, kind)["site 0"]) for kind in ("train",)}
        large = replace(split, clients=tuple(names), holdout={}, test={}, **many)
        federation = build(config, large, Ledger(), box)
        rows[sites] = {row.phase: row for row in statement(federation, config).rows}
    for phase, field in (("share", "sealed"), ("answer", "shares")):
        shapes = {k: {f.name: f.shape for f in rows[k][phase].fields}[field] for k in rows}
        assert shapes[5][0] == 5 and shapes[40] == (40, shapes[5][1])
        assert rows[40][phase].bytes - rows[5][phase].bytes >= 35 * shapes[5][1]


# --- as text -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fedes", "fedbpt-nvflare", "linear-probe", "fedinstruct"])
def test_the_text_is_for_people(tmp_path, sent, name):
    config, split, box = made(tmp_path, name)
    federation = build(config, split, Ledger(), box)
    said = statement(federation, config)
    text = said.text()
    assert max(map(len, text.splitlines())) < 100 and text.isprintable() is False
    assert all(line == line.rstrip() for line in text.splitlines()) and "{" not in text
    for row in said.rows:
        assert f"{row.phase}: {row.purpose}"[:90] in text
        assert all(field.meaning for field in row.fields) or federation.baseline is not None
    for item in (*said.besides, said.joining, *said.never):
        assert " ".join(item.split()) in " ".join(text.split())
    # Nothing of the examples is in it.
    for batch in split.train.values():
        assert not any(str(x) in text for x in batch.inputs)


def test_what_only_the_server_holds_leaves_nobody(tmp_path, sent):
    config, split, box = made(tmp_path, "fedes")
    public = replace(split, test={TESTER: split.test["site 0"]}, holdout={})
    rows = [row.phase for row in statement(build(config, public, Ledger(), box), config).rows]
    assert rows == ["setup", "search"]


# --- the log -------------------------------------------------------------------------------------


def kept(folder):
    return EgressLog(folder).read()


def test_the_log_has_every_byte(tmp_path):
    log, rng = EgressLog(tmp_path / "home"), np.random.default_rng(0)
    letters = [rng.bytes(int(size)) for size in rng.integers(0, 3000, 20)]
    for number, letter in enumerate(letters):
        file = log.write("search", number, letter)
        assert file.read_bytes() == letter
    lines = kept(tmp_path / "home")
    assert [line["round"] for line in lines] == list(range(20))
    for line, letter in zip(lines, letters, strict=True):
        assert line["bytes"] == len(letter) and line["time"].endswith("+00:00")
        assert line["sha256"] == hashlib.sha256(letter).hexdigest()
        assert (tmp_path / "home" / line["file"]).read_bytes() == letter
    assert lines[3]["file"] == "sent/000004-search-3.letter"
    assert len(list((tmp_path / "home" / "sent").iterdir())) == 20


def test_a_task_that_runs_again_adds_nothing(tmp_path):
    first = EgressLog(tmp_path).write("search", 3, b"letter")
    EgressLog(tmp_path).write("search", 4, b"letter")
    before = (tmp_path / "egress.jsonl").read_bytes()
    assert EgressLog(tmp_path).write("search", 3, b"letter") == first
    assert (tmp_path / "egress.jsonl").read_bytes() == before
    # Another message is another line, even in the same round of the same phase.
    other = EgressLog(tmp_path).write("search", 3, b"another")
    assert other != first and len(kept(tmp_path)) == 3


def test_a_phase_with_any_name_stays_in_its_folder(tmp_path):
    file = EgressLog(tmp_path).write("../../etc/x y", 0, b"letter")
    assert file.parent == tmp_path / "sent" and file.read_bytes() == b"letter"


def test_a_line_that_was_cut_off_is_written_again(tmp_path):
    log = EgressLog(tmp_path)
    log.write("search", 0, b"first")
    whole = (tmp_path / "egress.jsonl").read_bytes()
    log.write("search", 1, b"second")
    both = (tmp_path / "egress.jsonl").read_bytes()
    for end in range(len(whole), len(both), 13):
        (tmp_path / "egress.jsonl").write_bytes(both[:end])
        assert [line["round"] for line in kept(tmp_path)] == [0]
        EgressLog(tmp_path).write("search", 1, b"second")
        assert [line["round"] for line in kept(tmp_path)] == [0, 1]
        assert len(list((tmp_path / "sent").iterdir())) == 2


VICTIM = """
import os, signal, sys
from pathlib import Path
from fedbbpt.egress import EgressLog
left = 0
for name in ("fsync", "replace"):
    def call(*args, plain=getattr(os, name)):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*args)
    setattr(os, name, call)
for calls in range(int(sys.argv[2])):
    if os.fork() == 0:
        left = calls
        for number in range(3):
            log = EgressLog(Path(sys.argv[1]) / str(calls))
            log.write("search", number, bytes([number]) * 1000)
            os.write(1, f"{calls} {number}\\n".encode())
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_whatever_left_is_in_the_log_wherever_it_is_killed(tmp_path):
    """Killed before each flush in turn; what was said to be written by then is there, and the
    same task run again makes the log that nobody disturbed.
    """
    times = 17
    command = [sys.executable, "-c", VICTIM, str(tmp_path), str(times)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = defaultdict(list)
    for line in done.stdout.splitlines():
        calls, number = map(int, line.split())
        said[calls].append(number)
    assert {len(said[calls]) for calls in range(times)} == {0, 1, 2, 3}
    for calls in range(times):
        home = tmp_path / str(calls)
        lines = kept(home)
        assert [line["round"] for line in lines][: len(said[calls])] == said[calls]
        for line in lines:
            assert (home / line["file"]).read_bytes() == bytes([line["round"]]) * 1000
        for number in range(3):
            EgressLog(home).write("search", number, bytes([number]) * 1000)
        log = (home / "egress.jsonl").read_text().splitlines()
        assert [json.loads(line)["round"] for line in log] == [0, 1, 2]
        names = {file.name for file in (home / "sent").glob("*.letter")}
        assert names == {f"{n + 1:06d}-search-{n}.letter" for n in range(3)}
