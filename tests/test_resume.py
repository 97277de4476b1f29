"""kill -9 at any moment, resume, and the run is the one that nobody disturbed."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from fedbbpt import checkpoint

DEADLINE = 60.0


def load_kit():
    path = Path(__file__).parent / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load_kit()


class Victim:
    """One run in processes that are killed; its box logs every atom that it evaluates."""

    def __init__(self, config, out, sleep=0.003):
        self.config, self.out, self.sleep = config, out, sleep
        self.log = out.with_name(out.name + ".log")
        self.log.touch()
        self.kills = []  # (atoms in the log by then, keys in the ledger by then)

    def start(self):
        begun = (self.out / "config.toml").exists()
        args = ("resume", self.out) if begun else ("run", self.config, "--out", self.out)
        return subprocess.Popen(
            kit.command(*args),
            env=kit.environment(TOYBOX_SLEEP=str(self.sleep), TOYBOX_LOG=str(self.log)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A shell's background job hands down a deaf ear for Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def strike(self, ready, delay=0.0, sent=signal.SIGKILL):
        """Start or resume, wait until ``ready()`` and a little more, then strike that process."""

        def wait(process):
            patience = time.monotonic() + DEADLINE
            while process.poll() is None and not ready() and time.monotonic() < patience:
                time.sleep(0.001)
            time.sleep(delay)
            process.send_signal(sent)

        code, said = self.attend(wait)
        if sent == signal.SIGKILL:
            assert code == -sent, f"ended by itself: {said}"
        self.kills.append((len(self.lines()), self.recorded()))
        return code, said

    def finish(self):
        code, said = self.attend()
        assert code == 0, said

    def attend(self, meanwhile=lambda process: None):
        """Start or resume and see it end: (exit code, all it said)."""
        process = self.start()
        try:
            meanwhile(process)
            said = b"".join(process.communicate(timeout=DEADLINE)).decode()
        finally:
            process.kill()
            process.communicate()
        return process.returncode, said

    def logged(self):
        """Bytes in the log."""
        return self.log.stat().st_size

    def lines(self):
        """(key, text) of every atom that the box began to evaluate."""
        whole = self.log.read_text().rpartition("\n")[0]
        return [line.split(" ", 1) for line in whole.splitlines()]

    def recorded(self):
        """Keys that this run has in its ledger."""
        path = self.ledger
        if not path.exists():
            return set()
        ledger = sqlite3.connect(path)
        try:
            return {key.hex() for (key,) in ledger.execute("SELECT key FROM rows")}
        except sqlite3.OperationalError:  # killed before the table was made
            return set()
        finally:
            ledger.close()

    @property
    def ledger(self):
        shared = self.config.with_name("shared.sqlite")
        return shared if shared.exists() else self.out / "ledger.sqlite"


def undisturbed(folder, changes, **shape):
    """(config, run directory, bytes in the log) of a run that ends in peace."""
    config = kit.write_config(folder, changes, **shape)
    victim = Victim(config, folder / "undisturbed", sleep=0.0)
    victim.finish()
    assert kit.result(victim.out)["stopped"] == "budget"
    return config, victim.out, victim.logged()


def assert_same(victim, reference, at_work=1):
    """The same run, and nothing that was recorded has been paid again."""
    out = victim.out
    assert kit.numbers(out) == kit.numbers(reference)
    seconds = kit.result(out)["seconds"]
    assert seconds["box"] <= seconds["search"] <= seconds["total"]
    assert kit.prompt(out) == kit.prompt(reference)
    assert kit.losses(out) == kit.losses(reference)
    played = [key for key, _ in kit.losses(out)]
    assert len(played) == len(set(played)) > 0
    for kind in ("merge", "select", "evaluate", "snapshot"):
        assert len(kit.events(out, kind)) == len(kit.events(reference, kind)) > 0
    lines, begun = victim.lines(), 0
    for position, recorded in victim.kills:
        assert recorded.isdisjoint(key for key, _ in lines[position:])
        # Only what was under way is lost: at most one call of each client that was at work.
        lost = {text.split()[0] for key, text in lines[begun:position] if key not in recorded}
        assert len(lost & set(kit.SITES)) <= at_work
        begun = position
    evaluated = Counter(key for key, _ in lines)
    assert max(evaluated.values()) <= 1 + len(victim.kills)
    assert len(evaluated) == kit.result(out)["queries"]["paid"]


def chain(victim, logged, kills, seed):
    """Kill at random moments all over the run, the final phases included, then let it end."""
    rng = random.Random(seed)
    for i in range(kills):
        aim = min((i + rng.random()) / kills, 0.93) * logged
        victim.strike(lambda aim=aim: victim.logged() >= aim, rng.uniform(0, 0.01))
    victim.finish()
    assert len(victim.kills) == kills


METHODS = {
    "fedes": {"method.name": "fedes", "budget.queries": 3200, "rounds.max": 1000},
    "fedbpt": {"method.name": "fedbpt", "budget.queries": 2600, "rounds.max": 1000},
    "fedavg-bbt": {"method.name": "fedavg-bbt", "budget.queries": 2600, "rounds.max": 1000},
    "fedlinear": {"method.name": "fedlinear", "budget.queries": 2600, "rounds.max": 1000},
}


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory):
    """method -> (config, run directory, bytes in the log) of an undisturbed run."""
    done = {}

    def get(method):
        if method not in done:
            done[method] = undisturbed(tmp_path_factory.mktemp(method), METHODS[method])
        return done[method]

    return get


@pytest.mark.parametrize(
    "method, kills, seed",
    [("fedes", 6, 0), ("fedbpt", 3, 1), ("fedavg-bbt", 3, 2), ("fedlinear", 3, 3)],
)
def test_killed_all_over_the_run(peaceful, method, kills, seed):
    config, reference, logged = peaceful(method)
    victim = Victim(config, reference.with_name("killed"))
    chain(victim, logged, kills, seed)
    assert_same(victim, reference)


def test_killed_with_several_clients_at_work(peaceful):
    _, reference, logged = peaceful("fedes")
    # The clients' threads are no business of the outcome, so the serial run is the reference.
    config = kit.write_config(
        reference.with_name("threads"), METHODS["fedes"] | {"engine.threads": 3}
    )
    victim = Victim(config, reference.with_name("killed-threads"))
    chain(victim, logged, kills=3, seed=3)
    assert_same(victim, reference, at_work=3)


def test_killed_before_the_first_checkpoint_and_after_the_last(peaceful):
    config, reference, _ = peaceful("fedes")
    out, rng = reference.with_name("edges"), random.Random(4)
    victim = Victim(config, out, sleep=0.02)
    begun = (out / "config.toml").is_file
    victim.strike(lambda: True, 0.05)  # nothing was there to kill
    assert not begun()
    victim.strike(begun, rng.uniform(0.01, 0.05))
    assert checkpoint.load(out / "state") is None
    victim.strike(lambda: victim.logged() > 0, rng.uniform(0, 0.1))
    assert checkpoint.load(out / "state") is None
    first, victim.sleep = victim.logged(), 0.003
    victim.strike(lambda: checkpoint.load(out / "state") is not None)
    assert victim.logged() > first
    victim.sleep = 0.02  # the last phases are short, and the machine may be busy
    victim.strike(lambda: any("exam" in text for _, text in victim.lines()), rng.uniform(0, 0.02))
    assert checkpoint.load(out / "state")[1]["counts"]["stopped"] == "budget"
    assert not (out / "result.json").exists()
    victim.finish()
    assert_same(victim, reference)


def test_killed_while_it_shares_a_ledger(tmp_path):
    """Part of the run is in the ledger already, from an older and shorter one."""
    changes = METHODS["fedes"] | {"run.ledger": "shared.sqlite"}
    for name in ("peace", "war"):
        config = kit.write_config(tmp_path / name, changes | {"budget.queries": 1000})
        Victim(config, tmp_path / name / "older", sleep=0.0).finish()
        kit.write_config(tmp_path / name, changes)
    peace = Victim(tmp_path / "peace" / "config.toml", tmp_path / "peace" / "out", sleep=0.0)
    peace.finish()
    assert 0 < kit.result(peace.out)["queries"]["cached"] < kit.result(peace.out)["queries"]["paid"]
    war = Victim(tmp_path / "war" / "config.toml", tmp_path / "war" / "out")
    chain(war, peace.logged(), kills=2, seed=5)
    assert_same(war, peace.out)


def test_ctrl_c_tells_how_to_go_on(peaceful):
    config, reference, _ = peaceful("fedes")
    victim = Victim(config, reference.with_name("interrupted"))
    code, said = victim.strike(lambda: victim.logged() > 50_000, sent=signal.SIGINT)
    assert code == 130
    assert f"fedbbpt resume {victim.out}" in said and "Traceback" not in said
    victim.finish()
    assert_same(victim, reference)


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_killed_at_every_file_operation(tmp_path, options):
    changes = {"rounds.max": 2, "method.optimizer": {"pairs": 2}}
    config, reference = kit.write_config(tmp_path, changes, per_site=4), tmp_path / "out"
    assert kit.spawn("run", config, "--out", reference)[0] == 0
    script = [sys.executable, kit.BOXES / "crashes.py", config, reference, *options]
    done = subprocess.run(script, env=kit.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    crashes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(crashes) > 15 and {"resume", "run --overwrite"} == {c["way"] for c in crashes}
    expected = kit.numbers(reference)
    expected["queries"] |= {"paid": 0, "cached": 0}
    for crash in crashes:
        assert (crash["code"], crash["said"]) == (0, ""), crash
        result = {key: value for key, value in crash["result"].items() if key != "seconds"}
        asked = result["queries"]["paid"] + result["queries"]["cached"]
        assert asked == sum(result["queries"][k] for k in ("train", "select", "evaluation"))
        result["queries"] |= {"paid": 0, "cached": 0}
        assert result == expected, crash
