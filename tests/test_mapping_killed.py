"""kill -9 while clients count, search and are scored: resumed, it is the run nobody disturbed."""

import signal
import sqlite3
import subprocess
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import tomli_w

from fedbbpt import checkpoint

Image = pytest.importorskip("PIL.Image")
BOXES, DEADLINE = Path(__file__).parent / "cli", 60.0


def load(name):
    spec = spec_from_file_location(f"{name}_here", BOXES / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit, toy = load("helpers"), load("sightbox")


def draw(folder, pairs):
    for i, (array, kind) in enumerate(pairs):
        path = folder / kind / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(3):
        draw(folder / "train" / f"site {k}", toy.pictures(9, 100 * k))
    draw(folder / "test", toy.pictures(9, 9000))
    tree = toy.tables(prompt__mapping="learned", method__snapshots=2, budget__queries=200)
    tree["data"] = {"train": "train", "test": "test", "layout": "site/class"}
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    return path


class Victim:
    """One run in processes that are killed; its box logs every picture before it answers."""

    def __init__(self, config, out, sleep):
        self.config, self.out, self.sleep = config, out, sleep
        self.log = out.with_name(out.name + ".log")
        self.log.touch()
        self.lives = []  # (pictures answered, rows recorded) of each process

    def live(self, until=None):
        """Start or resume it, and kill it once so many pictures were answered in all."""
        begun = (self.out / "config.toml").exists()
        args = ("resume", self.out) if begun else ("run", self.config, "--out", self.out)
        answered, recorded = self.answered, self.recorded
        process = subprocess.Popen(
            kit.command(*args),
            env=kit.environment(SIGHTBOX_SLEEP=str(self.sleep), SIGHTBOX_LOG=str(self.log)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            patience = time.monotonic() + DEADLINE
            while until is not None and self.answered < until and process.poll() is None:
                assert time.monotonic() < patience
                time.sleep(0.001)
            if until is not None:
                process.send_signal(signal.SIGKILL)
            said = process.communicate(timeout=DEADLINE)[1].decode()
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == (0 if until is None else -signal.SIGKILL), said
        self.lives.append((self.answered - answered, self.recorded - recorded))

    @property
    def answered(self):
        return len(self.log.read_text().splitlines())

    @property
    def recorded(self):
        path = self.out / "ledger.sqlite"
        if not path.exists():
            return 0
        ledger = sqlite3.connect(path)
        try:
            return ledger.execute("SELECT count(*) FROM rows").fetchone()[0]
        except sqlite3.OperationalError:  # killed before the table was made
            return 0
        finally:
            ledger.close()


def told(out):
    notes = [event["sentence"] for event in kit.events(out, "note")]
    phases = [event["phase"] for event in kit.events(out, "merge")]
    return kit.numbers(out), kit.prompt(out), kit.losses(out), notes, phases


def test_killed_at_every_stage(config):
    peace = Victim(config, config.with_name("peace"), sleep=0.0)
    peace.live()
    paid = kit.result(peace.out)["queries"]["paid"]
    assert peace.lives == [(paid, paid)]
    queries, largest = kit.result(peace.out)["queries"], 9 * len(kit.events(peace.out, "snapshot"))
    count = 3 * 6  # one by all clients
    assert queries["train"] > 2 * count and kit.events(peace.out, "note")
    phases = [event["phase"] for event in kit.events(peace.out, "merge")]
    assert phases[:2] == ["count", "sharpen"] and "search" in phases and "learn_all" in phases

    war = Victim(config, config.with_name("war"), sleep=0.004)
    stages = {
        "the first count": count // 2,
        "the search": queries["train"] // 2,
        "the last count": queries["train"] - count // 2,
        "the final pass": paid - largest // 2,
    }
    for number, until in enumerate(stages.values()):
        war.live(until + sum(a - r for a, r in war.lives))
        saved = checkpoint.load(war.out / "state")
        assert (saved is None) == (number == 0)
        assert not (war.out / "result.json").exists()
    war.live()
    assert told(war.out) == told(peace.out)
    # Nothing that was recorded is asked again: a killed process loses the call under way.
    *killed, last = war.lives
    assert all(0 <= answered - recorded <= largest for answered, recorded in killed)
    assert last[0] == last[1] and sum(recorded for _, recorded in war.lives) == paid
    war.live()  # finished: it repeats its last pass from the ledger
    assert war.lives[-1] == (0, 0) and told(war.out) == told(peace.out)
