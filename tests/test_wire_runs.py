"""Whole runs over a wire: failures change nothing, kills repay nothing, caps hold, keys stay."""

import csv
import json
import math
import random
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
import tomli_w

from fedbbpt import api
from fedbbpt.config import resolve
from fedbbpt.errors import BudgetSpent
from fedbbpt.testing.faults import FaultServer, evenly

WORDS = ["plain", "honest", "sharp", "warm", "dull", "loud"]
GOOD = ("fine", "lovely", "superb", "neat")
BAD = ("poor", "awful", "grim", "stale")
KEY = "sk-never-to-be-seen"


def answer(text):
    """Sees the feeling of a text, better behind some words than behind others."""
    pull = sum(word in text for word in GOOD) - sum(word in text for word in BAD)
    help_ = 0.4 * ("honest" in text) + 0.2 * ("sharp" in text) - 0.3 * ("dull" in text)
    sway = 0.9 - 0.004 * (len(text) % 7)
    margin = pull * (0.5 + help_) - sway
    good = 1 / (1 + math.exp(-margin))
    return {"good": math.log(0.9 * good), "bad": math.log(0.9 * (1 - good)), "it": math.log(0.1)}


@pytest.fixture
def tree(tmp_path):
    rng = random.Random(5)
    for name, count in (("train", 24), ("test", 16)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            for i in range(count):
                words = rng.choice((GOOD, BAD))
                writer.writerow(
                    (f"{rng.choice(words)} thing {i}", "good" if words is GOOD else "bad")
                )
    return {
        "data": {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv")},
        "partition": {"kind": "iid", "clients": 3},
        "box": {
            "kind": "openai_http",
            "model": "toy",
            "key_env": "TOY_KEY",
            "timeout": 0.2,
            "deadline": 30.0,
            "max_concurrency": 8,
        },
        "prompt": {
            "kind": "tokens",
            "side": "text",
            "template": "{text}. So it is",
            "words": WORDS,
            "candidates": 6,
            "slots": 2,
        },
        "method": {"name": "fedwords", "snapshots": 3},
        "budget": {"queries": 700},
        "engine": {"threads": 3},
    }


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TOY_KEY", KEY)


def at(tree, server, **box):
    return {**tree, "box": {**tree["box"], "url": server.url, **box}}


def prompt_of(out):
    """The tuned prompt; the box's name has the server's port in it."""
    meta = json.loads((out / "prompt" / "prompt.json").read_text())
    return meta | {"box": ""}, (out / "prompt" / "prompt.safetensors").read_bytes()


def paid(out):
    db = sqlite3.connect(out / "ledger.sqlite")
    try:
        requests = db.execute("SELECT count(*), sum(rows = 0) FROM requests").fetchone()
        rows, distinct = db.execute("SELECT count(*), count(DISTINCT key) FROM rows").fetchone()
        return *requests, rows, distinct
    finally:
        db.close()


def test_with_a_third_of_all_requests_failing_the_prompt_is_the_same(tree, tmp_path):
    results = {}
    for name, faults in (("well", {}), ("ill", evenly(0.3))):
        with FaultServer(answer, faults, key=KEY) as server:
            outcome = api.run(resolve(at(tree, server), tmp_path), tmp_path / name)
            results[name] = outcome.result
            assert outcome.requests["sent"] == paid(tmp_path / name)[0] == server.requests
    well, ill = results["well"], results["ill"]
    assert prompt_of(tmp_path / "ill") == prompt_of(tmp_path / "well")
    # The price of knowing an answer is one query; how often it was asked for is listed apart.
    assert ill["queries"] == well["queries"] and ill["tuned"] == well["tuned"]
    assert well["tuned"]["loss"] < well["baseline"]["loss"] and well["rounds"] > 1
    requests, failed, rows, distinct = paid(tmp_path / "ill")
    assert failed > 0.2 * rows and requests - failed == rows == distinct
    assert paid(tmp_path / "well")[:2] == (rows, 0)


def test_what_two_clients_ask_is_one_request(tree, tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + "fine thing,good\npoor thing,bad\n" * 9)
    with FaultServer(answer, key=KEY, latency=0.005) as server:
        outcome = api.run(resolve(at(tree, server), tmp_path), tmp_path / "out")
        bodies = [seen.body for seen in server.log]
    assert len(bodies) == len(set(bodies)) == outcome.result["queries"]["paid"]
    assert outcome.result["queries"]["train"] > len(bodies)  # each client is charged all the same


def test_killed_again_and_again_it_pays_at_most_what_was_on_the_way(tree, tmp_path):
    with FaultServer(answer, key=KEY) as server:
        whole = api.run(resolve(at(tree, server), tmp_path), tmp_path / "whole").result
    chance, out, lost = random.Random(11), tmp_path / "out", 0
    with FaultServer(answer, key=KEY, latency=0.01) as server:
        path = tmp_path / "config.toml"
        path.write_text(tomli_w.dumps(at(tree, server)))
        command = [sys.executable, "-m", "fedbbpt"]
        for kill in range(20):
            act = (
                ["resume", out]
                if (out / "state" / "run.json").exists()
                else ["run", path, "--out", out]
            )
            before = server.requests
            victim = subprocess.Popen([*map(str, [*command, *act])], stdout=subprocess.DEVNULL)
            until = time.monotonic() + 30
            while server.requests == before and victim.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.12))
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            lost = server.requests - (paid(out)[0] if (out / "ledger.sqlite").exists() else 0)
            assert lost <= 8 * (kill + 1)
        done = subprocess.run([*command, "resume", str(out)], capture_output=True, check=True)
        assert b"->" in done.stdout or b"\xe2\x86\x92" in done.stdout
        result = json.loads((out / "result.json").read_text())
        assert server.requests - paid(out)[0] == lost
    # Round files may differ in their times; what counts is the same.
    assert result["tuned"] == whole["tuned"] and prompt_of(out) == prompt_of(tmp_path / "whole")
    for purse in ("train", "select", "evaluation"):
        assert result["queries"][purse] == whole["queries"][purse]
    assert paid(out)[2] == paid(out)[3]


