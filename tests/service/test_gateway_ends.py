"""The end of a gateway, asked for or not: what is on the way is answered, and runs go on."""

import random
import re
import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from fedbbpt.types import RenderedPrompt

for package in ("fastapi", "uvicorn", "prometheus_client", "httpx2", "stamina"):
    pytest.importorskip(package)
from fedbbpt.boxes.gateway_http import GatewayHttp  # noqa: E402

PROMPT = RenderedPrompt("It was {label} .", ("bad", "good"))
LARGEST = 60  # queries in a call of the runs here: ten candidates on six examples


@pytest.fixture(scope="module")
def kit():
    """The helpers of the tests of runs."""
    path = Path(__file__).parents[1] / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Process:
    """``fedbbpt serve-model`` in a process of its own."""

    def __init__(self, kit, config, port=0, **more):
        self.log = config.with_suffix(".log")
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                kit.command("serve-model", config, "--port", port),
                env=kit.environment(**more),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + 30
        while not (found := re.search(r"on (http\S+):(\d+)/v1\n", self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
        self.port = int(found[2])
        self.url = f"{found[1]}:{self.port}"

    def end(self, number):
        """(exit status, what it printed behind its first line)."""
        self.process.send_signal(number)
        self.process.wait(20)
        return self.process.returncode, self.log.read_text().partition("\n")[2]


@pytest.fixture
def serve(kit):
    """Start gateways that are ended with the test."""
    started = []

    def start(config, **more):
        started.append(Process(kit, config, **more))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


@pytest.fixture
def configs(kit, tmp_path):
    """A run on the toy box, and the same run on a gateway in front of it."""

    def make(url, **options):
        near = kit.write_config(tmp_path / "near")
        box = {"kind": "gateway_http", "url": url, "deadline": 20.0, **options}
        return near, kit.write_config(tmp_path / "far", {"box": box})

    return make


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_on_the_way_is_answered(kit, tmp_path, serve, number):
    one = serve(kit.write_config(tmp_path), TOYBOX_SLEEP="1")
    far, found = GatewayHttp(one.url), []
    caller = threading.Thread(target=lambda: found.append(far([PROMPT], ["a", "b"]).scores))
    caller.start()
    time.sleep(0.4)
    assert one.end(number) == (0, "")
    caller.join(5)
    assert found[0].shape == (1, 2, 2)


@pytest.fixture
def reference(kit, configs, tmp_path):
    """The run that nobody disturbed, on the box itself."""
    near, _ = configs("http://unused")
    code, _, said = kit.spawn("run", near, "--out", tmp_path / "reference")
    assert code == 0, said
    return outcome(kit, tmp_path / "reference")


def outcome(kit, out):
    """What must not depend on where the box is, nor on what happened to it."""
    found = kit.numbers(out)
    found.pop("cost_usd")  # 0 over a wire, nothing without one
    return found, kit.losses(out), kit.prompt(out)


def paid(log):
    """Lines of the toy's log: every atom that went through the model."""
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def recorded(out, query):
    """A column of the run's ledger."""
    with closing(sqlite3.connect(out / "ledger.sqlite")) as db:
        return [value for (value,) in db.execute(query)]


@pytest.mark.slow
def test_a_run_goes_on_while_its_gateway_is_killed(kit, configs, serve, tmp_path, reference):
    log, out = tmp_path / "asked.log", tmp_path / "out"
    more = {"TOYBOX_SLEEP": "0.005", "TOYBOX_LOG": str(log)}
    near, _ = configs("http://unused")
    one = serve(near, **more)
    _, far = configs(one.url)
    runner = subprocess.Popen(
        kit.command("run", far, "--out", out), stdout=subprocess.DEVNULL, env=kit.environment()
    )
    kills, rng = 0, random.Random(0)
    for _ in range(3):
        enough = len(paid(log)) + rng.randrange(10, 120)
        while runner.poll() is None and len(paid(log)) < enough:
            time.sleep(0.002)
        if runner.poll() is None:
            one.end(signal.SIGKILL)
            kills += 1
            one = serve(near, port=one.port, **more)
    assert runner.wait(60) == 0 and kills == 3
    assert outcome(kit, out) == reference
    assert recorded(out, "SELECT count(*) FROM requests WHERE rows = 0")[0] >= kills
    # What was on the way when the gateway died was asked again, and nothing else was.
    asked = paid(log)
    assert len(asked) - len(set(asked)) <= kills * LARGEST
    assert set(asked) == {key.hex() for key in recorded(out, "SELECT key FROM rows")}


def test_resumed_after_its_gateway_was_gone_for_too_long(kit, configs, serve, tmp_path, reference):
    log, out = tmp_path / "asked.log", tmp_path / "out"
    more = {"TOYBOX_SLEEP": "0.005", "TOYBOX_LOG": str(log)}
    near, _ = configs("http://unused")
    one = serve(near, **more)
    _, far = configs(one.url, deadline=1.0)
    runner = subprocess.Popen(
        kit.command("run", far, "--out", out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=kit.environment(),
    )
    while len(paid(log)) < 100:
        assert runner.poll() is None
        time.sleep(0.002)
    one.end(signal.SIGKILL)
    _, said = runner.communicate(timeout=30)
    assert runner.returncode == 1 and f"{one.url}/v1 gave no usable answer within 1 s" in said
    serve(near, port=one.port, **more)
    code, _, said = kit.spawn("resume", out)
    assert code == 0, said
    assert outcome(kit, out) == reference
