"""kill -9 while instructions are written, searched and scored: resumed, it is the same run."""

import csv
import json
import signal
import subprocess
import threading
import time
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import tomli_w

from fedbbpt.testing.simulated_llm import SimulatedLlm, examples

DEADLINE, SITES = 60.0, ("ash", "birch", "cedar")


def load_kit():
    path = Path(__file__).parent / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load_kit()


class Holds(SimulatedLlm):
    """Keeps what it was asked, and does not answer the question ``hold`` as long as that is set."""

    def __enter__(self):
        self.asked, self.hold, self.held = [], b"", threading.Event()
        return super().__enter__()

    def answer(self, body):
        self.asked.append(body)
        while body == self.hold:
            self.held.set()
            time.sleep(0.005)
        return super().answer(body)


@pytest.fixture
def model():
    with Holds(embedding="ngrams") as running:
        yield running


def write_config(folder, model, **changes):
    cards = [(text, right[0]) for text, right in examples("plural", 38)]
    for name, rows in (("train", cards[:30]), ("test", cards[30:])):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("input", "output", "site"))
            sites = [SITES[i % 3] if name == "train" else "" for i in range(len(rows))]
            table.writerows((*row, site) for row, site in zip(rows, sites, strict=True))
    tree = {
        "task": "generate",
        "data": {"train": "train.csv", "test": "test.csv"},
        "box": {
            "kind": "openai_http",
            "url": model.url,
            "model": model.name,
            "key_env": "",
            "max_concurrency": 4,
        },
        "prompt": {
            "instruction": "Write the word for more than one.",
            "encoder": "ngrams",
            "proposals": 4,
            "again": 2,
        },
        "method": {"name": "fedinstruct"},
        "budget": {"queries": 200},
    }
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    return path


def live(config, out, model, hold=b""):
    """Start or resume; kill it while it waits for the answer to a question."""
    begun = (out / "config.toml").exists()
    args = ("resume", out) if begun else ("run", config, "--out", out)
    model.hold = hold
    model.held.clear()
    process = subprocess.Popen(
        kit.command(*args),
        env=kit.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        if hold:
            assert model.held.wait(DEADLINE)
            time.sleep(0.02)  # what it was asked at the same time may be booked, or not
            process.send_signal(signal.SIGKILL)
        said = process.communicate(timeout=DEADLINE)[1].decode()
    finally:
        process.kill()
        process.communicate()
        model.hold = b""
    assert process.returncode == (-signal.SIGKILL if hold else 0), said


def told(out):
    """All that a kill must not change."""
    pools = {file.name: file.read_bytes() for file in (out / "state").glob("pool-*")}
    proposed = [(e["client"], e["sent"], e["refused"]) for e in kit.events(out, "proposed")]
    table = json.loads((out / "prompt" / "candidates.json").read_text())
    return kit.numbers(out), kit.prompt(out), kit.losses(out), pools, proposed, table


def test_killed_while_it_writes_searches_and_scores(model, tmp_path):
    config = write_config(tmp_path, model)
    peace, war = tmp_path / "peace", tmp_path / "war"
    live(config, peace, model)
    asked = list(model.asked)
    queries = kit.result(peace)["queries"]
    assert len(set(asked)) == len(asked) == queries["paid"]  # no question twice
    written = [i for i, body in enumerate(asked) if b"one and the same instruction" in body]
    varied = [i for i, body in enumerate(asked) if b"different variations" in body]
    assert len(written) == 3 + 2 and len(varied) == 2 + 2 and queries["train"] > 80

    model.asked.clear()
    kills = {
        "the second client's proposals": written[1],
        "the search": (written[2] + written[3]) // 2,
        "the second growth": varied[1],
        "the search behind it": (varied[1] + written[4]) // 2,
        "the last growth": written[4],
        "the final pass": queries["paid"] - 5,
    }
    grown = []
    for place in kills.values():
        live(config, war, model, asked[place])
        assert not (war / "result.json").exists()
        grown.append(len([*(war / "state").glob("pool-*")]))
    assert grown == [0, 1, 1, 2, 2, 3]
    live(config, war, model)
    assert told(war) == told(peace)

    # What was recorded is never asked again: only what was under way, four at a time.
    again = Counter(model.asked)
    assert again.keys() == set(asked)
    assert len(kills) <= again.total() - len(again) <= 4 * len(kills)
    live(config, war, model)  # finished: it repeats its last pass from the ledger
    assert Counter(model.asked) == again and told(war) == told(peace)


def test_a_pool_that_is_lost_is_one_plain_sentence(model, tmp_path):
    config, out = write_config(tmp_path, model), tmp_path / "out"
    live(config, out, model)
    file = out / "state" / "pool-3.safetensors"
    file.unlink()
    code, shown, said = kit.spawn("resume", out)
    assert code == 2 and said.count("\n") == 1 and "Traceback" not in shown + said
    assert said.startswith(f"fedbbpt: {file} is lost or damaged, so the run cannot be resumed")