def test_the_key_is_in_no_file_and_on_no_screen(tree, tmp_path):
    with FaultServer(answer, {"500": 0.2}, key=KEY) as server:
        path = tmp_path / "config.toml"
        path.write_text(tomli_w.dumps(at(tree, server)))
        out = tmp_path / "out"
        done = subprocess.run(
            [sys.executable, "-m", "fedbbpt", "--debug", "run", str(path), "--out", str(out)],
            capture_output=True,
            check=True,
        )
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) > 6
    assert all(KEY.encode() not in file.read_bytes() for file in files)
    assert KEY.encode() not in done.stdout + done.stderr


def test_a_cap_in_dollars_ends_the_search_and_leaves_the_final_pass(tree, tmp_path):
    prices = {"input": 1000.0, "output": 1000.0}
    with FaultServer(answer, key=KEY) as server:
        free = api.run(resolve(at(tree, server, prices=prices), tmp_path), tmp_path / "free").result
        capped = {
            **at(tree, server, prices=prices),
            "budget": {"queries": 700, "usd": free["cost_usd"] * 0.6},
        }
        out = api.run(resolve(capped, tmp_path), tmp_path / "capped").result
    assert out["stopped"] == "budget" and out["queries"]["train"] < free["queries"]["train"]
    assert 0.3 * free["cost_usd"] < out["cost_usd"] <= capped["budget"]["usd"]
    assert out["test_examples"] == 16


def test_a_cap_that_is_too_small_for_the_final_pass_can_be_raised(tree, tmp_path):
    prices = {"input": 1000.0, "output": 1000.0}
    tiny = {"queries": 700, "usd": 0.2}
    with FaultServer(answer, key=KEY) as server:
        config = resolve({**at(tree, server, prices=prices), "budget": tiny}, tmp_path)
        with pytest.raises(BudgetSpent, match=r"budget\.usd is 0\.2"):
            api.run(config, tmp_path / "out")
        spent = sum(
            c
            for (c,) in sqlite3.connect(tmp_path / "out" / "ledger.sqlite").execute(
                "SELECT usd FROM requests"
            )
        )
        assert spent <= 0.2
        text = (tmp_path / "out" / "config.toml").read_text().replace("usd = 0.2", "usd = 100.0")
        (tmp_path / "out" / "config.toml").write_text(text)
        done = api.resume(tmp_path / "out").result
    assert np.isfinite(done["tuned"]["accuracy"])


def test_replies_without_a_label_are_counted_and_wrong(tree, tmp_path):
    def mute(text):
        told = answer(text)
        return {"it": -0.01, "bad": -9.0, "good": -9.0} if "thing 1" in text else told

    with FaultServer(mute, key=KEY) as server:
        asked = at(tree, server, scores="labels")
        asked["method"] = {"name": "manual"}
        outcome = api.run(resolve(asked, tmp_path), tmp_path / "out")
    assert outcome.requests["unnamed"] > 0
    lost = sum("thing 1" in row for row in (tmp_path / "test.csv").read_text().splitlines())
    assert outcome.result["tuned"]["accuracy"] <= 1 - lost / 16


def test_clients_who_work_alone_share_the_cap_and_add_up_their_bills(tree, tmp_path):
    prices = {"input": 1000.0, "output": 1000.0}
    with FaultServer(answer, key=KEY) as server:
        alone = at(tree, server, prices=prices)
        alone |= {"method": {"name": "local-only", "base": "fedwords"}}
        alone["budget"] = {"queries": 1500, "usd": 12.0}
        outcome = api.run(resolve(alone, tmp_path), tmp_path / "out")
    each = (tmp_path / "out" / "clients").glob("*/result.json")
    costs = [json.loads(file.read_text())["cost_usd"] for file in each]
    assert len(costs) == 3 and max(costs) <= 4.0
    assert outcome.result["cost_usd"] == pytest.approx(sum(costs))
